"""Training that is made longer later: bit for bit one that was so long from the start, or refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny_training
import torch
from torch import Tensor

from nlpkit.core.errors import ConfigError, InputError
from nlpkit.core.train.config import TrainConfig
from nlpkit.core.train.metrics_log import read_metrics
from nlpkit.core.train.schedule import decay_start, learning_rate
from nlpkit.core.train.session import Outcome, Session, Silence


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the disk takes longer than these trainings."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


class _Notes(Silence):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_note(self, text: str) -> None:
        self.texts.append(text)


def run(folder: Path, *, resume: bool = False, stop_at: int | None = None, **changes: Any) -> tuple[Outcome, list[str]]:
    notes = _Notes()
    trainer = tiny_training.trainer(folder / "data", **changes)
    dev = tiny_training.dev_packer(folder / "dev") if changes.get("eval_every") else None
    session = Session(trainer, folder, identity={}, dev=dev, watcher=notes, stop=lambda: trainer.step == stop_at)
    if resume:
        assert session.resume()
    return session.run(), notes.texts


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], value) for name, value in other.items())


def same_end(tmp_path: Path, before: dict[str, Any], after: dict[str, Any], **common: Any) -> list[str]:
    """Train `before` and then `after`, and compare with `after` alone; return the notes on the way."""
    run(tmp_path / "longer", **before, **common)
    longer, notes = run(tmp_path / "longer", resume=True, **after, **common)
    whole, _ = run(tmp_path / "whole", **after, **common)
    assert longer.step == whole.step
    assert (longer.best, longer.weights_step, longer.averaged) == (whole.best, whole.weights_step, whole.averaged)
    assert longer.loss == whole.loss
    assert equal(longer.weights, whole.weights)
    logs = [
        [(row["kind"], row["step"], row.get("loss")) for row in read_metrics(tmp_path / name / "metrics.jsonl")]
        for name in ("longer", "whole")
    ]
    assert logs[0] == logs[1]
    return notes


CONSTANT: dict[str, Any] = {"schedule": "constant", "warmup": 4}
WSD: dict[str, Any] = {"schedule": "wsd", "warmup": 4, "decay": 0.25, "lr": 0.02}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"eval_every": 7, "save_every": 5},
        {"eval_every": 7, "average": 2, "lr": 0.05},
        {"ema": 0.9, "eval_every": 5, "dropout": 0.1},
        {"lora": True, "optimizer": "lion", "accumulate": 2},
    ],
)
def test_a_constant_rate_goes_on_from_the_end(options: dict[str, Any], tmp_path: Path) -> None:
    notes = same_end(tmp_path, {"max_steps": 12}, {"max_steps": 20}, **{**CONSTANT, **options})
    assert notes[: 1 if options.get("eval_every") else None] == [] or "mean of" in notes[0]


@pytest.mark.parametrize(
    "options",
    [
        {"save_every": 2},
        {"save_every": 3, "eval_every": 4},
        {"eval_every": 5, "average": 3, "save_every": 19},
        {"eval_every": 2, "average": 3},
    ],
)
def test_wsd_goes_back_to_before_its_decay(options: dict[str, Any], tmp_path: Path) -> None:
    notes = same_end(tmp_path, {"max_steps": 16}, {"max_steps": 24}, **{**WSD, **options})
    assert "goes on from step 13" in notes[0]
    assert "the learning rate falls from step 14 on" in notes[0]
    names = sorted(path.name for path in (tmp_path / "longer" / "checkpoints" / "before-decay").glob("step-*"))
    assert names == ["step-00000019"]


def test_wsd_that_does_not_yet_fall_goes_on_where_it_was(tmp_path: Path) -> None:
    run(tmp_path / "longer", stop_at=10, max_steps=16, **WSD)
    longer, notes = run(tmp_path / "longer", resume=True, max_steps=24, **WSD)
    whole, _ = run(tmp_path / "whole", max_steps=24, **WSD)
    assert notes == []
    assert equal(longer.weights, whole.weights)
    # And shorter, so that the rate falls sooner, as long as it does not have to have fallen already.
    run(tmp_path / "shorter", stop_at=10, max_steps=40, **WSD)
    shorter, _ = run(tmp_path / "shorter", resume=True, max_steps=16, **WSD)
    whole, _ = run(tmp_path / "short", max_steps=16, **WSD)
    assert equal(shorter.weights, whole.weights)


def test_what_is_killed_in_its_second_life_goes_on(tmp_path: Path) -> None:
    options = {**WSD, "save_every": 3, "eval_every": 4}
    run(tmp_path / "longer", max_steps=16, **options)
    run(tmp_path / "longer", resume=True, stop_at=14, max_steps=24, **options)
    longer, notes = run(tmp_path / "longer", resume=True, max_steps=24, **options)
    whole, _ = run(tmp_path / "whole", max_steps=24, **options)
    assert notes == []
    assert equal(longer.weights, whole.weights)
    assert longer.best == whole.best


@pytest.mark.parametrize("schedule", ["constant", "wsd"])
def test_a_share_of_warmup_stays_as_long_as_it_was(schedule: str, tmp_path: Path) -> None:
    """The training is that of the new length with the old one's warm-up in steps."""
    options = {"schedule": schedule, "warmup": 0.25}
    run(tmp_path / "longer", max_steps=16, **options)
    longer, notes = run(tmp_path / "longer", resume=True, max_steps=24, **options)
    whole, _ = run(tmp_path / "whole", max_steps=24, schedule=schedule, warmup=4)
    assert "the warm-up keeps the 4 steps that it began with" in notes
    assert equal(longer.weights, whole.weights)
    again, notes = run(tmp_path / "longer", resume=True, max_steps=24, **options)
    assert notes == []
    assert equal(again.weights, whole.weights)


