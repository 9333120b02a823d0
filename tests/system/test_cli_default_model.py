"""The real default model through the command line, in child processes that die when they open a socket."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.system

TEXT = (
    "The town library opened a new reading room on Monday. It has forty seats, free internet and a view of the river. "
    "The mayor said that it cost two million euros and took three years to build."
)


@pytest.fixture
def nlpkit(default_model: str, offline_env: dict[str, str]) -> Any:
    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "nlpkit.cli", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            env=offline_env,
            timeout=300,
            check=False,
        )

    return run


def records(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_generate(nlpkit: Any) -> None:
    options = ("--max-tokens", "8", "--dtype", "fp32", "--json", "--logprobs", "2")
    (record,) = records(nlpkit("generate", "The capital of France is", *options))
    assert "Paris" in record["prediction"]
    (logprobs,) = record["logprobs"]
    assert "".join(logprobs["tokens"]) == record["completion"]
    for token_id, logprob, (best, second) in zip(
        logprobs["token_ids"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
    ):
        assert (best["token_id"], best["logprob"]) == (token_id, pytest.approx(logprob))
        assert best["logprob"] >= second["logprob"]
    assert (record["output_tokens"], record["finish_reason"]) == (8, "length")


def test_greedy_text_is_the_same_alone_and_among_others(nlpkit: Any) -> None:
    prompts = ["One", "The river flows past the old mill and", "def add(a, b):"]
    options = ("--max-tokens", "10", "--dtype", "fp32", "--json")
    together = records(nlpkit("generate", "--lines", *options, stdin="\n".join(prompts)))
    alone = records(nlpkit("generate", prompts[1], *options))
    assert together[1]["completion"] == alone[0]["completion"]


def test_translate(nlpkit: Any) -> None:
    done = nlpkit("translate", "--to", "de", "--from", "en", "--lines", stdin="Good morning.\n\nThank you.\n")
    lines = done.stdout.split("\n")
    assert (done.returncode, len(lines), lines[1]) == (0, 4, "")
    assert lines[0]
    assert lines[2]


def test_summarize(nlpkit: Any) -> None:
    (record,) = records(nlpkit("summarize", "--length", "short", "--json", stdin=TEXT))
    assert record["prediction"]
    assert record["chunks"] == 1


def test_qa_offsets_point_into_the_context(nlpkit: Any) -> None:
    (record,) = records(nlpkit("qa", "How many seats are there?", "--context", "-", "--json", stdin=TEXT))
    if record["start"] is not None:
        assert TEXT[record["start"] : record["end"]] == record["answer"]


def test_sampling_is_repeatable(nlpkit: Any) -> None:
    options = ("--lines", "--seed", "5", "--max-tokens", "12", "--dtype", "fp32", "--json")
    first, other, again = records(nlpkit("write", *options, stdin="a cat\na dog\na cat\n"))
    assert first["completion"] == again["completion"] != other["completion"]


def test_models_and_doctor(nlpkit: Any) -> None:
    listed = records(nlpkit("models", "list", "--json"))
    assert next(row for row in listed if "default" in row["aliases"])["cached"] is True
    (shown,) = records(nlpkit("models", "show", "default", "--json"))
    assert shown["config"]["n_layers"] == 30
    (report,) = records(nlpkit("doctor", "--json"))
    assert {"Software", "Processor", "Memory", "Compiler", "Models", "Text", "problems"} <= report.keys()
    assert "verified" in str(report["Models"])
