"""The command ``tune``: trials train, folds hold out, and the best configuration trains again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nlpkit.apps.training.recipe import build_recipe, load_toml
from nlpkit.apps.training.tuning import load_plan
from nlpkit.core.errors import ConfigError

pytest.importorskip("optuna")

CONFIG = """
output = "{output}"
method = "scratch"
preset = "nano"
task = "text"
{dev}
[tokenizer]
kind = "char"
[model]
n_layers = 1
d_model = 32
n_heads = 2
d_ff = 48
[train]
max_steps = 12
eval_every = 4
seq_len = 32
batch_size = 2
warmup = 2
[[data]]
path = "{data}"
[tune]
{tune}
[tune.space]
"train.lr" = [0.00001, 0.02]
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"text": "to be or not to be " * (1 + i % 3)}) + "\n" for i in range(24)))

    def written(*, tune: str, dev: bool = True, config: str = CONFIG) -> str:
        path = tmp_path / "tune.toml"
        line = f'eval_data = ["{data}"]' if dev else ""
        path.write_text(config.format(output=tmp_path / "out", data=data, tune=tune, dev=line))
        return str(path)

    return written


def test_grid_with_folds_prints_writes_and_trains(
    write: Callable[..., str], tmp_path: Path, cli: Callable[..., Any]
) -> None:
    config = write(tune='method = "grid"\nfolds = 2', dev=False)
    done = cli("tune", "--config", config)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split() == ["trial", "loss", "state", "seconds", "train.lr"]
    assert [line.split()[-1] for line in lines[2:]] == ["0.02", "1e-05"]
    best = load_toml(str(tmp_path / "out" / "best.toml"))
    assert best["train"]["lr"] == 0.02
    assert "<circle" in (tmp_path / "out" / "trials.html").read_text()
    logs = list((tmp_path / "out" / "trials").glob("*/fold-*/metrics.jsonl"))
    assert len(logs) == 4
    assert not list((tmp_path / "out" / "trials").glob("*/fold-*/checkpoints"))
    again = cli("tune", "--config", config, "--json", "-q")  # everything is done already
    rows = [json.loads(line) for line in again.out.splitlines()]
    assert len(rows) == 2
    assert [row["params"]["train.lr"] for row in rows if row["best"]] == [0.02]
    trained = cli("train", "--config", str(tmp_path / "out" / "best.toml"), "-q")
    assert trained.code == 0, trained.err


def test_workers_share_the_trials(write: Callable[..., str], tmp_path: Path, cli: Callable[..., Any]) -> None:
    done = cli("tune", "--config", write(tune="trials = 4\nworkers = 2\nprune = false"), "--json")
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert sum(row["state"] == "complete" for row in rows) >= 4
    assert all(row["steps"] for row in rows)


def test_folds_hold_out_different_rows(write: Callable[..., str]) -> None:
    from nlpkit.apps.training.examples import read_examples
    from nlpkit.apps.training.tuning import fold_recipe

    plan = load_plan(write(tune="folds = 3", dev=False), output=None, trials=None, workers=None)
    held: list[str] = []
    for fold in range(3):
        recipe = fold_recipe(plan.recipe, fold, 3)
        kept = {where for where, _ in read_examples(recipe.data[0], None)}
        out = {where for where, _ in read_examples(recipe.eval_data[0], None)}
        assert len(kept) == 16
        assert len(out) == 8
        assert not kept & out
        held += sorted(out)
    assert len(set(held)) == 24
    assert build_recipe(fold_recipe(plan.recipe, 1, 3).to_dict(), {}) == fold_recipe(plan.recipe, 1, 3)


@pytest.mark.parametrize(
    ("tune", "dev", "message"),
    [
        ("trails = 3", True, "no option 'trails'"),
        ("folds = 1", True, "folds is 1"),
        ("folds = 2", True, "leave eval_data out"),
        ("", False, "nothing to compare trials on"),
        ("workers = 0", True, "workers is 0"),
    ],
)
def test_unusable_plans(tune: str, dev: bool, message: str, write: Callable[..., str]) -> None:
    with pytest.raises(ConfigError, match=message):
        load_plan(write(tune=tune, dev=dev), output=None, trials=None, workers=None)


def test_a_name_that_is_no_option(write: Callable[..., str], cli: Callable[..., Any]) -> None:
    bad = CONFIG.replace('"train.lr" =', '"lr" =')
    with pytest.raises(ConfigError, match=r"such as 'train\.lr'"):
        load_plan(write(tune="", config=bad), output=None, trials=None, workers=None)
    wrong = CONFIG.replace('"train.lr" =', '"train.learning_rate" =')
    done = cli("tune", "--config", write(tune="trials = 1", config=wrong))
    assert done.code == 2, done.err
    assert "learning_rate" in done.err
