"""Language modelling: where texts end, and what a model in training writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_models import ToyTokenizer
from tiny_pairs import changed

from nlpkit.apps.tasks.encoder import PromptEncoder
from nlpkit.apps.training.dev_set import text_beginnings
from nlpkit.apps.training.examples import open_source
from nlpkit.apps.training.recipe import DataSpec
from nlpkit.core.errors import InputError
from nlpkit.core.tokenizers.train import END_OF_TEXT, train_tokenizer
from nlpkit.core.train.metrics_log import read_metrics

TEXT = "To be or not to be, that is the question.\n" * 40


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer("char", [TEXT], vocab_size=100)


def opened(path: Path, tokenizer: Any, **options: Any) -> Any:
    spec = DataSpec(path=str(path), task="text")
    values = {"folder": path.parent / "d", "seq_len": 16, "policy": "auto", "vocab_size": 200, "seed": 0, "sha256": "x"}
    return open_source(spec, PromptEncoder(tokenizer, None), **{**values, **options})


def test_each_text_ends(tokenizer: Any, tmp_path: Path) -> None:
    end = tokenizer.token_to_id(END_OF_TEXT)
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(TEXT)
        tokens = opened(tmp_path / name, tokenizer).store.all_tokens.tolist()
        assert tokens.count(end) == 1
        assert tokens[-1] == end
        assert tokenizer.decode(tokens[:-1]) == TEXT


def test_a_text_of_several_blocks_ends_once(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlpkit.apps.training.examples._BLOCK", 100)
    (tmp_path / "a.txt").write_text(TEXT)
    source = opened(tmp_path / "a.txt", tokenizer)
    assert source.store.n_rows > 10
    tokens = source.store.all_tokens.tolist()
    assert tokens.index(tokenizer.token_to_id(END_OF_TEXT)) == len(tokens) - 1
    # The last label of an epoch that is not shifted may be that token: nothing else comes after the text.
    whole = opened(tmp_path / "a.txt", tokenizer, shift=False, seq_len=len(tokens) - 1)
    assert whole.rows.layout(0, 0).labels[-1] == tokens[-1]


def test_without_an_end_token_a_text_just_stops(tmp_path: Path) -> None:
    endless = ToyTokenizer(29)
    endless.eos_ids = frozenset()
    (tmp_path / "a.txt").write_text("abcabc")
    source = opened(tmp_path / "a.txt", endless)
    assert source.store.all_tokens.tolist() == [1, 2, 3, 1, 2, 3]
    assert source.key != opened(tmp_path / "a.txt", ToyTokenizer(29)).key


def test_an_empty_text_is_still_refused(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(InputError, match="nothing to learn"):
        opened(tmp_path / "a.txt", tokenizer)


def test_beginnings_of_files_and_rows(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in ("Too short", TEXT)))
    file = DataSpec(path=str(tmp_path / "a.txt"), task="text")
    rows = replace(file, path=str(tmp_path / "b.jsonl"))
    assert text_beginnings([file], tokenizer, seq_len=64, count=2) == [
        {"prompt": TEXT[:32], "text": TEXT[32:64]},
        {"prompt": TEXT[64:96], "text": TEXT[96:128]},
    ]
    assert text_beginnings([file], tokenizer, seq_len=500, count=1) == [{"prompt": TEXT[:32], "text": TEXT[32:96]}]
    assert text_beginnings([rows], tokenizer, seq_len=64, count=3) == [{"prompt": TEXT[:32], "text": TEXT[32:64]}]
    assert text_beginnings([rows], tokenizer, seq_len=3, count=1) == [{"prompt": "T", "text": "oo"}]
    assert text_beginnings([replace(file, task="qa")], tokenizer, seq_len=64, count=2) == []
    assert text_beginnings([file], tokenizer, seq_len=64, count=0) == []


def test_samples_continue_the_dev_text(tmp_path: Path, cli: Callable[..., Any]) -> None:
    text = tmp_path / "t.txt"
    text.write_text(TEXT)
    command = ["train", "--task", "text", "--data", str(text), "--preset", "nano", "--tokenizer", "char", "--seq-len",
               "32", "--batch-size", "2", "--max-steps", "2", "--eval-every", "1", "--eval-data", str(text),
               "--samples", "2", "-o", str(tmp_path / "o")]  # fmt: skip
    done = cli(*command)
    assert done.code == 0, done.err
    samples = [row for row in read_metrics(tmp_path / "o" / "metrics.jsonl") if row["kind"] == "sample"]
    assert [(row["step"], row["input"], row["target"]) for row in samples] == [
        (step, TEXT[start : start + 16], TEXT[start + 16 : start + 32]) for step in (1, 2) for start in (0, 32)
    ]
    assert all(1 <= len(row["prediction"]) <= 16 for row in samples)
    assert "step 2: input: 'To be or not to'  prediction: '" in done.err
    # What is generated is to be looked at: there is no task whose metric could score it.
    refused = cli(*command[:-1], str(tmp_path / "p"), "--eval-metric", "bleu")
    assert refused.code == 2
    assert "rows of a task" in refused.err
    quiet = cli(*changed(command, "-o", str(tmp_path / "q"), "--samples", "0", "-q"))
    assert quiet.code == 0, quiet.err
    assert not [row for row in read_metrics(tmp_path / "q" / "metrics.jsonl") if row["kind"] == "sample"]
