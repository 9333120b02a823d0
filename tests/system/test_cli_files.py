"""Files in and out: bad ones among others, tables and their formats, marks and line ends, places in a file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("fake_model")


def write(path: Path, data: bytes | str) -> str:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# Bad inputs among others.

BAD_FILES = {
    "empty.txt": b"",
    "latin.txt": b"caf\xe9",
    "binary.txt": b"a\0b",
    "paper.pdf": b"%PDF-1.7",
    "cut.gz": b"\x1f\x8b\x08\x00broken",
    "rows.jsonl": b"not json\n",
    "empty.jsonl": b"\n",
    "rows.csv": b"prompt,prompt\na,b\n",
}


@pytest.mark.parametrize("name", [*BAD_FILES, "missing.txt", "folder"])
def test_keep_going_past_a_file_that_cannot_be_used(cli: Cli, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name in BAD_FILES:
        path.write_bytes(BAD_FILES[name])
    first, last = write(tmp_path / "a", "one"), write(tmp_path / "b", "two")
    arguments = ("generate", "-f", first, "-f", str(path), "-f", last)
    assert cli(*arguments).code == 2
    assert cli(*arguments).out == ""
    result = cli(*arguments, "--keep-going")
    assert (result.code, result.out) == (3, "ONE\n\nTWO\n")
    assert name in result.err
    assert "1 of 3 inputs failed" in result.err
    got = records(cli(*arguments, "--keep-going", "--json").out)
    assert [record["error"] is None for record in got] == [True, False, True]
    assert name in got[1]["input"]


def test_keep_going_past_rows_that_are_not_well_formed(cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", b'{"prompt": "a"}\nnot json\n{"prompt": "caf\xe9"}\n[1]\n{"prompt": "b"}\n')
    result = cli("generate", "-f", path, "--keep-going")
    assert (result.code, result.out) == (3, "A\n\nB\n")
    for line in (2, 3, 4):
        assert f"r.jsonl:{line}: " in result.err
    path = write(tmp_path / "r.csv", b"prompt,x\na,1\nb\ncaf\xe9,2\nc,3\n")
    result = cli("generate", "-f", path, "--keep-going")
    assert (result.code, result.out) == (3, "A\n\nC\n")
    for line in (3, 4):
        assert f"r.csv:{line}: " in result.err


def test_rows_before_a_quote_that_is_not_closed_are_done(cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", 'prompt,x\na,1\n"b,2\nc,3\n')
    result = cli("generate", "-f", path, "--keep-going")
    assert (result.code, result.out) == (3, "A\n")
    assert "2 inputs failed" in result.err


def test_values_that_cannot_be_used_are_told_with_their_place(cli: Cli, tmp_path: Path) -> None:
    rows = '{"source": "Hi", "target_lang": "de", "source_lang": "en"}\n{"source": "Hi", "target_lang": "klingon"}\n'
    path = write(tmp_path / "r.jsonl", rows)
    assert "r.jsonl:2: There is no language 'klingon'" in cli("translate", "-f", path).err
    path = write(tmp_path / "w.csv", "prompt,form\na,haiku\nb,hiaku\n")
    assert "w.csv:3: There is no form 'hiaku'" in cli("write", "-f", path).err


# Tables as they come.


def test_the_encoding_of_rows(cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", "prompt,x\ncafé,1\n".encode("cp1252"))
    assert "--encoding cp1252" in cli("generate", "-f", path).err
    assert cli("generate", "-f", path, "--encoding", "cp1252").out == "CAFÉ\n"
    for encoding in ("utf-16", "utf-16-le", "utf-32", "utf-16-be", "cp037"):
        path = write(
            tmp_path / "r.jsonl",
            '{"prompt": "日本 café"}\n\n{"prompt": "b"}'.replace(
                "日本 ", "" if encoding == "cp037" else "日本 "
            ).encode(encoding),
        )
        result = cli("generate", "-f", path, "--encoding", encoding)
        assert (result.code, result.out.splitlines()[-1]) == (0, "B"), (encoding, result.err)
        assert "CAFÉ" in result.out
    assert "UTF-16" in cli("generate", "-f", path, "--encoding", "utf-16", stdin=b"").err


@pytest.mark.parametrize(
    "content",
    [
        "prompt;note\nhello, you;x\n",
        "sep=;\nprompt;note\nhello, you;x\n",
        "sep=,\r\nprompt,note\r\n\"hello, you\",x\r\n",
        "\ufeffprompt;note\r\n\"hello, you\";x\r\n",
        "prompt\tnote\nhello, you\tx\n",
        "note,a;prompt;b\n1;hello, you;3\n",
        "prompt\n\"hello, you\"\n",
    ],
)  # fmt: skip
def test_what_stands_between_columns(cli: Cli, tmp_path: Path, content: str) -> None:
    result = cli("generate", "-f", write(tmp_path / "r.csv", content))
    assert (result.code, result.out) == (0, "HELLO, YOU\n"), result.err


def test_cells_in_quotes_that_excel_wrote_as_tsv(cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path / "r.tsv", 'prompt\tx\n"say ""hi"", you"\ty\n"plain"\ty\n"a" and "b"\ty\n')
    assert cli("generate", "-f", path).out == 'SAY "HI", YOU\n\n"PLAIN"\n\n"A" AND "B"\n'


def test_empty_cells_stay_empty(cli: Cli, tmp_path: Path, fake_model: Any) -> None:
    path = write(tmp_path / "r.csv", "prompt,note\n,\na,1\n  ,2\n")
    result = cli("generate", "-f", path, "-o", str(tmp_path / "out.csv"))
    assert (result.code, result.err) == (0, "")
    assert (tmp_path / "out.csv").read_text() == "prompt,note,prediction\n,,\na,1,A\n  ,2,\n"
    assert len(fake_model.requests) == 1


def test_carriage_returns_alone(cli: Cli, tmp_path: Path) -> None:
    result = cli("generate", "-f", write(tmp_path / "r.csv", "prompt,x\ra,b\r"))
    assert result.code == 2
    assert "carriage returns" in result.err
    assert "universal" not in result.err


# JSON.


@pytest.mark.parametrize(
    "content",
    [
        '[{"prompt": "a"}, {"prompt": "b"}]',
        '\ufeff[\n{"prompt": "a"},\n{"prompt": "b"}\n]\n',
        '{"prompt": "a"}\n{"prompt": "b"}\n',
    ],
)
def test_a_list_of_objects_is_rows(cli: Cli, tmp_path: Path, content: str) -> None:
    assert cli("generate", "-f", write(tmp_path / "r.json", content)).out == "A\n\nB\n"


@pytest.mark.parametrize("content", ['{"title": "Hello"}', '["Hello"]', '"Hello"', "[]", "[1", '{\n "a": 1\n}'])
def test_other_json_is_no_text(cli: Cli, tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "r.json", content)
    result = cli("generate", "-f", path)
    assert (result.code, result.out) == (2, "")
    assert "r.json" in result.err
    assert cli("generate", "-f", path, "--input-format", "text").code == 0


def test_a_bad_object_of_a_list_is_named(cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path / "r.json", '[{"prompt": "a"}, {"prompt": 3}]')
    assert "r.json: item 2: 'prompt' must be a string" in cli("generate", "-f", path).err


# Tables out.


def test_a_table_comes_back_with_all_its_columns(cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path / "in.csv", 'id,prompt,note\n7,"a, b","x ""y"""\n8,c,"two\nlines"\n9,d,\n')
    out = tmp_path / "out.csv"
    result = cli("generate", "-f", path, "-o", str(out))
    assert (result.code, result.out, result.err) == (0, "", "")
    assert list(csv.DictReader(io.StringIO(out.read_text()))) == [
        {"id": "7", "prompt": "a, b", "note": 'x "y"', "prediction": "A, B"},
        {"id": "8", "prompt": "c", "note": "two\nlines", "prediction": "C"},
        {"id": "9", "prompt": "d", "note": "", "prediction": "D"},
    ]


