"""Rows tokenized by several processes."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_pairs import pairs_tokenizer

from nlpkit.apps.tasks.encoder import EVERY, PromptEncoder
from nlpkit.apps.training import examples as finetune
from nlpkit.apps.training import tokenizing
from nlpkit.apps.training.examples import open_source
from nlpkit.apps.training.recipe import DataSpec
from nlpkit.core.chat.template import ChatTemplate
from nlpkit.core.errors import InputError
from nlpkit.core.tokenizers.train import CHATML
from nlpkit.core.train.data.store import TokenRow, TokenStore

pytestmark = pytest.mark.skipif(not tokenizing.can_fork(), reason="processes are not forked here")


def _write(path: Path, count: int, *, bad: int | None = None) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        for i in range(count):
            row = {"source": f"number {i}", "target": f"Zahl {i}", "target_lang": "de", "source_lang": "en"}
            stream.write("{broken\n" if i == bad else "\n" if i % 17 == 3 else json.dumps(row) + "\n")
    return path


def _open(path: Path, folder: Path) -> TokenStore:
    encoder = PromptEncoder(pairs_tokenizer(), ChatTemplate(CHATML), EVERY)
    source = open_source(
        DataSpec(path=str(path), task="translation"), encoder, folder=folder, seq_len=128, policy="auto",
        vocab_size=400, seed=0, sha256="x",
    )  # fmt: skip
    return source.store


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizing, "BLOCK_LINES", 7)
    monkeypatch.setattr(finetune, "WORTH_FORKING", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)


def test_the_rows_are_those_of_one_process_in_their_order(
    tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / "rows.jsonl.gz", 150)
    used: list[int] = []
    whole = finetune.tokenize_in_parallel

    def counted(rows: tokenizing.Rows, n_processes: int) -> Iterator[TokenRow]:
        used.append(n_processes)
        return whole(rows, n_processes)

    monkeypatch.setattr(finetune, "tokenize_in_parallel", counted)
    several = _open(path, tmp_path / "a")
    assert used == [3]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    one = _open(path, tmp_path / "b")
    assert used == [3]
    assert several.n_rows == one.n_rows == 150 - 9
    assert several.all_tokens.tolist() == one.all_tokens.tolist()
    assert several.stats == one.stats


def test_a_bad_row_is_named_and_no_process_is_left(tmp_path: Path, small_blocks: None) -> None:
    with pytest.raises(InputError, match=r"rows\.jsonl\.gz:58"):
        _open(_write(tmp_path / "rows.jsonl.gz", 150, bad=57), tmp_path / "a")
    import multiprocessing

    assert multiprocessing.active_children() == []


def test_a_process_that_dies_is_noticed() -> None:
    def rows(part: tokenizing.Part) -> Iterator[tuple[int, TokenRow]]:
        yield 1, TokenRow([1, 2], 1, "x:1")
        os._exit(9)

    with pytest.raises(RuntimeError, match="died"):
        list(tokenizing.tokenize_in_parallel(rows, 1))


def test_small_files_are_read_by_one_process(tmp_path: Path) -> None:
    path = _write(tmp_path / "rows.jsonl.gz", 20)
    assert finetune._workers(DataSpec(path=str(path), task="translation")) == 1
