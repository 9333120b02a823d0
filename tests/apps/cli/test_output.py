"""Outputs: whole files or none, UTF-8 anywhere, lines that stay lines, terminals that cannot be steered."""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
import sys
from pathlib import Path

import pytest

from nlpkit.apps.cli.output import Writer, one_line, printable, use_utf8
from nlpkit.apps.cli.progress import ProgressBar
from nlpkit.core.errors import OutputError


def leftovers(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if "part" in name]


def test_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    with Writer(str(target)) as writer:
        writer.write("Grüße")
        assert not target.exists()
        writer.write("zwei\nZeilen")
    assert target.read_bytes() == "Grüße\n\nzwei\nZeilen\n".encode()
    assert leftovers(tmp_path) == []


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("before")
    with contextlib.suppress(KeyboardInterrupt), Writer(str(target)) as writer:
        writer.write("half")
        raise KeyboardInterrupt
    assert target.read_text() == "before"
    assert leftovers(tmp_path) == []


def test_mode_of_the_file_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("before")
    target.chmod(0o640)
    with Writer(str(target)) as writer:
        writer.write("after")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert target.read_text() == "after\n"


def test_new_file_has_the_usual_mode(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with Writer(str(tmp_path / "new")) as writer:
            writer.write("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with Writer(str(tmp_path / "link")) as writer:
        writer.write("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new\n"


def test_devices_are_written_in_place() -> None:
    with Writer("/dev/null") as writer:
        writer.write("x")
    assert not stat.S_ISREG(os.stat("/dev/null").st_mode)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_full_disk() -> None:
    with pytest.raises(OutputError, match="/dev/full cannot be written: the disk is full"), Writer("/dev/full") as w:
        w.write("x")


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder"):
        Writer(str(tmp_path))


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no folder"):
        Writer(str(tmp_path / "no" / "out"))


def test_records_by_line(tmp_path: Path) -> None:
    with Writer(str(tmp_path / "o"), line_per_record=True) as writer:
        for text in ("one", "", "  two \n\n three\r\nfour\n", "five"):
            writer.write(text)
    assert (tmp_path / "o").read_text() == "one\n\n  two three four\nfive\n"


def test_line_ends_of_the_input(tmp_path: Path) -> None:
    with Writer(str(tmp_path / "o")) as writer:
        writer.write("one\ntwo", newline="\r\n")
    assert (tmp_path / "o").read_bytes() == b"one\r\ntwo\r\n"


def test_json_lines(tmp_path: Path) -> None:
    with Writer(str(tmp_path / "o"), as_json=True) as writer:
        writer.write({"prediction": "Grüße\n"})
        writer.write({"prediction": "\u2028"})
    text = (tmp_path / "o").read_text(encoding="utf-8")
    assert [json.loads(line)["prediction"] for line in text.split("\n")[:-1]] == ["Grüße\n", "\u2028"]
    assert "Grüße" in text


def test_stdout_is_utf8_and_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(raw), encoding="ascii", newline="\r\n"))  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    use_utf8()
    with Writer(None) as writer:
        writer.write("日本\nlanguage")
        assert raw.getvalue() == "日本\nlanguage\n".encode()


def test_closed_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OutputError, match="closed"):
        Writer(None)


def test_no_text_can_steer_a_terminal() -> None:
    assert printable("\x1b]0;owned\x07 tab\tline\n\x9b2J é 日") == "\\x1b]0;owned\\x07 tab\tline\n\\x9b2J é 日"


def test_one_line_leaves_single_lines_alone() -> None:
    assert one_line("  indented \u2028 text ") == "  indented \u2028 text "


def test_no_bar_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = io.StringIO()
    monkeypatch.setattr(sys, "stderr", sink)
    with ProgressBar("work") as bar:
        bar(1, 2)
        with bar.paused():
            pass
    assert sink.getvalue() == ""


def test_bar_on_a_terminal_gives_the_cursor_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    sink = Terminal()
    monkeypatch.setattr(sys, "stderr", sink)
    monkeypatch.setenv("TERM", "xterm")
    with contextlib.suppress(KeyboardInterrupt), ProgressBar("work") as bar:
        bar(1, 2)
        with bar.paused():
            pass
        raise KeyboardInterrupt
    shown = sink.getvalue()
    assert "work" in shown
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l")
