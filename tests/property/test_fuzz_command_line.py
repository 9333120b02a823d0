"""A sample of the damaged files that ``tests/benchmarks/fuzz.py`` reads by the thousand."""

from __future__ import annotations

import sys
from collections import Counter
from types import ModuleType
from typing import Any

import pytest
from scripts import load_script

pytest.importorskip("resource")
pytestmark = [
    pytest.mark.property,
    pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the memory of a process"),
    # torch has threads by now; what is forked off computes with one.
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]
COUNT = 16


@pytest.fixture(scope="module")
def fuzzer() -> ModuleType:
    return load_script("fuzz")


@pytest.fixture(scope="module")
def seeds(fuzzer: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return fuzzer.Seeds(tmp_path_factory.mktemp("fuzz") / "seeds")


@pytest.mark.parametrize("kind", ["adapter", "rows", "toml"])
def test_damaged_files_are_read_or_refused(kind: str, fuzzer: ModuleType, seeds: Any) -> None:
    outcomes = fuzzer.fuzz(seeds, kind, COUNT, seed=7)
    assert [outcome for outcome in outcomes if outcome.verdict not in ("read", "refused")] == []
    counts = Counter(outcome.verdict for outcome in outcomes)
    assert counts["read"] >= 1
    assert counts["refused"] >= 3
    assert counts.total() == COUNT


def test_what_must_not_happen_is_seen(fuzzer: ModuleType, seeds: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit below what whole work takes, an error that is no error of ours, and a process that dies."""
    monkeypatch.setattr(fuzzer, "MOST_BYTES", -1)
    assert {outcome.verdict for outcome in fuzzer.fuzz(seeds, "template", 2, seed=7)} == {"memory"}
    monkeypatch.undo()
    monkeypatch.setattr("nlpkit.cli.main", lambda arguments: 1 / 0)
    assert {outcome.verdict for outcome in fuzzer.fuzz(seeds, "template", 2, seed=7)} == {"bug"}
    monkeypatch.setattr("nlpkit.cli.main", lambda arguments: sys.modules["os"]._exit(9))
    assert {outcome.verdict for outcome in fuzzer.fuzz(seeds, "template", 2, seed=7)} == {"crash"}