def test_the_ways_of_a_table_are_kept(cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path / "in.csv", "\ufeffprompt;n\r\na, b;1,5\r\n")
    cli("generate", "-f", path, "-o", path)
    assert Path(path).read_bytes() == "\ufeffprompt;n;prediction\r\na, b;1,5;A, B\r\n".encode()
    # Once more: the column is replaced, not added again.
    cli("generate", "-f", path, "-o", path)
    assert Path(path).read_bytes() == "\ufeffprompt;n;prediction\r\na, b;1,5;A, B\r\n".encode()


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("in.csv", "out.tsv", "prompt\tn\tprediction\na b\t1\tA B\n"),
        ("in.csv", "out.jsonl", '{"prompt": "a b", "n": "1", "prediction": "A B"}\n'),
        ("in.jsonl", "out.csv", 'prompt,n,t,prediction\na b,1,"[""x""]",A B\n'),
        ("in.jsonl", "out.jsonl", '{"prompt": "a b", "n": 1, "t": ["x"], "prediction": "A B"}\n'),
        ("in.tsv", "out.tsv", 'prompt\tn\tprediction\na b\t"q ""1"""\tA B\n'),
        ("in.tsv", "out.csv", 'prompt,n,prediction\na b,"q ""1""",A B\n'),
        ("in.txt", "out.csv", "prompt,prediction\na b,A B\n"),
        ("in.txt", "OUT.TSV", "prompt\tprediction\na b\tA B\n"),
    ],
)
def test_from_any_format_to_any(cli: Cli, tmp_path: Path, source: str, target: str, expected: str) -> None:
    contents = {
        "in.csv": "prompt,n\na b,1\n",
        "in.jsonl": '{"prompt": "a b", "n": 1, "t": ["x"]}\n',
        "in.tsv": 'prompt\tn\na b\t"q ""1"""\n',
        "in.txt": "a b\n",
    }
    path = write(tmp_path / source, contents[source])
    result = cli("generate", "-f", path, "-o", str(tmp_path / target))
    assert result.code == 0, result.err
    assert (tmp_path / target).read_text() == expected


