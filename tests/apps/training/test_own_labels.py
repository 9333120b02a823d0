"""Rows with labels of one's own: trained on, evaluated while training, asked without naming the labels again."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_pairs import pairs_tokenizer, save_base, train_arguments

ROWS = [("The dog sleeps", "animal"), ("The cat sleeps", "animal"), ("Good morning", "hello"), ("Thank you", "thanks")]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "my.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(ROWS * 8)
    return path


def test_three_commands(data: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    base, output = save_base(tmp_path / "model", pairs_tokenizer()), tmp_path / "mine"
    options = [
        "--method",
        "full",
        "--max-steps",
        "60",
        "--lr",
        "0.01",
        "--eval-data",
        str(data),
        "--eval-metric",
        "accuracy",
    ]
    done = cli(*train_arguments(data, base, output, *options, task="classification"))
    assert done.code == 0, done.err
    known = json.loads((output / "nlpkit_tasks.json").read_text())
    assert known["brief_prompts"] == ["classification"]
    assert known["learned"] == [{"label": "animal"}, {"label": "hello"}, {"label": "thanks"}]

    asked = cli("classify", "Thank you", "-m", str(output), "--dtype", "fp32", "--json")
    assert asked.code == 0, asked.err
    answer = json.loads(asked.out)
    assert answer["label"] == "thanks"
    assert set(answer["probabilities"]) == {"animal", "hello", "thanks"}
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert cli("classify", "Thank you", "-m", str(output), "--dtype", "fp32").out == "thanks\n"

    scored = cli("eval", "run", "classification", "-d", str(data), "-m", str(output), "--dtype", "fp32", "-q",
                 "-o", str(tmp_path / "run"), "--json")  # fmt: skip
    assert scored.code == 0, scored.err
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["metrics"]["accuracy"]["value"] == 100
    assert record["counts"]["done"] == 32
