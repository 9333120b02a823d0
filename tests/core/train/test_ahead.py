"""Batches made ahead, and all rows of a batch at once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import tiny_training
import torch

from nlpkit.core.train.data.ahead import DEPTH, Ahead
from nlpkit.core.train.data.packing import Packer, collate
from nlpkit.core.train.data.store import TokenLayout


class _OneByOne:
    """A store whose rows can only be laid out one by one."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.n_rows, self.layout_key = store.n_rows, store.layout_key
        self.slots, self.targets = store.slots, store.targets

    def layout(self, index: int, epoch: int) -> TokenLayout:
        found: TokenLayout = self._store.layout(index, epoch)
        return found


@pytest.mark.parametrize("n_sources", [1, 2])
def test_all_rows_at_once_are_laid_out_as_one_by_one(n_sources: int, tmp_path: Path) -> None:
    stores = [tiny_training.store(tmp_path / str(i), 40 + 9 * i, seed=i) for i in range(n_sources)]
    fast, slow = (
        Packer(sources, seq_len=tiny_training.SEQ, seed=4, epochs=1)
        for sources in (stores, [_OneByOne(store) for store in stores])
    )
    while bins := fast.take(3):
        assert bins == slow.take(3)
        one, other = (collate(packer, bins, n_rows=4) for packer in (fast, slow))
        for name in ("token_ids", "labels", "positions", "segments", "labelled"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert one.branches is None
        assert other.branches is None


def test_the_state_is_that_of_the_steps_taken(tmp_path: Path) -> None:
    made = tiny_training.trainer(tmp_path / "d", max_steps=None, epochs=2)
    plain = Packer(made.packer.sources, seq_len=tiny_training.SEQ, seed=0, epochs=2)
    while (data := made._ahead.take()) is not None:
        bins = plain.take(made.rows_per_step)
        assert data.state.to_dict() == made.packer.state.to_dict() == plain.state.to_dict()
        assert (data.slots, data.targets) == plain.count(bins)
        assert torch.equal(data.batches[0].token_ids, collate(plain, bins, n_rows=4).token_ids)
    assert plain.take(1) == []


def test_going_back_makes_what_was_prepared_void(tmp_path: Path) -> None:
    made = tiny_training.trainer(tmp_path / "d")
    start = made.packer.state
    first = made._ahead.take()
    made._ahead.take()
    made.packer.restore(start)
    again = made._ahead.take()
    assert first is not None
    assert again is not None
    assert torch.equal(first.batches[0].token_ids, again.batches[0].token_ids)


def test_batches_are_made_in_another_thread_and_errors_come_through(tmp_path: Path) -> None:
    packer = tiny_training.trainer(tmp_path / "d").packer
    threads: list[int] = []

    def build(working: Packer) -> None:
        threads.append(threading.get_ident())
        raise ValueError("damaged rows")

    with pytest.raises(ValueError, match="damaged rows"):
        Ahead(packer, build).take()
    assert threads
    assert threading.get_ident() not in threads
    assert len(threads) <= DEPTH + 1
