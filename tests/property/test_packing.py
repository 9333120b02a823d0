"""Packing and the order of rows: nothing is lost, nothing comes twice, and any state can be gone on from."""

from __future__ import annotations

import itertools
import json

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.core.errors import ConfigError, InputError
from nlpkit.core.train.data.packing import DataState, Packer, RowOrder, best_fit, collate
from nlpkit.core.train.data.store import DataStats, TextWindows, TokenLayout, TokenRow, fit_row, single_layout

pytestmark = pytest.mark.property
SEQ = 16


class Rows:
    """Rows of given lengths whose tokens say where they come from."""

    def __init__(self, sizes: list[int], start: int = 1) -> None:
        self.sizes = sizes
        self.n_rows = len(sizes)
        self._start = start
        self.layout_key = f"rows {sizes}"

    def slots(self, index: int) -> int:
        return self.sizes[index]

    def targets(self, index: int) -> int:
        return self.sizes[index]

    def row(self, index: int, epoch: int) -> tuple[npt.NDArray[np.int64], int]:
        return np.full(self.sizes[index] + 1, self._start + index, np.int64), 0

    def layout(self, index: int, epoch: int) -> TokenLayout:
        return single_layout(*self.row(index, epoch))


sizes = st.lists(st.integers(1, SEQ), min_size=1, max_size=60)


@given(st.lists(st.integers(1, 20), max_size=80))
def test_best_fit_packs_all_items_and_wastes_little(items: list[int]) -> None:
    bins = best_fit(items, 20)
    assert sorted(i for one in bins for i in one) == list(range(len(items)))
    loads = [sum(items[i] for i in one) for one in bins]
    assert all(load <= 20 for load in loads)
    # Best-fit decreasing needs at most 11/9 of the optimum plus one bin, and the sum bounds the optimum from below
    # only; what always holds is that no two bins could have been one.
    assert all(a + b > 20 for i, a in enumerate(loads) for b in loads[:i])


def test_an_item_that_fits_no_bin() -> None:
    with pytest.raises(ConfigError, match="takes 21"):
        best_fit([21], 20)


@settings(deadline=None, max_examples=40)
@given(sizes, sizes, st.integers(0, 3), st.integers(1, 7), st.integers(1, 3))
def test_epochs_hold_every_row_once_and_any_state_resumes(
    first: list[int], second: list[int], seed: int, step: int, epochs: int
) -> None:
    sources = [Rows(first), Rows(second, start=1000)]

    def packer() -> Packer:
        return Packer(sources, seq_len=SEQ, seed=seed, epochs=epochs)

    one = packer()
    taken = []
    states = []
    while True:
        states.append(json.loads(json.dumps(one.state.to_dict())))
        bins = one.take(step)
        if not bins:
            break
        taken.append(bins)
    draws = [draw for bins in taken for single in bins for draw in single]
    assert sorted((d.source, d.index, d.epoch) for d in draws) == sorted(
        (source, index, epoch)
        for source, rows in enumerate(sources)
        for index in range(rows.n_rows)
        for epoch in range(epochs)
    )
    assert packer().count_bins() == sum(map(len, taken))
    assert one.epoch == pytest.approx(epochs)
    at = len(states) // 2
    again = packer()
    again.restore(DataState(**states[at]))
    rest = []
    while bins := again.take(step):
        rest.append(bins)
    assert rest == taken[at:]


@settings(deadline=None, max_examples=40)
@given(sizes, st.integers(1, 5))
def test_batches_hold_what_was_packed(items: list[int], n_rows: int) -> None:
    packer = Packer([Rows(items)], seq_len=SEQ, epochs=1)
    seen: list[int] = []
    while bins := packer.take(n_rows):
        batch = collate(packer, bins, n_rows=n_rows)
        assert batch.token_ids.shape == batch.labels.shape == batch.positions.shape == (n_rows, SEQ)
        assert batch.segments is not None
        mask = batch.mask()
        assert mask is not None
        for row in range(n_rows):
            segments = batch.segments[row]
            for number in range(1, int(segments.max()) + 1):
                here = (segments == number).nonzero()[:, 0]
                assert batch.positions[row, here].tolist() == list(range(len(here)))
                assert len(set(batch.token_ids[row, here].tolist())) == 1
                seen.append(int(batch.token_ids[row, here[0]]))
                for slot in here.tolist():
                    assert mask[row, 0, slot].nonzero()[:, 0].tolist() == [s for s in here.tolist() if s <= slot]
            assert bool((batch.labels[row][segments == 0] == -1).all())
    assert sorted(seen) == [1 + i for i in range(len(items))]


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=5), st.integers(1, 200))
def test_shares_hold_at_every_moment(weights: list[float], count: int) -> None:
    order = RowOrder([Rows([1] * 7) for _ in weights], weights=weights, seed=1)
    drawn = [0] * len(weights)
    for done in range(1, count + 1):
        order.draw(drawn)
        for share, got in zip(weights, drawn, strict=True):
            assert abs(got - done * share / sum(weights)) <= len(weights)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -2.0]])
def test_unusable_weights(weights: list[float]) -> None:
    with pytest.raises(ConfigError, match="weights"):
        RowOrder([Rows([1]), Rows([1])], weights=weights, seed=0)


@given(st.integers(2, 200), st.integers(1, 40), st.booleans(), st.integers(0, 5))
def test_windows_cover_a_text_once(length: int, width: int, shift: bool, epoch: int) -> None:
    tokens = np.arange(length)
    rows = TextWindows(tokens, width, seed=3, shift=shift)
    parts = [rows.row(index, epoch)[0] for index in range(rows.n_rows)]
    assert all(len(part) == rows.slots(0) + 1 for part in parts)
    for before, after in itertools.pairwise(parts):
        assert before[-1] == after[0]
    labels = np.concatenate([part[1:] for part in parts])
    assert labels.tolist() == list(range(int(labels[0]), int(labels[0]) + len(labels)))
    assert len(labels) > (length - 1) - (2 if shift else 1) * rows.slots(0)


@given(
    st.integers(2, 60), st.integers(0, 30), st.integers(2, 20), st.sampled_from(["auto", "drop", "truncate", "split"])
)
def test_long_rows_never_vanish_silently(length: int, prompt: int, seq_len: int, policy: str) -> None:
    row = TokenRow(list(range(length)), min(prompt, length - 1), "r:1")
    stats = DataStats()
    pieces = list(fit_row(row, seq_len, policy, stats))  # type: ignore[arg-type]
    assert all(2 <= len(piece.token_ids) <= seq_len + 1 for piece in pieces)
    assert stats.rows == 1
    if length - 1 <= seq_len:
        assert pieces == [row]
        assert stats.dropped == stats.truncated == stats.split == 0
    else:
        assert stats.dropped + stats.truncated + stats.split == 1
        assert bool(pieces) == (not stats.dropped)
    if stats.truncated:
        # Only prompt is lost: all targets are there.
        assert pieces[0].token_ids[pieces[0].prompt_length :] == row.token_ids[row.prompt_length :]
    if stats.split:
        joined = [token for piece in pieces for token in piece.token_ids[1:]]
        assert joined == row.token_ids[1:]


def test_a_row_with_nothing_to_learn() -> None:
    with pytest.raises(InputError, match="r:1: the row has no token to learn"):
        list(fit_row(TokenRow([5], 0, "r:1"), 8, "auto", DataStats()))
    with pytest.raises(InputError, match="2 of them prompt"):
        list(fit_row(TokenRow([5, 6], 2, "r:1"), 8, "auto", DataStats()))