def test_rows_that_failed_keep_their_place(cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path / "in.csv", "prompt,n\na,1\nb\nc,3\n")
    assert cli("generate", "-f", path, "-o", str(tmp_path / "o.csv"), "--keep-going").code == 3
    rows = list(csv.DictReader(io.StringIO((tmp_path / "o.csv").read_text())))
    assert [(row["prompt"], row["prediction"]) for row in rows] == [("a", "A"), ("b", ""), ("c", "C")]
    assert "1 cells" in rows[1]["error"]
    assert rows[0]["error"] == ""


def test_several_results_have_a_column_each(cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path / "in.csv", "prompt\na\n")
    cli("generate", "-f", path, "-o", str(tmp_path / "o.csv"), "--n", "2", "--temperature", "1")
    assert (tmp_path / "o.csv").read_text() == "prompt,prediction,prediction_2\na,A,A 2\n"


def test_line_breaks_in_results(cli: Cli, tmp_path: Path, fake_model: Any) -> None:
    fake_model.reply = lambda text: "one\ttwo\n\nthree"
    path = write(tmp_path / "in.csv", "prompt\na\n")
    cli("generate", "-f", path, "-o", str(tmp_path / "o.csv"))
    assert list(csv.reader(io.StringIO((tmp_path / "o.csv").read_text())))[1] == ["a", "one\ttwo\n\nthree"]
    cli("generate", "-f", path, "-o", str(tmp_path / "o.tsv"))
    assert (tmp_path / "o.tsv").read_text() == "prompt\tprediction\na\tone two three\n"


def test_what_a_table_cannot_be(cli: Cli, tmp_path: Path) -> None:
    assert "--json writes JSON Lines" in cli("generate", "a", "--json", "-o", str(tmp_path / "o.csv")).err
    assert "Leave .gz out" in cli("generate", "a", "-o", str(tmp_path / "o.csv.gz")).err
    assert cli("generate", "a", "--json", "-o", str(tmp_path / "o.jsonl")).code == 0
    assert records((tmp_path / "o.jsonl").read_text())[0]["finish_reason"] == "eos"
    assert cli("generate", "-f", write(tmp_path / "i.csv", "prompt\na\n"), "-o", str(tmp_path / "o.txt")).code == 0
    assert (tmp_path / "o.txt").read_text() == "A\n"


# Marks, line ends, places.