@pytest.mark.parametrize(
    ("before", "after"), [({"epochs": 1}, {"epochs": 2}), ({"epochs": 1}, {"max_steps": 20}),
                          ({"max_steps": 9}, {"epochs": 2.5}), ({"epochs": 2}, {"epochs": 2.3})]
)  # fmt: skip
def test_epochs(before: dict[str, Any], after: dict[str, Any], tmp_path: Path) -> None:
    """The last step of an epoch takes what is left; a longer training has none such: it goes back one checkpoint."""
    unset: dict[str, Any] = {"max_steps": None}
    notes = same_end(tmp_path, unset | before, unset | after, **CONSTANT, save_every=1)
    # 35 packed rows an epoch, 4 a step.
    assert len(notes) == int("epochs" in before)
    assert all("none of the next epoch" in note for note in notes)


@pytest.mark.parametrize(
    ("options", "after", "message"),
    [
        ({"schedule": "cosine"}, 20, r"max_steps was 12 and is 20.*schedule cosine.*depends on the length.*--base"),
        ({"schedule": "linear"}, 20, "schedule linear"),
        ({"schedule": "constant"}, 8, "12 steps are done already"),
        ({"schedule": "constant", "warmup": 4, "lr": 0.5}, 20, None),
    ],
)
def test_what_would_be_another_training_is_refused(
    options: dict[str, Any], after: int, message: str | None, tmp_path: Path
) -> None:
    run(tmp_path, max_steps=12, **options)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    if message is None:
        run(tmp_path, resume=True, max_steps=after, **options)
        return
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, resume=True, max_steps=after, **options)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_end_of_an_epoch_without_an_earlier_checkpoint(tmp_path: Path) -> None:
    options = {**CONSTANT, "max_steps": None}
    run(tmp_path, epochs=1, **options)
    with pytest.raises(ConfigError, match=r"epochs was 1 and is 2.*with none of the next epoch"):
        run(tmp_path, resume=True, epochs=2, **options)


def test_wsd_without_the_checkpoint_from_before_its_decay(tmp_path: Path) -> None:
    run(tmp_path, max_steps=16, **WSD)
    for path in (tmp_path / "checkpoints" / "before-decay").glob("step-*/state.json"):
        path.write_text("{")
    with pytest.raises(ConfigError, match="falls from step 14 on"):
        run(tmp_path, resume=True, max_steps=24, **WSD)


def test_killed_in_its_decay_it_goes_on_from_before(tmp_path: Path) -> None:
    """With no other checkpoint, that is the last one, and no new training starts beside it."""
    trainer = tiny_training.trainer(tmp_path / "data", max_steps=16, **WSD)
    session = Session(trainer, tmp_path, identity={}, stop=lambda: trainer.step == 15)
    session.run()
    shutil.rmtree(tmp_path / "checkpoints" / "step-00000015")
    with pytest.raises(InputError, match="holds a training"):
        session.begin_anew()
    again, _ = run(tmp_path, resume=True, max_steps=16, **WSD)
    whole, _ = run(tmp_path / "whole", max_steps=16, **WSD)
    assert equal(again.weights, whole.weights)


def test_other_changes_are_still_named(tmp_path: Path) -> None:
    run(tmp_path, max_steps=12, **CONSTANT)
    with pytest.raises(ConfigError, match=r"lr was 0\.003 and is 0\.1"):
        run(tmp_path, resume=True, max_steps=20, lr=0.1, **CONSTANT)
    with pytest.raises(ConfigError, match=r"a step had 4 packed rows and has 8"):
        run(tmp_path, resume=True, max_steps=20, accumulate=2, **CONSTANT)


@pytest.mark.parametrize(("total", "decay", "warmup"), [(100, 0.2, 10), (16, 0.25, 4), (7, 0.3, 0), (10, 1.0, 3)])
def test_the_decay_starts_where_the_rate_first_falls(total: int, decay: float, warmup: int) -> None:
    config = TrainConfig(method="full", max_steps=total, schedule="wsd", decay=decay, lr=1.0)
    rates = [learning_rate(config, step, total, warmup=warmup) for step in range(total)]
    start = decay_start(config, total, warmup=warmup)
    assert start == next(step for step in range(warmup, total) if rates[step] < 1)
    assert decay_start(TrainConfig(method="full", max_steps=9), 9, warmup=1) is None
