"""The mean of late states of the weights: exactly that, kept only where it is better, the same after a crash."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny_training
import torch
from torch import Tensor

from nlpkit.core.errors import ConfigError
from nlpkit.core.model.gpt import GPT
from nlpkit.core.train.config import TrainConfig
from nlpkit.core.train.loop import StepInfo, train
from nlpkit.core.train.metrics_log import read_metrics
from nlpkit.core.train.session import Outcome, Session, Silence


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the disk takes longer than these trainings."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


class _Crash(Exception):
    pass


class _Watcher(Silence):
    """Collects the notes, and crashes at a step."""

    def __init__(self, crash_at: int | None = None) -> None:
        self.notes: list[str] = []
        self._crash_at = crash_at

    def on_note(self, text: str) -> None:
        self.notes.append(text)

    def on_step(self, info: StepInfo, total: int) -> None:
        if info.step == self._crash_at:
            raise _Crash


def run(folder: Path, *, resume: bool = False, crash_at: int | None = None, dev: bool = True, evaluate: Any = None,
        **changes: Any) -> tuple[Outcome, list[str]]:  # fmt: skip
    watcher = _Watcher(crash_at)
    trainer = tiny_training.trainer(folder / "data", **changes)
    packer = tiny_training.dev_packer(folder / "dev") if dev else None
    session = Session(trainer, folder, identity={}, dev=packer, evaluate=evaluate, watcher=watcher)
    if resume:
        session.resume()
    return session.run(), watcher.notes


def states(folder: Path, steps: list[int], **changes: Any) -> Mapping[str, Tensor]:
    """The mean of the weights after some steps, by a loop of its own."""
    trainer = tiny_training.trainer(folder / "data", **changes)
    found = [
        {name: tensor.double().clone() for name, tensor in trainer.result().items()}
        for info in train(trainer)
        if info.step in steps
    ]
    assert len(found) == len(steps)
    return {name: (sum(one[name] for one in found) / len(found)).float() for name in found[0]}


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], value) for name, value in other.items())


# A rate so high that single states jump about: their mean is far better.
ROUGH: dict[str, Any] = {"max_steps": 32, "lr": 0.05, "schedule": "constant", "warmup": 2, "clip": 0.1}


def test_the_mean_of_the_last_evaluations_is_kept_where_it_is_better(tmp_path: Path) -> None:
    outcome, notes = run(tmp_path, average=3, eval_every=5, **ROUGH)
    assert outcome.averaged == (25, 30, 32)
    assert equal(outcome.weights, states(tmp_path, [25, 30, 32], **ROUGH))
    rows = read_metrics(tmp_path / "metrics.jsonl")
    single = [row["loss"] for row in rows if row["kind"] == "eval"]
    (mean,) = [row for row in rows if row["kind"] == "average"]
    assert mean["loss"] < min(single)
    assert mean["steps"] == [25, 30, 32]
    assert outcome.best == (mean["loss"], 32)
    assert any("mean of the weights of steps 25, 30, 32 is better and kept" in note for note in notes)
    # It is what was measured: the dev loss of these weights.
    trainer = tiny_training.trainer(tmp_path / "data")
    trainer.weights.use(outcome.weights)
    assert trainer.measure(tiny_training.dev_packer(tmp_path / "dev"))[0] == mean["loss"]
    kept = sorted(path.name for path in (tmp_path / "checkpoints" / "average").iterdir())
    assert kept == ["00000025", "00000030", "00000032"]


def test_a_mean_that_is_worse_is_not_kept(tmp_path: Path) -> None:
    smooth = {"max_steps": 30, "lr": 3e-3, "schedule": "constant", "warmup": 2, "eval_every": 10}
    outcome, notes = run(tmp_path, average=3, **smooth)
    plain, _ = run(tmp_path / "plain", **smooth)
    assert outcome.averaged == ()
    assert (outcome.best, outcome.weights_step) == (plain.best, 30)
    assert equal(outcome.weights, plain.weights)
    assert any("not better and not kept" in note for note in notes)


@pytest.mark.parametrize("metric", ["score", "ter"])
def test_a_metric_decides(metric: str, tmp_path: Path) -> None:
    """Four evaluations and that of the mean; more is better for one metric, less for the other."""
    values = iter([1.0, 5.0, 4.0, 4.5, 5.5 if metric == "score" else 0.5])

    def evaluate(model: GPT) -> dict[str, float]:
        return {metric: next(values)}

    outcome, _ = run(tmp_path, dev=False, evaluate=evaluate, average=2, eval_every=3, metric=metric)
    assert outcome.averaged == (9, 12)
    assert outcome.best == (5.5 if metric == "score" else 0.5, 12)


def test_the_best_state_stays_where_the_mean_is_worse(tmp_path: Path) -> None:
    values = iter([1.0, 5.0, 4.0, 4.5, 4.75])
    outcome, _ = run(tmp_path, dev=False, evaluate=lambda model: {"score": next(values)}, average=2, eval_every=3,
                     metric="score")  # fmt: skip
    assert (outcome.averaged, outcome.best, outcome.weights_step) == ((), (5.0, 6), 6)


def test_without_dev_data_the_checkpoints_are_averaged(tmp_path: Path) -> None:
    outcome, notes = run(tmp_path, dev=False, average=2, save_every=5)
    assert outcome.averaged == (10, 12)
    assert outcome.best is None
    assert equal(outcome.weights, states(tmp_path, [10, 12]))
    assert any("no dev data" in note for note in notes)


def test_early_stopping_averages_too(tmp_path: Path) -> None:
    values = iter([3.0, 2.0, 1.0, 4.0])
    outcome, _ = run(tmp_path, dev=False, evaluate=lambda model: {"score": next(values)}, average=3, eval_every=2,
                     metric="score", patience=2)  # fmt: skip
    assert (outcome.reason, outcome.step, outcome.averaged) == ("early", 6, (2, 4, 6))


@pytest.mark.parametrize("due", [{"eval_every": 3}, {"eval_every": 5}, {}])
@pytest.mark.parametrize(("lora", "dtype"), [(False, "fp32"), (True, "bf16")])
def test_after_crashes_the_mean_is_the_same(due: dict[str, int], lora: bool, dtype: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_steps": 24, "average": 3, "save_every": 4, "lora": lora, "dtype": dtype, "lr": 0.05,
                               "schedule": "constant", **due}  # fmt: skip
    whole, _ = run(tmp_path / "whole", **options)
    with pytest.raises(_Crash):
        run(tmp_path / "again", crash_at=15, **options)
    with pytest.raises(_Crash):
        run(tmp_path / "again", resume=True, crash_at=23, **options)
    again, _ = run(tmp_path / "again", resume=True, **options)
    assert again.averaged == whole.averaged
    assert again.best == whole.best
    assert equal(again.weights, whole.weights)
    # Also where all steps are done.
    last, _ = run(tmp_path / "again", resume=True, **options)
    assert (last.averaged, last.best) == (whole.averaged, whole.best)
    assert equal(last.weights, whole.weights)
    logs = [[(row["kind"], row["step"], row.get("loss")) for row in read_metrics(tmp_path / name / "metrics.jsonl")]
            for name in ("whole", "again")]  # fmt: skip
    assert sorted(map(str, logs[0])) == sorted(map(str, logs[1]))


def test_a_damaged_state_is_left_out_and_named(tmp_path: Path) -> None:
    options: dict[str, Any] = {"average": 3, "save_every": 4, "dev": False}
    run(tmp_path, **options)
    file = tmp_path / "checkpoints" / "average" / "00000008" / "state.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    outcome, notes = run(tmp_path, resume=True, **options)
    assert outcome.averaged == (4, 12)
    assert any("step 8 are left out" in note and "not as it was written" in note for note in notes)
    file.with_name("state.json").unlink()
    (tmp_path / "checkpoints" / "average" / "00000004" / "state.json").unlink()
    outcome, notes = run(tmp_path, resume=True, **options)
    assert outcome.averaged == ()
    assert any("nothing was averaged" in note for note in notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"average": 3}, "eval_every and save_every are both 0"),
        ({"average": 1, "save_every": 3}, "at least 2 states"),
        ({"average": 2, "save_every": 3, "ema": 0.9}, "choose one"),
        ({"average": -1}, "average is -1"),
        ({"average": 2.5}, "average is 2.5"),
    ],
)
def test_unusable_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(method="full", max_steps=10, **options)