@pytest.mark.parametrize("lines", [(), ("--lines",)])
@pytest.mark.parametrize("data", ["a\nb", "a\nb\n", "\ufeffa\nb\n", "\ufeffa\r\nb", "a\r\nb\r\n"])
def test_a_file_begins_and_ends_as_the_one_it_is_made_of(
    cli: Cli, tmp_path: Path, fake_model: Any, data: str, lines: tuple[str, ...]
) -> None:
    fake_model.reply = lambda text: "X" if lines else "X\nY"
    path = write(tmp_path / "in.txt", data)
    cli("generate", "-f", path, "-o", path, *lines)
    assert Path(path).read_bytes() == data.replace("a", "X").replace("b", "X" if lines else "Y").encode()


def test_stdout_always_ends_its_line(cli: Cli, tmp_path: Path) -> None:
    assert cli("generate", "-f", write(tmp_path / "in.txt", "\ufeffa")).out == "A\n"


@pytest.mark.parametrize(
    "data",
    [
        b"One.\r\nTwo.\r\nThe dog is black.\r\n",
        b"\xef\xbb\xbfOne.\nThe dog is black.",
        b"\xef\xbb\xbfOne.\r\nThe dog is black.\r\n",
        b"One.\r\nTwo.\nThe dog is black.",
        b"The dog is black.",
    ],
)
def test_an_answers_place_is_its_place_in_the_file(cli: Cli, tmp_path: Path, fake_model: Any, data: bytes) -> None:
    fake_model.reply = lambda text: "black"
    (record,) = records(cli("qa", "Which colour?", "-c", write(tmp_path / "t.txt", data), "--json").out)
    assert record["answer"] == "black"
    assert data.decode()[record["start"] : record["end"]] == "black"


# Less than a text.


@pytest.mark.parametrize("stdin", [None, b"", b" \n"])
def test_keywords_are_enough_to_write_about(cli: Cli, fake_model: Any, stdin: bytes | None) -> None:
    result = cli("write", "--form", "haiku", "--keyword", "sea", "--json", stdin=stdin)
    assert result.code == 0, result.err
    assert "sea" in fake_model.decode(fake_model.requests[0].prompt_ids)
    assert cli("write", "--form", "haiku", stdin=stdin).code == 2


def test_a_prompt_in_a_pipe_is_read_beside_keywords(cli: Cli, fake_model: Any) -> None:
    assert cli("write", "--keyword", "sea", stdin=b"a boat\n").code == 0
    asked = fake_model.decode(fake_model.requests[0].prompt_ids)
    assert "a boat" in asked
    assert "sea" in asked


@pytest.mark.parametrize(
    "command",
    [("generate", "hi"), ("summarize", "A text. It is long."), ("translate", "Hi", "--to", "de", "--from", "en")],
)
def test_no_tokens_are_no_result(cli: Cli, command: tuple[str, ...]) -> None:
    result = cli(*command, "--max-tokens", "0")
    assert (result.code, result.out) == (2, "")
    assert "--max-tokens is 0; it must be at least 1" in result.err


def test_a_missing_file_as_a_text_is_remarked_on(cli: Cli) -> None:
    result = cli("generate", "docs.txt")
    assert (result.code, result.out) == (0, "DOCS.TXT\n")
    assert "there is no such file; -f reads files" in result.err
    assert cli("generate", "and/or").err == ""
    assert cli("generate", "docs.txt", "-q").err == ""


@pytest.mark.parametrize("command", [("qa",), ("summarize",), ("translate", "--to", "de"), ("write",)])
def test_columns_that_no_task_knows_change_nothing(cli: Cli, tmp_path: Path, command: tuple[str, ...]) -> None:
    row = {"question": "What is black?", "context": "The dog is black.", "document": "The dog is black. It barks.",
           "source": "The dog is black.", "prompt": "A dog."}  # fmt: skip
    names = ("_offset", "_round", "_same", "_confidence", "_lead", "_trail", "_document_words", "_short", "offset")
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({**row, **dict.fromkeys(names, 97)}) + "\n")
    plain, more = (cli(*command, "-f", str(tmp_path / name), "--json") for name in ("a.jsonl", "b.jsonl"))
    assert (plain.code, more.code) == (0, 0), more.err
    results = [json.loads(one.out) for one in (plain, more)]
    for key in ("prediction", "answer", "start", "end", "warnings", "error"):
        assert results[0].get(key) == results[1].get(key)
