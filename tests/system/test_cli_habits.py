"""What people type out of habit: options twice or empty, files and pipes beside a text, words of other programs."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import leaves, whole

from nlpkit.apps.documents.files import looks_like_path, stdin_waits

Cli = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]
FAKE = f"'{sys.executable}' '{ROOT / 'tests' / 'support' / 'fakes.py'}'"
PYTHON_WORDS = re.compile(r"\b(?:None|NoneType|tuple|list|dict|str|Traceback|[a-z]+_[a-z_]+)\b")

pytestmark = pytest.mark.usefixtures("fake_model")


def refused(result: Any, *expected: str) -> None:
    assert result.code == 2, result.err
    assert result.out == ""
    assert result.err.startswith("nlpkit: error: ")
    for text in expected:
        assert text in result.err


def valued_options() -> list[tuple[tuple[str, ...], Any]]:
    from nlpkit.cli import build_command

    return [
        (path, parameter)
        for path, command in leaves(build_command(plain=True))
        for parameter in command.params
        if parameter.param_type_name == "option" and not parameter.is_flag
    ]


def test_an_empty_value_is_told_with_the_option_as_it_was_written(cli: Cli) -> None:
    options = valued_options()
    assert len(options) > 200
    for path, option in options:
        for flag in option.opts:
            result = cli(*path, flag, "", stdin=b"")
            refused(result, flag, f"See `nlpkit {' '.join(path)} --help`")
            assert not PYTHON_WORDS.search(result.err.partition(" See `")[0]), result.err


def test_an_option_that_takes_one_value_is_not_given_twice(cli: Cli) -> None:
    for path, option in valued_options():
        if not option.multiple:
            flag = option.opts[0]
            refused(cli(*path, flag, "1", f"{flag}=2" if flag.startswith("--") else flag, "3"), f"{flag} is given")


def test_twice_in_two_spellings_and_in_clusters(cli: Cli) -> None:
    refused(cli("translate", "Hi", "--to", "de", "--to=fr"), "--to is given twice ('de', 'fr'), but takes one value")
    refused(cli("translate", "Hi", "--to", "de", "-tfr"), "given twice ('de', 'fr')")
    refused(cli("generate", "hi", "-o", "a", "-qo", "b"), "-o is given twice")
    assert cli("generate", "hi", "--stop", "x", "--stop", "y", "-q", "-q").code == 0
    assert cli("translate", "Hi", "--to", "de", "--to", "fr", "--help").code == 0


def test_several_contexts_are_read_like_several_files(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Anna lives in Rome.")
    (tmp_path / "b.txt").write_text("Ben lives in Oslo.")
    names = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    result = cli("qa", "Where?", "-c", names[0], "--context", names[1], "--json")
    assert [json.loads(line)["input"] for line in result.out.splitlines()] == names


def test_something_on_stdin_beside_a_text_or_a_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    path = str(tmp_path / "a.txt")
    refused(cli("generate", "hi", stdin=b"more"), "a prompt as an argument ('hi') and something on standard input")
    refused(cli("generate", "-f", path, stdin=b"more"), f"a file ('{path}') and something on standard input")
    assert cli("generate", "hi", stdin=b"").out == "HI\n"
    assert cli("generate", "-f", path, "-f", "-", stdin=b"two").out == "ONE\n\nTWO\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("echo more | (sleep 0.3; nlpkit generate hi)", ""),
        ("nlpkit generate hi < more.txt", ""),
        ("nlpkit generate hi < /dev/null", "HI\n"),
        ("nlpkit generate hi < empty.txt", "HI\n"),
        (": | nlpkit generate hi", "HI\n"),
        ("nlpkit generate hi <&-", "HI\n"),
        ("while read line; do nlpkit generate \"$line\"; done < lines.txt", "A\nB\n"),
    ],
)  # fmt: skip
def test_what_counts_as_something_on_stdin(
    offline_env: dict[str, str], tmp_path: Path, line: str, expected: str
) -> None:
    (tmp_path / "more.txt").write_text("more\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "lines.txt").write_text("a\nb\n")
    script = f'nlpkit() {{ {FAKE} "$@"; }}; {line}'
    done = subprocess.run(
        ["bash", "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=offline_env,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert done.stdout == expected, done.stderr
    if not expected:
        assert "something on standard input" in done.stderr


def test_an_idle_pipe_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    out, into = os.pipe()
    with os.fdopen(out) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert not stdin_waits()
        os.write(into, b"x")
        assert stdin_waits()
        os.close(into)
        assert stdin.read() == "x"
        assert not stdin_waits()


def test_extra_arguments_are_files_or_a_text_without_quotes(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "letter"
    path.write_text("hello")
    refused(cli("translate", "Hi", "there", "--to", "de"), "'there'", "in quotes")
    refused(cli("qa", "Who?", str(path)), f"--context {path}")
    refused(cli("qa", "Who?", "notes/a.txt"), "--context notes/a.txt")
    refused(cli("summarize", "text", str(path)), f"--file {path}")
    refused(cli("qa", "-c", str(path), "What", "is", "it?"), "'is' 'it?'", "in quotes")


def test_an_option_without_its_value_names_the_commands_help(cli: Cli) -> None:
    refused(cli("translate", "Hi", "-t"), "-t", "nlpkit translate --help")


@pytest.mark.parametrize(
    "text", ["docs.txt", "./letter", "/tmp/x", "~/notes", "docs/a.md", "C.json", "a.tar.gz", "ä.TXT"]
)
def test_what_looks_like_a_path(text: str) -> None:
    assert looks_like_path(text)


@pytest.mark.parametrize(
    "text",
    ["and/or", "Hello.", "e.g.", "3.14", "see docs.txt", "https://x.org/a.txt", "km/h", "", " ", "v1.2", ".", "24/7"],
)
def test_what_does_not_look_like_a_path(text: str) -> None:
    assert not looks_like_path(text)


def test_help_and_version_as_words(cli: Cli) -> None:
    for words in (("help",), ("help", "translate"), ("help", "models", "list")):
        result = cli(*words)
        assert (result.code, result.err) == (0, "")
        assert result.out == cli(*words[1:], "--help").out
    refused(cli("help", "translat"), "Did you mean 'translate'")
    assert {cli(word).out for word in ("version", "-v", "-V", "--version")} == {cli("--version").out}


@pytest.mark.parametrize(
    ("line", "flag"),
    [
        ("translate Hi --lang de", "--to"),
        ("translate Hi --target=de", "--to"),
        ("translate Hi --source en --to de", "--from"),
        ("summarize Hi --max-length 9", "--max-words"),
        ("generate Hi --max-length 9", "--max-tokens"),
        ("generate Hi --max-new-tokens 9", "--max-tokens"),
        ("generate -i x.txt", "--file"),
        ("qa Who? -i x.txt", "--context"),
        ("generate Hi --num-beams 4", "--beam-size"),
        ("generate Hi -v", "--stats"),
    ],
)
def test_options_of_other_programs(cli: Cli, line: str, flag: str) -> None:
    refused(cli(*line.split()), f"Did you mean {flag}? See")


def test_hints_name_options_that_exist() -> None:
    from nlpkit.apps.cli.usage.foreign import FOREIGN_COMMANDS, FOREIGN_OPTIONS
    from nlpkit.cli import build_command

    known = {
        name
        for _, command in leaves(build_command(plain=True))
        for parameter in command.params
        for name in parameter.opts
    }
    assert {name for names in FOREIGN_OPTIONS.values() for name in names} <= known
    paths = {" ".join(path) for path, _ in leaves(build_command(plain=True))}
    commands = paths | {path.partition(" ")[0] for path in paths}
    assert set(FOREIGN_COMMANDS.values()) <= commands
    assert not set(FOREIGN_COMMANDS) & {path.partition(" ")[0] for path in paths}


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("translate Hi -to de", "No such option: -to. Did you mean --to?"),
        ("generate Hi -max-tokens=4", "No such option: -max-tokens. Did you mean --max-tokens?"),
        ("generate Hi --max_tokens 4", "No such option: --max_tokens. Did you mean --max-tokens?"),
        ("generate Hi --Max-Tokens 4", "Did you mean --max-tokens?"),
        ("qa --question Who?", 'The question stands by itself, in quotes: nlpkit qa "..."'),
        ("translate --text Hi --to de", 'The text stands by itself, in quotes: nlpkit translate "..."'),
        ("generate -p Hi", 'The prompt stands by itself, in quotes: nlpkit generate "..."'),
        ("generate -5", 'stands behind two: nlpkit generate -- "-..."'),
        ("generate -–5", 'stands behind two: nlpkit generate -- "-..."'),
        ("models download", "Did you mean 'nlpkit models pull'?"),
        ("models rm", "Did you mean 'nlpkit models clean'?"),
        ("models ask", "No such command 'ask'. See"),
        ("convert x", "Did you mean 'nlpkit models convert'?"),
        ("Ask Who?", "Did you mean 'nlpkit qa'?"),
        ("generate Hi --top-k x", "a whole number is needed (got 'x')"),
        ("generate Hi --temperature abc", "a number is needed (got 'abc')"),
        ("generate Hi --device gpu", "'gpu' is not one of 'auto', 'cpu', 'cuda', 'mps'"),
    ],
)
def test_what_was_meant_and_what_to_type_next(cli: Cli, line: str, meant: str) -> None:
    result = cli(*line.split(), stdin=b"")
    refused(result, meant)
    assert not re.search("Value error|Input should|parse", result.err)


def test_a_value_may_look_like_an_option(cli: Cli) -> None:
    assert cli("generate", "Hi", "--stop", "-seed").code == 0


def test_behind_two_dashes_a_text_may_begin_with_one(cli: Cli) -> None:
    assert cli("generate", "--", "-5").code == 0


def test_the_list_of_commands_says_what_each_of_them_says(cli: Cli) -> None:
    from nlpkit.cli import build_command

    listed = build_command(plain=True).commands
    assert {name: late.help for name, late in listed.items()} == {
        name: whole(late).get_short_help_str(100) for name, late in listed.items()
    }
    text = cli("--help").out
    assert all(late.help in text for late in listed.values()), "a summary is cut off"


@pytest.mark.parametrize(
    "words", [("--help",), ("translate", "--help"), ("eval", "run", "--help"), ("models", "--help")]
)
def test_help_without_colours_is_plain(offline_env: dict[str, str], words: tuple[str, ...]) -> None:
    shown = on_a_terminal(words, {**offline_env, "NO_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "100"})
    assert "Usage: nlpkit" in shown
    assert "\x1b" not in shown
    assert "─" not in shown


@pytest.mark.parametrize("columns", [40, 60, 79])
def test_narrow_help_cuts_no_name(cli: Cli, columns: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from nlpkit.cli import build_command

    monkeypatch.setattr("shutil.get_terminal_size", lambda *_: os.terminal_size((columns, 24)))
    for path, command in leaves(build_command(plain=True)):
        text = cli(*path, "--help").out
        assert "…" not in text
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.hidden:
                assert all(name in text for name in parameter.opts), (path, parameter.opts)


def on_a_terminal(words: tuple[str, ...], env: dict[str, str]) -> str:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "support" / "fakes.py"), *words],
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
        env=env,
    )
    os.close(follower)
    shown = b""
    try:
        while piece := os.read(leader, 65536):
            shown += piece
    except OSError:
        # The other end is closed.
        pass
    os.close(leader)
    assert process.wait(timeout=30) == 0
    return shown.decode()
