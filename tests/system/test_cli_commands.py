"""The command line in this process, on a model without weights: what goes in, what comes out, what is said."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]
JSON_KEYS = {
    "prediction", "finish_reason", "input_tokens", "output_tokens", "truncated", "chunks", "model", "seconds",
    "input", "index", "alternatives", "warnings", "error", "seed", "adapter", "completion", "degenerate",
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("fake_model")


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_argument_to_stdout(cli: Cli) -> None:
    result = cli("generate", "hello")
    assert (result.code, result.out, result.err) == (0, "HELLO\n", "")


def test_pipe_to_stdout(cli: Cli) -> None:
    assert cli("generate", stdin="grüße\n".encode()).out == "GRÜSSE\n"


def test_files_are_separated_by_a_blank_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\n")
    (tmp_path / "b").write_text("two")
    assert cli("generate", "-f", str(tmp_path / "a"), "-f", str(tmp_path / "b")).out == "ONE\n\nTWO\n"


def test_results_keep_the_order_of_inputs(cli: Cli) -> None:
    lines = [f"{'x' * (40 - i)}{i}" for i in range(40)]
    result = cli("generate", "--lines", "--json", stdin="\n".join(lines).encode())
    got = records(result.out)
    assert [record["prediction"] for record in got] == [line.upper() for line in lines]
    assert [record["index"] for record in got] == list(range(40))
    assert got[3]["input"] == "standard input:4"


def test_lines_out_equal_lines_in(cli: Cli, fake_model: Any) -> None:
    fake_model.reply = lambda text: f"{text.upper()}\n\nmore"
    result = cli("generate", "--lines", stdin=b"one\n\ntwo\n   \nthree\n")
    assert result.out.split("\n") == ["ONE more", "", "TWO more", "", "THREE more", ""]
    assert len(fake_model.requests) == 3


def test_crlf_comes_back(cli: Cli) -> None:
    assert cli("generate", "--lines", stdin=b"one\r\ntwo\r\n").out == "ONE\r\nTWO\r\n"


def test_json_has_every_key(cli: Cli) -> None:
    (record,) = records(cli("generate", "hello", "--json").out)
    assert record.keys() >= JSON_KEYS
    assert record["prediction"] == "HELLO"
    assert record["model"] == "fake"


def test_output_file(cli: Cli, tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    result = cli("generate", "hello", "-o", str(target))
    assert (result.code, result.out, target.read_text()) == (0, "", "HELLO\n")


def test_dash_is_stdout(cli: Cli) -> None:
    assert cli("generate", "hello", "-o", "-").out == "HELLO\n"


def test_a_file_name_as_a_text_is_remarked_on(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear Sir")
    result = cli("generate", str(path))
    assert result.code == 0
    assert "to read the file of that name, use -f" in result.err


def test_output_over_the_input(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("hello\n")
    assert cli("generate", "-f", str(path), "-o", str(path)).code == 0
    assert path.read_text() == "HELLO\n"


def test_no_output_file_after_an_error(cli: Cli, tmp_path: Path, fake_model: Any) -> None:
    fake_model.max_seq_len = 20
    target = tmp_path / "out.txt"
    result = cli("generate", "--lines", "-o", str(target), "--max-tokens", "5", stdin=b"one\n" + b"x" * 30)
    assert result.code == 2
    assert "too long" in result.err
    assert list(tmp_path.iterdir()) == []


def test_streaming_on_a_terminal(cli: Cli) -> None:
    assert cli("generate", "hello", terminal=True).out == "HELLO\n"


def test_a_terminal_cannot_be_steered(cli: Cli, fake_model: Any) -> None:
    fake_model.reply = lambda text: "\x1b[2Jbad"
    assert cli("generate", "hello", terminal=True).out == "\\x1b[2Jbad\n"
    assert cli("generate", "hello").out == "\x1b[2Jbad\n"


def test_stats_and_notes_go_to_stderr(cli: Cli) -> None:
    result = cli("generate", "hello", "--stats", "--max-tokens", "3")
    assert result.out == "HEL\n"
    assert "stopped at the limit of 3 tokens" in result.err
    assert "tokens read: 5; written: 3 in" in result.err
    assert "finish reasons: length 1" in result.err


def test_quiet(cli: Cli) -> None:
    assert cli("generate", "hello", "--max-tokens", "3", "--quiet").err == ""


def test_options_reach_the_model(cli: Cli, fake_model: Any) -> None:
    arguments = (
        "generate hi --temperature 0.5 --top-p 0.9 --top-k 7 --min-p 0.1 --typical-p 0.8 --frequency-penalty 0.1 "
        "--presence-penalty 0.2 --repetition-penalty 1.1 --no-repeat-ngram 3 --seed 9 --max-tokens 50 --min-tokens 2 "
        "--logit-bias 5=-100 --logit-bias 6=1.5 --length-penalty 0.7 --stop \\n --stop a\\\\nb --model default "
        "--dtype fp32 --device cpu --threads 1 --adapter none"
    )
    assert cli(*arguments.split()).code == 0
    config = fake_model.requests[0].config
    assert (config.temperature, config.top_p, config.top_k, config.min_p, config.typical_p) == (0.5, 0.9, 7, 0.1, 0.8)
    assert (config.frequency_penalty, config.presence_penalty, config.repetition_penalty) == (0.1, 0.2, 1.1)
    assert (config.no_repeat_ngram, config.seed, config.max_tokens, config.min_tokens) == (3, 9, 50, 2)
    assert (config.logit_bias, config.length_penalty) == ({5: -100.0, 6: 1.5}, 0.7)
    assert config.stop == ("\n", "a\\nb")
    kept = ("name", "dtype", "device", "threads", "adapter")
    loaded = {key: value for key, value in fake_model.loaded_with.items() if key in kept}
    assert loaded == {"name": "default", "dtype": "fp32", "device": "cpu", "threads": 1, "adapter": None}


def test_several_completions(cli: Cli) -> None:
    arguments = ("generate", "hi", "--n", "2", "--temperature", "1", "--seed", "4")
    assert cli(*arguments).out == "HI\n\nHI 2\n"
    (record,) = records(cli(*arguments, "--json").out)
    assert [other["text"] for other in record["alternatives"]] == ["HI", "HI 2"]
    assert record["seed"] == 4


def test_data_rows(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": "q7", "context": "Anna lives in Paris.", "question": "Where?", "answers": []}\n')
    (record,) = records(cli("qa", "-f", str(path), "--json").out)
    assert (record["id"], record["input"]) == ("q7", f"{path}:1")
    assert {"answer", "start", "end", "score", "answerable", "evidence"} <= record.keys()


def test_rows_through_the_pipe(cli: Cli) -> None:
    result = cli("generate", "--input-format", "jsonl", stdin=b'{"prompt": "a"}\n{"prompt": "b"}\n')
    assert result.out == "A\n\nB\n"


def test_row_without_a_column_is_named(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": " "}\n')
    result = cli("generate", "-f", str(path))
    assert result.code == 2
    assert "rows.jsonl:2: 'prompt' is empty" in result.err
    assert result.out == ""
    path = tmp_path / "rows.csv"
    path.write_text("source,other\na,b\n")
    result = cli("translate", "-f", str(path), "--from", "en")
    assert result.code == 2
    assert "rows.csv:2: the row has no 'target_lang'" in result.err
    assert "It has: source, other." in result.err
    assert "with --map target_lang=NAME, or what it is in all rows with --set target_lang=VALUE." in result.err
    assert cli("translate", "-f", str(path), "--from", "en", "--set", "target_lang=de").code == 0


def test_row_and_option_contradict_each_other(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"source": "Hello there", "source_lang": "en", "target_lang": "de"}\n')
    assert cli("translate", "-f", str(path)).code == 0
    assert cli("translate", "-f", str(path), "--to", "German").code == 0
    result = cli("translate", "-f", str(path), "--to", "fr")
    assert result.code == 2
    assert "rows.jsonl:1: the row's 'target_lang' is 'de', but --to is 'fr'" in result.err


def test_notes_on_many_inputs_come_once(cli: Cli) -> None:
    result = cli("generate", "--lines", "--max-tokens", "2", stdin=b"one\ntwo\nthree\n")
    assert result.err == (
        "nlpkit: the completion stopped at the limit of 2 tokens: use --max-tokens for more "
        "(standard input:1 and 2 more)\n"
    )


def test_keep_going(cli: Cli, fake_model: Any) -> None:
    fake_model.max_seq_len = 20
    text = b"one\n" + b"x" * 30 + b"\nthree\n"
    result = cli("generate", "--lines", "--keep-going", "--max-tokens", "10", stdin=text)
    assert (result.code, result.out) == (3, "ONE\n\nTHREE\n")
    assert "standard input:2: The input is too long" in result.err
    assert "1 of 3 inputs failed" in result.err
    got = records(cli("generate", "--lines", "--json", "--keep-going", "--max-tokens", "10", stdin=text).out)
    assert [record["error"] is None for record in got] == [True, False, True]


def test_keep_going_over_bad_rows(cli: Cli) -> None:
    rows = b'{"prompt": "a"}\n{"prompt": 3}\n'
    result = cli("generate", "--input-format", "jsonl", "--keep-going", stdin=rows)
    assert (result.code, result.out) == (3, "A\n")
    assert "standard input:2: 'prompt' must be a string, not 3" in result.err


def test_chat_goes_through_the_template(cli: Cli, fake_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        fake_model, "render_tokens", lambda messages, *_, **__: fake_model.encode(f"<{messages[0].content}>")
    )
    assert cli("generate", "hi", "--chat").out == "<HI>\n"


def test_glossary_reaches_the_prompt(cli: Cli, fake_model: Any, tmp_path: Path) -> None:
    path = tmp_path / "g.tsv"
    path.write_text("cat\tMieze\n")
    result = cli("translate", "The cat sleeps.", "--from", "en", "--to", "de", "--glossary", str(path))
    assert result.code == 0
    assert "Mieze" in fake_model.decode(fake_model.requests[0].prompt_ids)


@pytest.mark.parametrize(
    "arguments",
    [
        ("translate", "Good morning.", "--to", "de", "--from", "en"),
        ("summarize", "A long text. It has sentences.", "--length", "short"),
        ("qa", "Where does Anna live?", "--context", "-"),
        ("write", "a cat", "--form", "story", "--keyword", "milk"),
    ],
)
def test_every_task_command(cli: Cli, arguments: tuple[str, ...]) -> None:
    result = cli(*arguments, "--json", stdin=b"Anna lives in Paris." if "-" in arguments else b"")
    assert result.code == 0, result.err
    assert records(result.out)[0].keys() >= JSON_KEYS


def test_nothing_logs(cli: Cli, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        cli("generate", "hi")
    assert caplog.records == []
