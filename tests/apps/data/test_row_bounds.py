"""Data rows that would take time or memory without end, or fail when the work is done."""

from __future__ import annotations

import gzip
import time
import tracemalloc
from pathlib import Path

import pytest

from nlpkit.apps.data.rows import read_rows
from nlpkit.apps.documents import inputs as documents
from nlpkit.apps.documents.inputs import read_documents
from nlpkit.apps.tasks.rows import check_row
from nlpkit.apps.tasks.table import load_task
from nlpkit.apps.tasks.task import Field
from nlpkit.core.errors import InputError

FIELDS = (Field("document"), Field("tags", list, required=False))


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "1" + "0" * 400 + ".0"])
def test_numbers_without_end_are_refused_at_the_start(tmp_path: Path, number: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(f'{{"document": "x", "meta": [{{"id": {number}}}]}}\n')
    with pytest.raises(InputError, match=r"r\.jsonl:1"):
        list(read_rows(str(path)))
    path = tmp_path / "r.csv"
    path.write_text(f'document,tags\nx,"[{number}]"\n')
    with pytest.raises(InputError, match="tags"):
        list(read_rows(str(path), fields=FIELDS))


@pytest.mark.parametrize("row", [r'{"a": "x\u0000"}', r'{"a": ["b", {"c\u0000": 1}]}', '{"a": "\x00"}'])
def test_no_string_holds_nul(tmp_path: Path, row: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "b"}\n' + row + "\n")
    with pytest.raises(InputError, match=r"rows\.jsonl:2.*NUL"):
        list(read_rows(str(path)))


def test_a_key_that_occurs_twice_among_many(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("{" + ",".join(f'"k{i}":1' for i in range(150_000)) + ',"k149999":2}\n')
    started = time.process_time()
    with pytest.raises(InputError, match="'k149999' occurs twice"):
        list(read_rows(str(path)))
    assert time.process_time() - started < 3


def test_inputs_that_are_held_in_memory_have_a_million_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert documents.MAX_DOCUMENTS == 1_000_000
    lines = tmp_path / "r.txt.gz"
    lines.write_bytes(gzip.compress(b"x" + b"\n" * 30_000_000, 1))
    tracemalloc.start()
    with pytest.raises(InputError, match="1,000,000 lines"):
        read_documents(None, [str(lines)], input_format="lines")
    assert tracemalloc.get_traced_memory()[1] < 200_000_000
    tracemalloc.stop()
    monkeypatch.setattr(documents, "MAX_DOCUMENTS", 10)
    rows = tmp_path / "r.jsonl.gz"
    rows.write_bytes(gzip.compress(b"{}\n" * 11))
    with pytest.raises(InputError, match="more than 10 rows"):
        read_documents(None, [str(rows)], fields=FIELDS)
    rows.write_bytes(gzip.compress(b'{"document": "a"}\n' * 10))
    assert len(read_documents(None, [str(rows)], fields=FIELDS)) == 10
    (tmp_path / "ten.txt").write_text("a\n" * 10)
    assert len(read_documents(None, [str(tmp_path / "ten.txt")], input_format="lines")) == 10


def test_a_quote_that_is_not_closed(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text('document\n"' + ("a" * 99 + "\n") * 30_000)
    with pytest.raises(InputError, match="quote that is not closed"):
        list(read_rows(str(path), fields=FIELDS, max_row_bytes=1_000_000))
    path.write_text('document\n"' + "a\n" * 400 + '"\n' + "b\n" * 400)
    assert len(list(read_rows(str(path), fields=FIELDS, max_row_bytes=1_000))) == 401


def test_messages_about_rows_are_short(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    for text in (",".join(["a"] * 300_000) + "\n1\n", ",".join(map(str, range(50_000))) + "\n1\n"):
        path.write_text(text)
        with pytest.raises(InputError) as caught:
            list(read_rows(str(path)))
        assert len(str(caught.value)) < 600
    path = tmp_path / "r.jsonl"
    key = "k" * 500_000
    for text in (f'{{"{key}": 1, "{key}": 2}}\n', '{"id": ' + "9" * 500_000 + "}\n", f'{{"id": "{key}"}}\n' * 2):
        path.write_text(text)
        with pytest.raises(InputError) as caught:
            list(read_rows(str(path), unique="id"))
        assert len(str(caught.value)) < 600


def test_whole_numbers_of_rows_have_few_digits() -> None:
    task = load_task("summarization")
    for words in ("9" * 5_000, 10**5_000, " " * 100 + "7", "²"):
        with pytest.raises(InputError, match="a whole number"):
            check_row(task, {"document": "a", "max_words": words}, where="r.jsonl:1")
    check_row(task, {"document": "a", "max_words": " 20 "}, where="r.jsonl:1")
