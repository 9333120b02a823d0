"""Bad input: one clear paragraph on stderr, exit code 2, nothing on stdout, no traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("fake_model")


def refused(result: Any, *expected: str) -> None:
    assert result.code == 2, result.err
    assert result.out == ""
    assert result.err.startswith("nlpkit: error: ")
    assert result.err.count("\n") == 1
    assert "Traceback" not in result.err
    for text in expected:
        assert text in result.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("translat",), "Did you mean 'translate'"),
        (("models", "lst"), "No such command 'lst'"),
        (("generate", "hi", "--tmperature", "1"), "--temperature"),
        (("generate", "hi", "--top-k", "x"), "(got 'x')"),
        (("generate", "hi", "--top-k=1.5"), "(got '1.5')"),
        (("generate", "hi", "--dtype", "fp64"), "'fp64' is not one of 'auto', 'fp32', 'bf16', 'int8', 'int4'"),
        (("generate", "hi", "--threads", "0"), "(got '0')"),
        (("generate", "hi", "there"), "there"),
        (("generate", "hi", "--temperature", "-1"), "--temperature is -1; it must be from 0 to 100"),
        (("generate", "hi", "--temperature", "nan"), "--temperature is nan"),
        (("generate", "hi", "--seed", "-3"), "--seed is -3"),
        (("generate", "hi", "--logit-bias", "x"), "--logit-bias is 'x'"),
        (
            ("generate", "hi", "--max-tokens", "1", "--min-tokens", "2"),
            "--min-tokens (2) is larger than --max-tokens (1)",
        ),
        (("generate", "hi", "--beam-size", "2", "--temperature", "1"), "leave one of the two out"),
        (("generate", "hi", "--top-p", "2"), "--top-p is 2; it must be from 0 to 1"),
        (("generate", "hi", "--n", "3", "--beam-size", "2"), "--n (3) is larger than --beam-size (2)"),
        (("translate", "hi", "--to", "de", "--n-best", "200"), "--n-best is 200"),
        (("eval", "run", "generation", "-d", "x", "--top-p", "2"), "--top-p is 2"),
        (("generate", "hi", "--adapter", "nowhere"), "There is no adapter 'nowhere'"),
        (("generate", "hi", "--adapter", "./nowhere"), "There is no adapter at nowhere: it has no adapter_config.json"),
        (("generate", "hi", "--logprobs", "2"), "add --json"),
        (("generate", "hi", "-f", "x"), "Got both a prompt as an argument ('hi') and a file ('x')"),
        (("generate", "hi", "--lines", "--input-format", "csv"), "--lines contradicts --input-format csv"),
        (("generate", "hi", "--lines", "--n", "2", "--temperature", "1"), "Add --json"),
        (("generate", "hi", "--model", "no-such-model"), "There is no model named 'no-such-model'"),
        (("generate", "hi", "--model", "defualt"), "Did you mean 'default'?"),
        (("generate", "hi", "--model", "./nowhere.gguf"), "nowhere.gguf"),
        (("generate", "hi", "--encoding", "nonsense"), "no text encoding 'nonsense'"),
        (("generate", "hi", "--max-input-mb", "inf"), "max-input-mb"),
        (("generate", ""), "The prompt is empty (argument)"),
        (("generate",), "as an argument, as a file with -f PATH, or through a pipe"),
        (("translate", "hi"), "--to de"),
        (("translate", "hi", "--to", "germn"), "Did you mean 'German'"),
        (("translate", "hi", "--to", "en", "--from", "en"), "give two different ones"),
        (("translate", "hi", "--to", "de", "--glossary", "nowhere.tsv"), "There is no file 'nowhere.tsv'"),
        (("summarize", "hi", "--length", "short", "--max-words", "9"), "both set the length"),
        (("qa",), "The question is missing"),
        (("qa", "", "--context", "x.txt"), "The question is empty"),
        (("qa", " ", "--context", "x.txt"), "The question is empty"),
        (("qa", "Who?"), "There is no context to work on. Give it as a file with --context PATH, or through a pipe."),
        (("qa", "Who?", "--context", "nowhere.txt"), "There is no file 'nowhere.txt'"),
        (("write", "a cat", "--form", "hiaku"), "Did you mean 'haiku'?"),
        (("models", "show", "nowhere"), "There is no model named 'nowhere'"),
        (("models", "convert", "defualt", "--to", "hf", "-o", "x"), "Did you mean 'default'?"),
    ],
)
def test_bad_usage(cli: Cli, arguments: tuple[str, ...], expected: str) -> None:
    refused(cli(*arguments), expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b" \n\t\n", "is empty"),
        (b"caf\xe9", "byte 0xE9 at offset 3 (line 1)"),
        (b"a\0b", "NUL byte at offset 1"),
        ("hi".encode("utf-16"), "--encoding utf-16"),
        (b"%PDF-1.7", "is a PDF"),
        (b"\x1f\x8b\x08\x00broken", "damaged or cut-off gzip"),
    ],
)
def test_bad_content(cli: Cli, tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(content)
    refused(cli("generate", "-f", str(path)), expected)
    refused(cli("generate", stdin=content), expected)


def test_missing_file_folder_and_too_large(cli: Cli, tmp_path: Path) -> None:
    refused(cli("generate", "-f", str(tmp_path / "nowhere")), "There is no file")
    refused(cli("generate", "-f", str(tmp_path)), "is a folder")
    (tmp_path / "big").write_bytes(b"x" * 5000)
    refused(cli("generate", "-f", str(tmp_path / "big"), "--max-input-mb", "0.001"), "--max-input-mb")


def test_bad_output_is_found_before_the_model_is_loaded(cli: Cli, tmp_path: Path, fake_model: Any) -> None:
    refused(cli("generate", "hi", "-o", str(tmp_path)), "is a folder")
    refused(cli("generate", "hi", "-o", str(tmp_path / "no" / "out")), "there is no folder")
    assert fake_model.loaded_with == {}


def test_too_long_for_the_context(cli: Cli, fake_model: Any) -> None:
    fake_model.max_seq_len = 16
    refused(cli("generate", "x" * 40, "--max-tokens", "4"), "40 tokens", "12 fit", "--on-overflow")


def test_errors_wrap_on_a_terminal_only(cli: Cli) -> None:
    long = cli("generate", "hi", "--model", "no-such-model", terminal=True).err
    assert long.count("\n") > 1
    assert all(len(line) <= 100 for line in long.splitlines())


def test_error_text_cannot_steer_a_terminal(cli: Cli) -> None:
    assert "\x1b" not in cli("generate", "hi", "--model", "\x1b[2J", terminal=True).err


def test_a_bug_is_called_one(cli: Cli, fake_model: Any) -> None:
    def fail(text: str) -> str:
        raise RuntimeError("surprise")

    fake_model.reply = fail
    result = cli("generate", "hi")
    assert (result.code, result.out) == (1, "")
    assert "internal error: RuntimeError: surprise" in result.err
    assert "--debug" in result.err
    assert "Traceback" not in result.err
    assert "Traceback" in cli("generate", "hi", "--debug").err


def test_traceback_of_an_error_on_request(cli: Cli) -> None:
    result = cli("generate", "hi", "--model", "defualt", "--debug")
    assert result.code == 2
    assert "Traceback" in result.err


def test_out_of_memory(cli: Cli, fake_model: Any) -> None:
    def fail(text: str) -> str:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")

    fake_model.reply = fail
    refused(cli("generate", "hi"), "not enough memory", "--batch-tokens")


def test_interrupted(cli: Cli, fake_model: Any, tmp_path: Path) -> None:
    def stop(text: str) -> str:
        raise KeyboardInterrupt

    fake_model.reply = stop
    result = cli("generate", "hi", "-o", str(tmp_path / "out"))
    assert (result.code, result.err) == (130, "nlpkit: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_help_and_version(cli: Cli) -> None:
    assert "translate" in cli("--help").out
    assert cli("--version").out.startswith("nlpkit ")
    bare = cli()
    assert bare.code == 2
    assert "translate" in bare.out
    for command in ("translate", "summarize", "qa", "write", "generate", "doctor"):
        assert "--json" in cli(command, "--help").out
