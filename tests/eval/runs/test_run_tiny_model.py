"""Runs with a real, tiny, random model: likelihoods against transformers, and resuming in fp32."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.parity

Cli = Callable[..., Any]
Write = Callable[[str, Any], str]

ROWS = [
    {"prompt": "the cat sat on", "text": " the mat and looked"},
    {"prompt": "two men are riding", "text": " horses in the park"},
    {"prompt": "a small girl", "text": " watches them , über 猫"},
]


def run(cli: Cli, model: Path, data: str, folder: Path, *options: str) -> dict[str, Any]:
    common = ["-m", str(model), "--dtype", "fp32", "--max-tokens", "8", "-o", str(folder), "--json", "-q"]
    found = cli("eval", "run", "generation", "-d", data, *common, *options)
    assert found.code == 0, found.err
    record: dict[str, Any] = json.loads(found.out)
    return record


def test_likelihoods_equal_those_of_transformers(
    cli: Cli, tiny_model: Path, write_jsonl: Write, tmp_path: Path
) -> None:
    import torch
    import transformers

    metrics = ["--metric", "perplexity", "--metric", "bits_per_byte"]
    record = run(cli, tiny_model, write_jsonl("d.jsonl", ROWS), tmp_path / "r", *metrics)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    total = tokens = size = 0.0
    for row in ROWS:
        prompt = tokenizer.encode(row["prompt"], add_special_tokens=False)
        target = tokenizer.encode(row["text"], add_special_tokens=False)
        with torch.no_grad():
            logprobs = model(torch.tensor([prompt + target])).logits[0].log_softmax(-1)
        total += sum(float(logprobs[len(prompt) - 1 + i, token]) for i, token in enumerate(target))
        tokens += len(target)
        size += len(row["text"].encode())
    assert record["metrics"]["perplexity"]["value"] == pytest.approx(math.exp(-total / tokens), rel=1e-4)
    assert record["metrics"]["bits_per_byte"]["value"] == pytest.approx(-total / math.log(2) / size, rel=1e-4)
    assert record["model"]["dtype"] == "fp32"
    assert len(record["model"]["tokenizer"]) == 64
    assert all(len(value) == 64 for value in record["model"]["sha256"].values())


def test_a_cut_run_ends_with_the_same_texts(cli: Cli, tiny_model: Path, write_jsonl: Write, tmp_path: Path) -> None:
    rows = [{"prompt": f"{row['prompt']} {number}"} for number in range(10) for row in ROWS]
    data = write_jsonl("d.jsonl", rows)
    whole = run(cli, tiny_model, data, tmp_path / "a", "--metric", "distinct1", "--temperature", "1")
    run(cli, tiny_model, data, tmp_path / "b", "--metric", "distinct1", "--temperature", "1")
    samples = tmp_path / "b" / "samples.jsonl"
    samples.write_bytes(samples.read_bytes()[:3001])
    again = run(cli, tiny_model, data, tmp_path / "b", "--metric", "distinct1", "--temperature", "1")
    texts = [
        [json.loads(line)["completion"] for line in (tmp_path / name / "samples.jsonl").read_text().splitlines()]
        for name in ("a", "b")
    ]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 20
    assert again["metrics"] == whole["metrics"]
    assert len(again["sessions"]) == 2
