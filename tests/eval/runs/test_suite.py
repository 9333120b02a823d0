"""Suite files: what they may say, and that a suite goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nlpkit.apps.models.spec import ModelSpec
from nlpkit.core.errors import ConfigError, InputError
from nlpkit.eval.runs.suite import load_suite, run_suite

TEXT = """
name = "small"
limit = 12
resamples = 50

[[models]]
model = "default"

[[models]]
model = "smollm2"

[[evaluations]]
name = "en-de"
task = "translation"
data = "pairs.jsonl"
metrics = ["chrf"]
decoding = { max_tokens = 50 }

[[evaluations]]
task = "summarization"
data = ["docs.csv"]
columns = { document = "article", summary = "highlights" }
metrics = ["rouge1", "length_words"]
limit = 3
models = [{ model = "smollm2-135m-instruct" }]
"""

Cli = Callable[..., Any]


@pytest.fixture
def suite(tmp_path: Path, pairs: list[Any], write_jsonl: Callable[..., str]) -> Path:
    write_jsonl("pairs.jsonl", pairs)
    rows = "".join(f"a long text number {n},a text\n" for n in range(5))
    (tmp_path / "docs.csv").write_text("article,highlights\n" + rows)
    path = tmp_path / "suite.toml"
    path.write_text(TEXT)
    return path


def run(path: Path, output: Path, **options: Any) -> Any:
    return run_suite(load_suite(str(path), **options), str(output), load=ModelSpec.load, report=lambda text: None)


def test_it_runs_and_resumes(suite: Path, tmp_path: Path, eval_model: Any) -> None:
    results = run(suite, tmp_path / "out")
    assert [result.name for result in results] == ["en-de", "summarization-docs.csv"]
    assert [outcome.record["name"] for outcome in results[0].outcomes] == ["default", "smollm2"]
    assert [outcome.record["counts"]["done"] for result in results for outcome in result.outcomes] == [12, 12, 3]
    assert results[0].outcomes[0].record["decoding"]["max_tokens"] == 50
    assert set(results[1].outcomes[0].record["metrics"]) == {"rouge1", "length_words"}
    assert (tmp_path / "out" / "en-de" / "smollm2" / "run.json").exists()
    asked = len(eval_model.requests)
    samples = tmp_path / "out" / "en-de" / "smollm2" / "samples.jsonl"
    samples.write_text("".join(samples.read_text().splitlines(keepends=True)[:7]))
    again = run(suite, tmp_path / "out")
    assert len(eval_model.requests) == asked + 5
    for before, after in zip(results, again, strict=True):
        for one, two in zip(before.outcomes, after.outcomes, strict=True):
            assert one.record["metrics"] == two.record["metrics"]


def test_limit_and_only(suite: Path, tmp_path: Path, eval_model: Any) -> None:
    results = run(suite, tmp_path / "out", limit=5, only=["en-de"])
    assert [[outcome.record["counts"]["done"] for outcome in result.outcomes] for result in results] == [[5, 5]]


def test_all_data_are_checked_before_anything_runs(suite: Path, tmp_path: Path, eval_model: Any) -> None:
    (tmp_path / "docs.csv").write_text("article,highlights\n,x\n")
    with pytest.raises(InputError, match=r"docs\.csv:2: 'document' is empty"):
        run(suite, tmp_path / "out")
    assert eval_model.requests == []


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("metrics =", "metric =", r"evaluation 1 \(en-de\) has an unknown key 'metric'\. Did you mean 'metrics'"),
        ('task = "translation"', "", "has no 'task'"),
        ("limit = 12", 'limit = "12"', "'limit' must be a whole number"),
        ("max_tokens = 50", "max_token = 50", "max_tokens"),
        ('"chrf"', '"chref"', "Did you mean 'chrf'"),
        ('name = "en-de"', 'name = "summarization-docs.csv"', "two evaluations named"),
        ('name = "en-de"', 'name = "en-de"\nformat = "xml"', "'format' is 'xml'"),
        ("[[models]]", "[models", "not valid TOML"),
        ('model = "smollm2-135m-instruct"', 'name = "smollm2-135m-instruct"', "unknown key 'name'"),
    ],
)
def test_mistakes_are_named(suite: Path, tmp_path: Path, eval_model: Any, before: str, after: str, says: str) -> None:
    suite.write_text(TEXT.replace(before, after, 1))
    with pytest.raises(ConfigError, match=says):
        run(suite, tmp_path / "out")
    assert eval_model.requests == []


def test_command(suite: Path, tmp_path: Path, eval_model: Any, cli: Cli) -> None:
    found = cli("eval", "suite", str(suite), "-o", str(tmp_path / "out"))
    assert found.code == 0, found.err
    table = found.out.splitlines()
    assert table[0].split() == ["evaluation", "system", "metric", "score", "[95%]", "n", "failed"]
    assert sum(line.startswith("en-de") for line in table) == 2
    assert any(line.startswith("chrf: nrefs:1|") for line in table)
    found = cli("eval", "suite", str(suite), "-o", str(tmp_path / "out"), "--json", "-q")
    assert [json.loads(line)["evaluation"] for line in found.out.splitlines()] == ["en-de"] * 2 + [
        "summarization-docs.csv"
    ]
