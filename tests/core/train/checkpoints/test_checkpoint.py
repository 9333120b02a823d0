"""Training that was killed goes on bit for bit; what changed or broke is named."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_training
import torch

from nlpkit.apps.training.curves import draw_curves
from nlpkit.core.errors import ConfigError, InputError, OutputError
from nlpkit.core.train.checkpoints import checkpoint as module
from nlpkit.core.train.checkpoints.checkpoint import latest_checkpoint, save_checkpoint
from nlpkit.core.train.checkpoints.resume import resume
from nlpkit.core.train.data.prompt_trees import SharedPrefixRows
from nlpkit.core.train.loop import train
from nlpkit.core.train.metrics_log import read_metrics
from nlpkit.core.train.session import Session

SUPPORT = Path(tiny_training.__file__).parent
PATH = os.pathsep.join(filter(None, [str(SUPPORT), os.environ.get("PYTHONPATH")]))
IDENTITY = {"the data": "abc"}


def program(folder: Path, settings: str, mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SUPPORT / "tiny_training.py"), str(folder), settings, mode],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": PATH, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("settings", tiny_training.SETTINGS)
def test_killed_at_random_steps_and_resumed_is_bit_identical(settings: str, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    whole = tiny_training.run(tmp_path / "whole", resume=False, **tiny_training.SETTINGS[settings])
    torch.set_num_threads(threads)
    rng = random.Random(settings)
    killed = tmp_path / "killed"
    mode = "new"
    kills = 0
    at = 0
    while True:
        process = program(killed, settings, mode)
        assert process.stdout is not None
        at = rng.randint(at + 8, at + 16) if settings == "adamw" else rng.randint(at + 16, at + 35)
        reached = 0
        for line in process.stdout:
            reached = int(line.split()[1])
            if reached == at:
                process.send_signal(signal.SIGKILL)
                break
        process.communicate(timeout=120)
        code = process.returncode
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
        mode = "resume"
    assert kills >= 1
    expected, got = whole.weights, torch.load(killed / "final.pt")
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    logs = [
        [(row["kind"], row["step"], row["loss"]) for row in read_metrics(tmp_path / name / "metrics.jsonl")]
        for name in ("whole", "killed")
    ]
    assert logs[0] == logs[1]
    assert [step for kind, step, _ in logs[1] if kind == "train"] == list(range(1, 41))


def saved(tmp_path: Path, **changes: Any) -> Path:
    made = tiny_training.trainer(tmp_path / "data", **changes)
    for info in train(made):
        if info.step in (2, 4):
            save_checkpoint(tmp_path / "c", made, identity=IDENTITY)
        if info.step == 4:
            break
    return tmp_path / "c"


def test_the_state_is_whole(tmp_path: Path) -> None:
    folder = saved(tmp_path, ema=0.9, accumulate=2)
    straight = tiny_training.trainer(tmp_path / "data", ema=0.9, accumulate=2)
    expected = list(train(straight))
    again = tiny_training.trainer(tmp_path / "data", ema=0.9, accumulate=2)
    found, notes = latest_checkpoint(folder)
    assert found is not None
    assert notes == []
    torch.manual_seed(12345)  # noise from outside must not matter
    assert resume(again, found, identity=IDENTITY) == []
    got = list(train(again))
    assert [info.loss for info in got] == [info.loss for info in expected[4:]]
    assert all(torch.equal(value, again.result()[name]) for name, value in straight.result().items())


@pytest.mark.parametrize("damage", ["truncate", "flip", "missing", "manifest"])
def test_a_damaged_checkpoint_is_passed_over(damage: str, tmp_path: Path) -> None:
    folder = saved(tmp_path)
    last = folder / "step-00000004"
    tensors = last / module.TENSORS
    data = bytearray(tensors.read_bytes())
    if damage == "truncate":
        tensors.write_bytes(data[:-10])
    elif damage == "flip":
        data[len(data) // 2] ^= 1
        tensors.write_bytes(data)
    elif damage == "missing":
        tensors.unlink()
    else:
        (last / module.MANIFEST).write_text('{"step": 4, "ver')
    (folder / ".step-00000006.aside").mkdir()
    found, notes = latest_checkpoint(folder)
    assert found is not None
    assert found.step == 2
    assert len(notes) == 1
    assert "step-00000004 is damaged and was passed over" in notes[0]


@pytest.mark.parametrize(
    ("changes", "identity", "message"),
    [
        ({"lr": 1.0}, IDENTITY, r"lr was 0\.003 and is 1\.0"),
        ({"seed": 5, "dropout": 0.5}, IDENTITY, r"dropout was 0\.0 and is 0\.5; seed was 0 and is 5"),
        ({}, {"the data": "other"}, "the data changed"),
        ({}, {}, "the data changed"),
    ],
)
def test_a_changed_training_is_refused(
    changes: dict[str, Any], identity: dict[str, str], message: str, tmp_path: Path
) -> None:
    found, _ = latest_checkpoint(saved(tmp_path))
    assert found is not None
    with pytest.raises(ConfigError, match=message):
        resume(tiny_training.trainer(tmp_path / "data", **changes), found, identity=identity)


def test_rows_laid_out_in_another_way_are_refused(tmp_path: Path) -> None:
    found, _ = latest_checkpoint(saved(tmp_path))
    assert found is not None
    trees = SharedPrefixRows(tiny_training.store(tmp_path / "data"), tiny_training.SEQ)
    with pytest.raises(ConfigError, match="laid out in another way"):
        resume(tiny_training.trainer(tmp_path / "data", sources=[trees]), found, identity=IDENTITY)
    # One from before that was noted goes on: everything else is as it was.
    manifest = {
        key: value for key, value in found.manifest.items() if key not in ("layout", "warmup_steps", "compiled")
    }
    config = {key: value for key, value in manifest["config"].items() if key != "average"}
    older = dataclasses.replace(found, manifest={**manifest, "config": config})
    assert resume(tiny_training.trainer(tmp_path / "data"), older, identity=IDENTITY) == []


def test_what_does_not_matter_may_change(tmp_path: Path) -> None:
    found, _ = latest_checkpoint(saved(tmp_path))
    assert found is not None
    made = tiny_training.trainer(tmp_path / "data", batch_size=2, accumulate=2, keep=7, eval_every=3)
    assert resume(made, found, identity=IDENTITY) == []
    straight = list(train(tiny_training.trainer(tmp_path / "data")))
    for info, expected in zip(train(made), straight[4:], strict=True):
        assert info.loss == pytest.approx(expected.loss, abs=1e-5)


def test_old_checkpoints_go_and_the_best_stays(tmp_path: Path) -> None:
    tiny_training.run(tmp_path, resume=False, max_steps=20, save_every=2, eval_every=5, keep=3)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["best", "step-00000016", "step-00000018", "step-00000020"]


def test_a_full_disk_leaves_earlier_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path)
    made = tiny_training.trainer(tmp_path / "data")
    made.make_step()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(OutputError, match=r"the disk is full.*--resume"):
        save_checkpoint(folder, made, identity=IDENTITY)
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000002", "step-00000004"]
    found, _ = latest_checkpoint(folder)
    assert found is not None


def test_a_really_full_disk(tmp_path: Path) -> None:
    """A child whose files may not grow: the library below reports it in its own way."""
    code = (
        "import resource, signal, sys; from pathlib import Path; import tiny_training\n"
        "from nlpkit.core.train.checkpoints.checkpoint import save_checkpoint\n"
        "from nlpkit.core.errors import OutputError\n"
        f"made = tiny_training.trainer(Path({str(tmp_path)!r}) / 'data')\n"
        "made.make_step()\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "try:\n"
        f"    save_checkpoint(Path({str(tmp_path)!r}) / 'c', made, identity={{}})\n"
        "except OutputError as error:\n"
        "    print('refused', error)\n"
    )
    env = {**os.environ, "PYTHONPATH": PATH, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, env=env)
    assert done.stdout.startswith("refused The checkpoint of step 1 cannot be written"), done
    assert list((tmp_path / "c").iterdir()) == []


def test_starting_over_in_a_used_folder_is_refused(tmp_path: Path) -> None:
    tiny_training.run(tmp_path, resume=False, max_steps=2)
    session = Session(tiny_training.trainer(tmp_path / "data"), tmp_path, identity={})
    with pytest.raises(InputError, match="--resume"):
        session.begin_anew()


def test_early_stopping_keeps_the_best_weights(tmp_path: Path) -> None:
    made = tiny_training.trainer(tmp_path / "data", max_steps=50, eval_every=2, patience=3, metric="score")
    scores = iter([1.0, 3.0, 2.0, 2.5, 2.9, 9.0])
    best: dict[str, torch.Tensor] = {}

    def evaluate(model: Any) -> dict[str, float]:
        value = next(scores)
        if value == 3.0:
            best.update({name: tensor.clone() for name, tensor in made.result().items()})
        return {"score": value}

    outcome = Session(made, tmp_path / "run", identity={}, evaluate=evaluate).run()
    assert (outcome.reason, outcome.step, outcome.best, outcome.weights_step) == ("early", 10, (3.0, 4), 4)
    assert all(torch.equal(outcome.weights[name], value) for name, value in best.items())
    assert draw_curves(tmp_path / "run") == [tmp_path / "run" / "curves.html"]
    assert (tmp_path / "run" / "curves.html").read_text().count("<svg") == 4


def test_divergence_stops_with_a_sentence_and_a_checkpoint(tmp_path: Path) -> None:
    made = tiny_training.trainer(tmp_path / "data", max_steps=500, lr=30.0, warmup=60, clip=0, weight_decay=0)
    outcome = Session(made, tmp_path / "run", identity={}).run()
    assert outcome.reason == "diverged"
    assert outcome.problem is not None
    assert "rose from" in outcome.problem or "nan" in outcome.problem
    assert outcome.step < 500
    found, _ = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert found is not None
    assert found.step == outcome.step


def test_stopping_on_request_saves(tmp_path: Path) -> None:
    made = tiny_training.trainer(tmp_path / "data", max_steps=50)
    outcome = Session(made, tmp_path / "run", identity={}, stop=lambda: made.step >= 3).run()
    assert (outcome.reason, outcome.step) == ("stopped", 3)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert json.dumps(rows[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"eval_every": 2}, "no data to evaluate on"), ({"metric": "bleu"}, "nothing measures it")],
)
def test_evaluations_without_anything_to_evaluate(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        Session(tiny_training.trainer(tmp_path / "data", **changes), tmp_path, identity={})
