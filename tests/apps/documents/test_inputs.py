"""Inputs: arguments, files, pipes, data rows, and every way they can be bad."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nlpkit.apps.cli.output import one_line
from nlpkit.apps.data.rows import read_rows, row_format
from nlpkit.apps.documents import files
from nlpkit.apps.documents.files import decode_text, read_bytes
from nlpkit.apps.documents.glossary import read_glossary
from nlpkit.apps.documents.inputs import read_documents
from nlpkit.apps.tasks.table import load_task
from nlpkit.apps.tasks.task import Field
from nlpkit.core.errors import ConfigError, InputError

FIELDS = (Field("source"), Field("tags", list, required=False), Field("glossary", dict, required=False))


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    def feed(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))  # type: ignore[arg-type]

    return feed


def write(path: Path, data: bytes | str) -> str:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


def test_argument() -> None:
    (document,) = read_documents("Hello\nworld")
    assert (document.text, document.name, document.values) == ("Hello\nworld", "argument", None)


def test_pipe_without_its_last_line_end(stdin: Callable[[bytes], None]) -> None:
    stdin("Grüße\n".encode())
    (document,) = read_documents(None)
    assert (document.text, document.name) == ("Grüße", "standard input")


@pytest.mark.parametrize("arguments", [("-", ()), (None, ("-",))])
def test_dash_is_the_pipe(stdin: Callable[[bytes], None], arguments: tuple[str | None, tuple[str, ...]]) -> None:
    stdin(b"piped")
    assert read_documents(*arguments)[0].text == "piped"


def test_files_in_order_with_the_pipe_between(tmp_path: Path, stdin: Callable[[bytes], None]) -> None:
    stdin(b"two")
    one, three = write(tmp_path / "1", "one"), write(tmp_path / "3", "three\n\n")
    assert [d.text for d in read_documents(None, (one, "-", three))] == ["one", "two", "three\n"]


def test_the_pipe_cannot_be_read_twice() -> None:
    with pytest.raises(ConfigError, match="more than once"):
        read_documents(None, ("-", "-"))


def test_text_and_file_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match=r"both a text as an argument .'hi'. and a file .'x.txt'"):
        read_documents("hi", ("x.txt",))


def test_a_terminal_without_input_names_the_three_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="as an argument, as a file with -f PATH, or through a pipe"):
        read_documents(None)


@pytest.mark.parametrize("text", ["", "  \n\t", "\ufeff"])
def test_empty_text_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"The text is empty .*empty.txt"):
        read_documents(None, (write(tmp_path / "empty.txt", text),))


def test_byte_order_mark_is_stripped(tmp_path: Path) -> None:
    assert read_documents(None, (write(tmp_path / "a", b"\xef\xbb\xbfhi"),))[0].text == "hi"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "cp1252", "latin-1"])
def test_named_encoding(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "a", "Grüße, naïve".encode(encoding))
    assert read_documents(None, (path,), encoding=encoding)[0].text == "Grüße, naïve"


def test_wrong_encoding_names_byte_offset_and_line(tmp_path: Path) -> None:
    path = write(tmp_path / "latin.txt", "first\nsecond caf\xe9 end".encode("latin-1"))
    with pytest.raises(InputError) as caught:
        read_documents(None, (path,))
    assert "byte 0xE9 at offset 16 (line 2)" in str(caught.value)
    assert "--encoding cp1252" in str(caught.value)


def test_no_hint_at_an_encoding_that_fails_as_well() -> None:
    with pytest.raises(InputError) as caught:
        decode_text(b"\xe9 \x81", where="x")
    assert "cp1252" not in str(caught.value)


def test_utf16_is_recognised(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--encoding utf-16"):
        read_documents(None, (write(tmp_path / "a", "hi".encode("utf-16")),))


@pytest.mark.parametrize("name", ["nonsense", "rot13", "hex", "utf8\0", ""])
def test_unknown_encodings_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="no text encoding"):
        read_documents(None, (write(tmp_path / "a", "hi"),), encoding=name)


def test_misspelt_encoding_gets_a_hint() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'latin-1'"):
        read_documents("hi", encoding="latln-1")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"abc\0def", "NUL byte at offset 3"),
        (b"%PDF-1.4 ...", "is a PDF"),
        (b"PK\x03\x04....", "zip archive"),
        (b"GGUF\x03\0\0\0", "model file"),
        (bz2.compress(bytes(200)), r"packed with bzip2, .* \(bunzip2\)"),
        (lzma.compress(b"abc"), r"packed with xz, .* \(unxz\)"),
        (b"\x28\xb5\x2f\xfd\x04\0a", "packed with zstd"),
        (b"7z\xbc\xaf\x27\x1c\0\x04", "packed with 7-Zip"),
        (b"Rar!\x1a\x07\x01\0", "packed with RAR"),
        (bytes(257) + b"ustar\0" + bytes(250), "a tar archive"),
        (gzip.compress(bytes(257) + b"ustar  \0" + bytes(250)), "a tar archive"),
    ],
)
def test_binary_files_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_documents(None, (write(tmp_path / "a.txt", data),))


def test_words_that_begin_like_a_packed_file_are_a_text(tmp_path: Path) -> None:
    (document,) = read_documents(None, (write(tmp_path / "a.txt", b"BZh is how it begins. Rar!"),))
    assert document.text == "BZh is how it begins. Rar!"


def test_undecodable_argument_is_refused() -> None:
    with pytest.raises(InputError, match="byte 0xE9 at character 3"):
        read_documents("caf\udce9")


def test_missing_file_with_a_near_name(tmp_path: Path) -> None:
    write(tmp_path / "letter.txt", "x")
    with pytest.raises(InputError, match=r"There is no file .*leter.txt'. Did you mean 'letter.txt'\?"):
        read_documents(None, (str(tmp_path / "leter.txt"),))


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no folder .*nowhere' either"):
        read_documents(None, (str(tmp_path / "nowhere" / "a.txt"),))


def test_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        read_documents(None, (str(tmp_path),))


def test_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "secret", "x")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "open", refuse, raising=False)
    with pytest.raises(InputError, match="permission denied"):
        read_documents(None, (path,))


def test_nul_in_a_path() -> None:
    with pytest.raises(InputError, match="no path"):
        read_documents(None, ("a\0b",))


def test_too_large_input_is_refused_and_never_held(tmp_path: Path) -> None:
    path = write(tmp_path / "big", b"x" * 2000)
    assert len(read_bytes(path, max_bytes=2000)) == 2000
    with pytest.raises(InputError, match="--max-input-mb"):
        read_bytes(path, max_bytes=1999)


def test_gzip_is_seen_through(tmp_path: Path) -> None:
    assert read_documents(None, (write(tmp_path / "a.gz", gzip.compress(b"hi")),))[0].text == "hi"


def test_gzip_bomb_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "bomb.gz", gzip.compress(b"\n" * 50_000_000))
    with pytest.raises(InputError, match="larger than 1 MB"):
        read_documents(None, (path,), max_bytes=2**20)


@pytest.mark.parametrize("damage", [lambda data: data[:-12], lambda data: data[:15] + b"\xff\xff" + data[17:]])
def test_damaged_gzip(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = write(tmp_path / "a.gz", damage(gzip.compress(b"some words " * 9 + bytes(range(32, 99)))))
    with pytest.raises(InputError, match="damaged or cut-off gzip"):
        read_documents(None, (path,))


def test_crlf_is_remembered(tmp_path: Path) -> None:
    (document,) = read_documents(None, (write(tmp_path / "a", b"one\r\ntwo\r\n"),))
    assert (document.text, document.newline) == ("one\ntwo", "\r\n")


def test_mixed_line_ends_stay(tmp_path: Path) -> None:
    (document,) = read_documents(None, (write(tmp_path / "a", b"one\r\ntwo\nthree"),))
    assert (document.text, document.newline) == ("one\r\ntwo\nthree", "\n")


def test_lines_keep_their_number_and_blanks(tmp_path: Path) -> None:
    path = write(tmp_path / "a", "one\n\n  \nfour\u2028still four\x0c\n")
    documents = read_documents(None, (path,), input_format="lines")
    assert [d.text for d in documents] == ["one", "", "  ", "four\u2028still four\x0c"]
    assert [d.blank for d in documents] == [False, True, True, False]
    assert documents[3].name == f"{path}:4"


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0\ufeff"), min_size=1))
def test_lines_out_equal_lines_in(tmp_path: Path, text: str) -> None:
    if not text.strip():
        return
    path = write(tmp_path / "a", text)
    documents = read_documents(None, (path,), input_format="lines")
    written = "".join(one_line(document.text) + "\n" for document in documents)
    assert written.count("\n") == text.count("\n") + (not text.endswith("\n"))


# --- data rows


def rows_of(path: str, **options: object) -> list[dict[str, object]]:
    return [row.values for row in read_rows(path, **options)]  # type: ignore[arg-type]


def test_row_formats_by_name() -> None:
    names = ["a.jsonl", "A.JSONL.GZ", "a.ndjson", "a.csv", "a.tsv.gz", "a.txt", "a.json", "jsonl"]
    assert [row_format(name) for name in names] == ["jsonl", "jsonl", "jsonl", "csv", "tsv", None, None, None]


def test_the_three_formats_agree(tmp_path: Path) -> None:
    jsonl = write(tmp_path / "a.jsonl", '\ufeff{"source": "a \\"b\\", c", "tags": ["x"]}\n\n{"source": "d"}')
    table = write(tmp_path / "a.csv", '\ufeffsource,tags\r\n"a ""b"", c","[""x""]"\r\nd,\r\n')
    tabs = write(tmp_path / "a.tsv", 'source\ttags\na "b", c\t["x"]\nd\t\n')
    expected = [{"source": 'a "b", c', "tags": ["x"]}, {"source": "d"}]
    assert rows_of(jsonl) == rows_of(table, fields=FIELDS) == rows_of(tabs, fields=FIELDS) == expected


def test_gzipped_rows_from_the_pipe(stdin: Callable[[bytes], None]) -> None:
    stdin(gzip.compress(b'{"source": "a"}\n'))
    assert rows_of("-") == [{"source": "a"}]


def test_csv_cells_with_line_breaks_keep_the_line_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'source,id\n"two\nlines",1\nlast,2\n')
    assert [(row.values["source"], row.line) for row in read_rows(path)] == [("two\nlines", 2), ("last", 4)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"source": ', "not a JSON object: Expecting value at character"),
        ("[1]", "a JSON list, not an object. .*jq"),
        ('"text"', "a JSON str, not an object"),
        ('{"a": 1, "a": 2}', "the key 'a' occurs twice"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": "\\ud800"}', r"lone surrogate U\+D800"),
        ("[" * 100_000, "not a usable JSON object"),
        ('{"a": ' + "9" * 5000 + "}", "not a usable JSON object"),
    ],
)
def test_bad_rows_are_named_by_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "data.jsonl", '{"source": "fine"}\n' + line + "\n")
    with pytest.raises(InputError, match=f"data.jsonl:2: .*{message}"):
        rows_of(path)


def test_wrongly_encoded_row(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", b'{"source": "fine"}\n{"source": "\xe9"}\n')
    with pytest.raises(InputError, match=r"data.jsonl:2 is not valid UTF-8: byte 0xE9 at offset 12 "):
        rows_of(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,a\n1,2\n", ":1: .*repeated column name"),
        ("a,\n1,2\n", ":1: .*empty or repeated"),
        ("a,b\n1\n", ":2: 1 cells, but the header names 2 columns: a, b"),
        ('a,b\n1,"open\n', ":2: not well-formed CSV"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"t.csv{message}"):
        rows_of(write(tmp_path / "t.csv", text))


def test_list_cell_must_be_json(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "source,tags\na,plain\n")
    with pytest.raises(InputError, match=r"t.csv:2: 'tags' is 'plain'; in a table it must be a JSON list"):
        rows_of(path, fields=FIELDS)


def test_unique_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"id": "x"}\n{}\n{}\n{"id": "x"}\n')
    assert len(rows_of(path)) == 4
    with pytest.raises(InputError, match=r"a.jsonl:4: 'id' is 'x', as on line 1"):
        rows_of(path, unique="id")


def test_bounds_on_lines_and_on_the_whole(tmp_path: Path) -> None:
    line = json.dumps({"source": "x" * 100}) + "\n"
    path = write(tmp_path / "a.jsonl", line * 3)
    with pytest.raises(InputError, match=r"a.jsonl:1: the line is longer"):
        rows_of(path, max_row_bytes=50)
    with pytest.raises(InputError, match="holds more than"):
        rows_of(path, max_total_bytes=2 * len(line))


def test_rows_are_read_one_at_a_time(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"source": "a"}\nnot json\n')
    assert next(iter(read_rows(path))).values == {"source": "a"}


def test_rows_become_documents(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"source": "a"}\n{"source": "b"}\n')
    documents = read_documents(None, (path,), fields=FIELDS)
    assert [(d.name, d.values) for d in documents] == [
        (f"{path}:1", {"source": "a"}),
        (f"{path}:2", {"source": "b"}),
    ]
    assert read_documents(None, (path,), input_format="lines")[0].text == '{"source": "a"}'


def test_row_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no data rows"):
        read_documents(None, (write(tmp_path / "a.jsonl", "\n"),), fields=FIELDS)
    with pytest.raises(InputError, match="does not take"):
        read_documents(None, (write(tmp_path / "b.jsonl", "{}"),))
    with pytest.raises(InputError, match=r"c.jsonl:1 is not valid UTF-8: .*--encoding cp1252"):
        read_documents(None, (write(tmp_path / "c.jsonl", b'{"source": "caf\xe9"}'),), fields=FIELDS)
    with pytest.raises(InputError, match=r"`iconv -f cp1252 -t utf-8`"):
        list(read_rows(str(tmp_path / "c.jsonl")))


# --- glossaries


def test_glossary(tmp_path: Path) -> None:
    path = write(tmp_path / "g.tsv", "# terms\ncat\tKatze\n\nwell known\tbekannt\ncat\tKatze\n")
    assert read_glossary(path) == {"cat": "Katze", "well known": "bekannt"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat Katze\n", "g.tsv:1: 'cat Katze' is not a term"),
        ("cat\tKatze\tx\n", "g.tsv:1: "),
        ("cat\tKatze\ncat\tKater\n", "g.tsv:2: 'cat' is translated as 'Kater' here, but as 'Katze'"),
        ("# nothing\n", "holds no terms"),
    ],
)
def test_bad_glossaries(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_glossary(write(tmp_path / "g.tsv", text))


def test_a_pipe_with_a_name_is_read_from_its_beginning(tmp_path: Path) -> None:
    """What its format is told by must not be missing afterwards, as in ``-f <(command)``."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    text = "One line of the text.\n" * 200
    writer = threading.Thread(target=lambda: path.write_text(text))
    writer.start()
    (document,) = read_documents(None, [str(path)], formats=True)
    writer.join()
    assert document.text == text.rstrip("\n")


def test_rows_in_json_are_known_by_the_names_of_the_task(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    fields = load_task("summarization").fields
    for rows, columns, found in (
        ([{"article": "The cat."}, {"article": "A dog."}], {}, 2),
        ([{"body": "The cat."}, {"body": "A dog."}], {"document": "body"}, 2),
        ([{"document": "The cat."}, {"other": "A dog."}], {}, 2),
        ([{"label": "The cat."}, {"label": "A dog."}], {}, 1),
    ):
        path.write_text(json.dumps(rows))
        read = read_documents(None, [str(path)], fields=fields, text_field="document", formats=True, columns=columns,
                              keep_going=True)  # fmt: skip
        assert len(read) == found, rows
    path.write_bytes(json.dumps([{"document": "Café"}], ensure_ascii=False).encode("latin-1"))
    (one,) = read_documents(None, [str(path)], fields=fields, text_field="document", formats=True, encoding="latin-1")
    assert one.values is not None
