"""The samples of a run: written a line each, read back whatever a kill left of the last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nlpkit.core.errors import OutputError
from nlpkit.eval.metrics.base import Likelihood
from nlpkit.eval.runs.samples import SampleLog, SampleRecord, read_samples, write_samples


def record_of(index: int = 0, **values: Any) -> SampleRecord:
    return SampleRecord(**{"index": index, "id": str(index), "row": {"a": 1}, "row_sha256": "x", **values})


def test_round_trip(tmp_path: Path) -> None:
    record = record_of(
        prediction="é\u2028\n猫",
        references=("a", "b"),
        fields={"x": [1]},
        likelihood=Likelihood(-1.5, 2, 3),
        scores={"bleu": None, "chrf": 1.25},
        error="no",
    )
    path = tmp_path / "s.jsonl"
    with SampleLog(path) as log:
        log.append(record)
    assert read_samples(path) == ([record], read_samples(tmp_path / "none")[1])


def test_every_cut_of_the_last_line_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    write_samples(path, [record_of(0), record_of(1)])
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole)):
        path.write_bytes(whole[:end])
        records, damage = read_samples(path)
        assert [record.index for record in records] == [0]
        assert damage.half_line == (end > first)


def test_damage_in_the_middle_and_repeats(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    good = [record_of(i).to_line() for i in range(3)]
    path.write_text(good[0] + "\0\0\0\n" + '{"index": 5}\n' + good[1] + good[0] + good[2])
    records, damage = read_samples(path)
    assert [record.index for record in records] == [0, 1, 2]
    assert damage.bad_lines == (2, 3)
    assert damage.repeated == 1


def test_a_full_disk_is_our_error() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with SampleLog("/dev/full") as log, pytest.raises(OutputError, match="rows before are kept"):
        log.append(record_of())
