"""`nlpkit translate` on documents: what comes out, where, and what is said; the other tasks read them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("fake_model")

PAGE = "# The boat\n\nWe row the *old* boat.\n\n```sh\nrow fast\n```\n"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    return path


def test_a_document_comes_out_in_its_format(cli: Cli, page: Path) -> None:
    result = cli("translate", "-f", str(page), "--to", "de", "--from", "en", "-q")
    assert (result.code, result.out) == (
        0,
        PAGE.replace("The boat", "THE BOAT").replace("We row the *old* boat", "WE ROW THE *OLD* BOAT"),
    )


def test_plain_text_is_translated_as_ever(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one boat\n")
    assert cli("translate", "-f", str(path), "--to", "de", "--from", "en", "-q").out == "ONE BOAT\n"


def test_text_overrides_what_a_name_says(cli: Cli, page: Path) -> None:
    result = cli("translate", "-f", str(page), "--to", "de", "--from", "en", "-q", "--input-format", "text")
    assert "ROW FAST" in result.out


def test_a_folder_keeps_its_tree_and_goes_on(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / "deep").mkdir(parents=True)
    (source / "a.md").write_text(PAGE)
    (source / "deep" / "b.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nHello there\n")
    (source / "c.po.gz").write_bytes(gzip.compress(b'msgid "Hello there"\nmsgstr ""\n'))
    (source / "pic.png").write_bytes(b"\x89PNG")
    out = tmp_path / "out"
    arguments = ("translate", "-f", str(source), "--to", "de", "--from", "en", "-o", str(out), "--suffix", ".de")
    result = cli(*arguments)
    assert result.code == 0
    assert "left out, as they are in no format that is known: 1 .png" in result.err
    assert (out / "deep" / "b.de.srt").read_text().endswith("HELLO THERE\n")
    assert (out / "c.de.po").read_text().endswith('msgstr "HELLO THERE"\n')
    before = (out / "a.de.md").read_text()
    journal = out / ".nlpkit-translations.jsonl"
    lines = journal.read_text().splitlines()
    (source / "a.md").write_text(PAGE + "\nA new line.\n")
    assert cli(*arguments).code == 0
    assert journal.read_text().splitlines()[: len(lines)] == lines
    assert len(journal.read_text().splitlines()) == len(lines) + 1
    assert (out / "a.de.md").read_text() == before + "\nA NEW LINE.\n"


def test_a_fresh_run_is_what_the_next_one_goes_on_from(cli: Cli, tmp_path: Path, fake_model: Any) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.md").write_text(PAGE)
    arguments = ("translate", "-f", str(tmp_path / "in"), "--to", "de", "--from", "en", "-o", str(tmp_path / "out"))
    written = tmp_path / "out" / "a.md"
    assert cli(*arguments).code == 0
    before = written.read_text()
    fake_model.reply = str.title
    cli(*arguments)
    assert written.read_text() == before
    cli(*arguments, "--fresh")
    after = written.read_text()
    assert after != before
    fake_model.reply = str.upper
    cli(*arguments)
    assert written.read_text() == after


def test_no_source_and_no_result_is_written_over(cli: Cli, page: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "page.md"
    other.parent.mkdir()
    other.write_text("Other words.\n")
    arguments = ("translate", "--to", "de", "--from", "en", "-f", str(page))
    assert "would both be written" in cli(*arguments, "-f", str(other), "-o", str(tmp_path / "out")).err
    assert "would be replaced by its translation" in cli(*arguments, "-o", str(page)).err
    assert page.read_text() == PAGE
    for _ in range(2):
        assert cli("translate", "--to", "de", "--from", "en", "-f", str(other.parent), "--suffix", ".de").code == 0
    assert sorted(path.name for path in other.parent.iterdir() if path.suffix == ".md") == ["page.de.md", "page.md"]


def test_one_file_leaves_no_journal(cli: Cli, page: Path, tmp_path: Path) -> None:
    assert cli("translate", "-f", str(page), "--to", "de", "--from", "en", "-o", str(tmp_path / "x.md")).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.md", "x.md"]


def test_json_says_what_was_done(cli: Cli, page: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "x.md")
    record = json.loads(cli("translate", "-f", str(page), "--to", "de", "--from", "en", "-o", out, "--json").out)
    assert (record["input"], record["output"], record["format"]) == (str(page), out, "markdown")
    assert (record["segments"], record["sentences"], record["kept"]) == (2, 2, 0)
    assert cli("translate", "-f", str(page), "--to", "de", "--json").code == 2


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.json", b'{"a": }', "cannot be read as JSON"),
        ("a.svg", b"<svg>", "no well-formed XML"),
        ("package.json", b'{"name": "x"}', "must not be translated"),
    ],
)
def test_what_is_broken_is_refused(cli: Cli, tmp_path: Path, name: str, data: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    out = tmp_path / "out"
    result = cli("translate", "-f", str(path), "--to", "de", "-o", str(out))
    assert (result.code, result.out) == (2, "")
    assert said in result.err
    assert not out.exists()


def test_lost_placeholders_keep_their_sentence_and_exit_with_3(cli: Cli, tmp_path: Path, fake_model: Any) -> None:
    fake_model.reply = lambda line: "" if "Use" in line else line.upper()
    path = tmp_path / "a.json"
    path.write_text('{"a": "Use %s", "b": "Hello there"}')
    result = cli("translate", "-f", str(path), "--to", "de", "--from", "en")
    assert result.code == 3
    assert json.loads(result.out) == {"a": "Use %s", "b": "HELLO THERE"}
    assert f"{path}:1: stayed as it was" in result.err


def test_contradictions(cli: Cli, page: Path, tmp_path: Path) -> None:
    assert "--n-best" in cli("translate", "-f", str(page), "--to", "de", "--n-best", "2").err
    assert "--suffix is for documents" in cli("translate", "hi", "--to", "de", "--suffix", ".de").err
    assert "missing" in cli("translate", "-f", str(page)).err
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"source": "hi", "target_lang": "de"}\n')
    assert "holds data rows" in cli("translate", "-f", str(page), "-f", str(rows), "--to", "de").err


def test_rows_in_json_stay_rows(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[{"source": "hi there", "target_lang": "de", "source_lang": "en"}]')
    assert cli("translate", "-f", str(path), "-q").out == "HI THERE\n"


def test_other_tasks_read_what_people_see(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("<html><script>let a = 1;</script><p>The <b>boat</b> is old.</p></html>")
    result = cli("summarize", "-f", str(path), "-q", "--mode", "abstractive")
    assert (result.code, result.out) == (0, "THE BOAT IS OLD.\n")
    assert cli("summarize", "-f", str(path), "-q").out == "The boat is old.\n"


def test_sentences_of_a_summary_have_their_lines_in_the_file(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    text = "<html>\n<p>The boat is <b>old</b>.</p>\n<p>A new boat would cost too much.</p>\n</html>\n"
    path.write_text(text)
    result = cli("summarize", "-f", str(path), "-q", "--mode", "extractive", "--sentences", "2", "--json")
    found = json.loads(result.out)["sentences"]
    assert [(one["text"], one["line"]) for one in found] == [
        ("The boat is old.", 2),
        ("A new boat would cost too much.", 3),
    ]
    assert text[found[1]["start"] : found[1]["end"]] == found[1]["text"]


def test_columns_of_a_table_are_translated_in_place(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "texts.csv"
    path.write_bytes(b'key;text;n\r\na;"One; boat";1\r\nb;Two boats;2\r\n')
    result = cli("translate", "-f", str(path), "--to", "de", "--from", "en", "--column", "text", "-q")
    assert (result.code, result.out) == (0, 'key;text;n\r\na;"ONE; BOAT";1\r\nb;TWO BOATS;2\r\n')
    wrong = cli("translate", "-f", str(path), "--to", "de", "--column", "txt")
    assert (wrong.code, "no column 'txt'" in wrong.err) == (2, True)


@pytest.mark.parametrize(("name", "data"), [("a.py", "x = 1\n"), ("a", "<?xml version='1.0'?><x/>")])
def test_programs_and_unknown_markup_are_refused(cli: Cli, tmp_path: Path, name: str, data: str) -> None:
    path = tmp_path / name
    path.write_text(data)
    result = cli("translate", "-f", str(path), "--to", "de")
    assert (result.code, "--input-format text" in result.err) == (2, True)
    assert cli("translate", "-f", str(path), "--to", "de", "--input-format", "text").code == 0


def test_a_document_may_come_through_a_pipe(cli: Cli) -> None:
    subtitles = "1\n00:00:01,000 --> 00:00:02,000\nHello there\n"
    arguments = ("translate", "--to", "de", "--from", "en", "-q")
    assert cli(*arguments, stdin=subtitles.encode()).out == subtitles.replace("Hello there", "HELLO THERE")
    assert cli(*arguments, "--input-format", "markdown", stdin=b"# *Hello* there\n").out == "# *HELLO* THERE\n"
    assert cli(*arguments, stdin=b"Hello there\n").out == "HELLO THERE\n"


@pytest.mark.parametrize("option", [("--set", "source_lang=en"), ("--map", "source=text")])
def test_options_of_rows_are_refused(cli: Cli, page: Path, option: tuple[str, str]) -> None:
    result = cli("translate", "-f", str(page), "--to", "de", *option)
    assert result.code == 2
    assert f"{option[0]} is for data rows" in result.err
