"""The search: grids are covered, killed trials are tried again, and another search in the same place is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from nlpkit.apps.training.search import Pruned, Search, SearchRange, best_trial, parse_space, run_search
from nlpkit.core.errors import ConfigError

pytest.importorskip("optuna")

SPACE = parse_space({"train.lr": {"low": 0.001, "high": 1.0, "log": True}, "lora.rank": [2, 4, 8]})


def bowl(params: Mapping[str, Any], report: Callable[[int, float], bool], number: int) -> float:
    return abs(params["train.lr"] - 0.1) + abs(params["lora.rank"] - 4)


def test_a_grid_is_covered_once_and_resumes(tmp_path: Path) -> None:
    space = parse_space({"a": [1, 2], "b": {"low": 0.0, "high": 0.2, "step": 0.1}})
    search = Search(space=space, method="grid", trials=100)
    seen = []

    def objective(params: Mapping[str, Any], report: Any, number: int) -> float:
        seen.append((params["a"], round(params["b"], 3)))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return float(params["a"])

    with pytest.raises(KeyboardInterrupt):
        run_search(tmp_path, search, objective)
    trials = run_search(tmp_path, search, objective)
    complete = [trial for trial in trials if trial.state == "complete"]
    points = {(trial.params["a"], round(float(trial.params["b"]), 3)) for trial in complete}
    assert points == {(a, b) for a in (1, 2) for b in (0.0, 0.1, 0.2)}
    assert len(complete) == search.wanted == 6
    assert len(seen) == 7


def test_tpe_finds_the_bottom_and_goes_on(tmp_path: Path) -> None:
    first = run_search(tmp_path, Search(space=SPACE, trials=6), bowl)
    assert len(first) == 6
    trials = run_search(tmp_path, Search(space=SPACE, trials=30), bowl)
    assert len(trials) == 30
    best = best_trial(trials, minimize=True)
    assert best is not None
    assert best.value is not None
    assert best.value < 0.2
    assert best.params["lora.rank"] == 4
    assert trials[:6] == first
    # No random trial comes twice because a run began anew.
    assert len({trial.params["train.lr"] for trial in trials}) > 25


def test_hopeless_trials_are_pruned(tmp_path: Path) -> None:
    def objective(params: Mapping[str, Any], report: Callable[[int, float], bool], number: int) -> float:
        for step in range(5):
            if report(step, bowl(params, report, number)):
                raise Pruned
        return bowl(params, report, number)

    trials = run_search(tmp_path, Search(space=SPACE, trials=25), objective)
    states = [trial.state for trial in trials]
    assert states.count("pruned") > 3
    assert states.count("complete") > 3
    assert all(len(trial.steps) < 5 or trial.state == "complete" for trial in trials)


def test_a_killed_trial_is_tried_again(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from nlpkit.apps.training.search import *\n"
        "space = parse_space({'train.lr': {'low': 0.001, 'high': 1.0, 'log': True}, 'lora.rank': [2, 4, 8]})\n"
        "def objective(params, report, number):\n"
        "    if number == 2: os.kill(os.getpid(), 9)\n"
        "    return 1.0\n"
        f"run_search(Path({str(tmp_path)!r}), Search(space=space, trials=4), objective)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=100)
    assert done.returncode == -9
    trials = run_search(tmp_path, Search(space=SPACE, trials=4), bowl)
    states = [trial.state for trial in trials]
    assert states == ["complete", "complete", "fail", "complete", "complete"]
    assert trials[3].params == trials[2].params


def test_another_search_in_the_same_place_is_refused(tmp_path: Path) -> None:
    run_search(tmp_path, Search(space=SPACE, trials=1), bowl)
    other = Search(space={"train.lr": SearchRange(options=(1, 2))}, trials=3)
    with pytest.raises(ConfigError, match="other hyperparameters"):
        run_search(tmp_path, other, bowl)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"a": 3}, "values of a"),
        ({"a": []}, "values of a"),
        ({"a": {"low": 1}}, "values of a"),
        ({"a": {"low": 2, "high": 1}}, "below high"),
        ({"a": {"low": 0, "high": 1, "log": True}}, "above 0"),
        ({"a": {"low": 1, "high": 3, "step": 0}}, "range of a"),
    ],
)
def test_unusable_spaces(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_space(values)


def test_unusable_searches() -> None:
    with pytest.raises(ConfigError, match="nothing to search"):
        Search(space={})
    with pytest.raises(ConfigError, match="needs a list of values, or a step"):
        Search(space={"a": SearchRange(low=0, high=1)}, method="grid")
    with pytest.raises(ConfigError, match="Did you mean 'grid'"):
        Search(space=SPACE, method="gird")  # type: ignore[arg-type]
