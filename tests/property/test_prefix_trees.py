"""Rows that share their beginning: as a tree they are learned as they would be apart, and none is lost."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_config, tiny_gpt
from torch import Tensor

from nlpkit.core.model.attention import attend
from nlpkit.core.model.gpt import GPT
from nlpkit.core.train.attention import TrainingAttend
from nlpkit.core.train.data.packing import Packer, collate
from nlpkit.core.train.data.prompt_trees import SHORTEST, SharedPrefixRows
from nlpkit.core.train.data.store import NO_LABEL, Layout, TokenRow, TokenStore, build_store, single_layout
from nlpkit.core.train.loss import loss_sum

pytestmark = pytest.mark.property
SEQ = 64
VOCAB = 29

token = st.integers(1, VOCAB - 1)


@st.composite
def families(draw: st.DrawFn, *, shortest: int = 0) -> list[TokenRow]:
    """Rows in families that begin alike; where they part, and where their prompts end, differs from row to row."""
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        stem = draw(st.lists(token, min_size=shortest, max_size=40))
        for _ in range(draw(st.integers(1, 5))):
            kept = stem[: draw(st.integers(min(len(stem), shortest), len(stem)))]
            rest = draw(st.lists(token, min_size=2, max_size=SEQ - 1 - len(kept)))
            ids = [*[*kept, *rest][:SEQ], 0]
            # The prompt may end inside what is shared, right where the rows part, or later.
            prompt = draw(st.one_of(st.integers(0, len(ids) - 1), st.just(min(len(kept), len(ids) - 1))))
            rows.append(TokenRow(ids, prompt, f"rows:{len(rows) + 1}"))
    return rows


def stored(rows: list[TokenRow], folder: str) -> TokenStore:
    return build_store(Path(folder) / "store", rows, key="x", vocab_size=VOCAB, seq_len=SEQ, policy="error")


def family(stem: int, rests: list[int], *, prompt_after: int = 0) -> list[TokenRow]:
    """Rows that share `stem` tokens and have `rests` of their own, the prompt ending so many tokens after the fork."""
    shared = [1 + i * 7 % (VOCAB - 1) for i in range(stem)]
    return [
        TokenRow([*shared, *(1 + (number + i * i) % (VOCAB - 1) for i in range(size)), 0], stem + prompt_after)
        for number, size in enumerate(rests)
    ]


def taken_apart(layout: Layout) -> list[Layout]:
    """The rows of a tree, each as it would be laid out alone."""
    stem = layout.branches == 0
    numbers = range(1, int(layout.branches.max()) + 1) or [0]
    rows = []
    for number in numbers:
        own = np.concatenate([np.flatnonzero(stem), np.flatnonzero(layout.branches == number)]) if number else stem
        rows.append(
            Layout(layout.inputs[own], layout.labels[own], layout.positions[own], np.zeros(len(layout.inputs[own])))
        )
    return rows


@settings(deadline=None, max_examples=150)
@given(st.one_of(families(), families(shortest=SHORTEST)))
def test_every_row_is_in_one_tree_and_whole(rows: list[TokenRow]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = stored(rows, folder)
        trees = SharedPrefixRows(store, SEQ)
        found = []
        for index in range(trees.n_rows):
            layout = trees.layout(index, 0)
            assert trees.slots(index) == len(layout.inputs) <= SEQ
            assert trees.targets(index) == int((layout.labels != NO_LABEL).sum())
            found += taken_apart(layout)
        assert len(found) == len(rows)
        for row, got in zip(rows, found, strict=True):
            alone = single_layout(np.array(row.token_ids), row.prompt_length)
            assert got.inputs.tolist() == alone.inputs.tolist()
            assert got.labels.tolist() == alone.labels.tolist()
            assert got.positions.tolist() == alone.positions.tolist()
        apart = sum(store.slots(index) for index in range(store.n_rows))
        together = sum(trees.slots(index) for index in range(trees.n_rows))
        assert trees.saved == pytest.approx(1 - together / apart)
        assert 0 <= trees.saved < 1


def slopes(model: GPT, loss: Tensor) -> dict[str, Tensor]:
    names = [name for name, _ in model.named_parameters()]
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return {name: slope for name, slope in zip(names, found, strict=True) if slope is not None}


def loss_apart(model: GPT, rows: list[TokenRow]) -> Tensor:
    """The loss of each row alone, without packing, mask or head in chunks."""
    total = torch.zeros(())
    for row in rows:
        ids = torch.tensor([row.token_ids])
        logprobs = model(ids[:, :-1])[0].log_softmax(-1)
        chosen = logprobs.gather(1, ids[0, 1:, None])[:, 0]
        total = total - chosen[max(0, row.prompt_length - 1) :].sum()
    return total


def check_equal_to_apart(rows: list[TokenRow], changes: dict[str, Any], *, plain: bool) -> int:
    """Compare loss and gradients; return how many rows were saved by joining."""
    model = tiny_gpt(tiny_config(vocab_size=VOCAB, **changes)).requires_grad_(True)
    expected = loss_apart(model, rows)
    wanted = slopes(model, expected)
    for block in model.iter_blocks():
        block.attn.attend = TrainingAttend() if plain else attend
    with tempfile.TemporaryDirectory() as folder:
        trees = SharedPrefixRows(stored(rows, folder), SEQ)
        packer = Packer([trees], seq_len=SEQ, epochs=1, seed=1)
        bins = packer.take(100)
        assert packer.count(bins)[1] == sum(len(row.token_ids) - max(1, row.prompt_length) for row in rows)
        batch = collate(packer, bins, n_rows=len(bins) + 1)
        saved = len(rows) - trees.n_rows
    assert (batch.branches is not None) == bool(saved)
    hidden = model.hidden(batch.token_ids, positions=batch.positions, mask=batch.mask(), longest=SEQ)
    total, unsmoothed = loss_sum(model, hidden, batch.labels, chunk=16)
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert unsmoothed.item() == pytest.approx(expected.item(), rel=1e-5)
    got = slopes(model, total)
    assert got.keys() == wanted.keys()
    # Measured by the whole gradient: where it vanishes by symmetry, a weight's own is rounding alone.
    largest = max(float(slope.norm()) for slope in wanted.values())
    for name, slope in wanted.items():
        assert float((got[name] - slope).norm()) <= 1e-5 * largest, name
    return saved


SHAPES = [
    {},
    {"sliding_window": 5, "sliding_layers": [0]},
    {"sliding_window": 20, "sliding_layers": [0, 1]},
    {"positions": "learned", "n_kv_heads": 4},
    {"attn_softcap": 5.0, "n_kv_heads": 1},
]


@settings(deadline=None, max_examples=25)
@given(families(shortest=SHORTEST), st.sampled_from(SHAPES), st.booleans())
def test_a_tree_is_learned_as_its_rows_are_apart(rows: list[TokenRow], changes: dict[str, Any], plain: bool) -> None:
    check_equal_to_apart(rows, changes, plain=plain)


@pytest.mark.parametrize("changes", SHAPES)
@pytest.mark.parametrize("prompt_after", [0, 1, 3])
def test_labels_right_at_the_fork(changes: dict[str, Any], prompt_after: int) -> None:
    """With the prompt ending at the fork, the last shared token predicts another label in each row."""
    rows = [*family(20, [6, 9, 4], prompt_after=prompt_after), *family(0, [12, 30]), *family(30, [5, 5])]
    assert check_equal_to_apart(rows, changes, plain=True) == 3


def test_equal_rows_and_a_row_that_is_the_start_of_another() -> None:
    twice = family(24, [8, 8])
    twice[1] = twice[0]
    longer = TokenRow([*twice[0].token_ids[:-1], 5, 6, 0], twice[0].prompt_length)
    assert check_equal_to_apart([*twice, longer], {}, plain=True) == 2


def test_one_prompt_with_several_answers_is_joined_up_to_its_last_token() -> None:
    rows = family(20, [3, 3, 3])
    with tempfile.TemporaryDirectory() as folder:
        trees = SharedPrefixRows(stored(rows, folder), SEQ)
        layout = trees.layout(0, 0)
    assert trees.n_rows == 1
    # What predicts the first label of a row is in its own branch: the shared part has no label at all.
    assert int((layout.branches == 0).sum()) == 19
    assert set(layout.labels[layout.branches == 0].tolist()) == {NO_LABEL}
    assert trees.slots(0) == 19 + 3 * 4
    assert trees.saved == pytest.approx(1 - 31 / 69)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (family(SHORTEST - 1, [4, 4], prompt_after=1), "too little in common"),
        (family(20, [30, 30]), "more apart than in common"),
        ([TokenRow(row.token_ids, 0) for row in family(30, [4, 4])], "labels from the first token on"),
        (family(40, [10, 10, 10]), "no room for the third"),
    ],
)
def test_rows_that_stay_apart(rows: list[TokenRow], why: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trees = SharedPrefixRows(stored(rows, folder), SEQ)
        assert trees.n_rows == 2, why
        assert all(trees.slots(index) <= SEQ for index in range(trees.n_rows))


@settings(deadline=None, max_examples=40)
@given(families(shortest=SHORTEST), st.integers(0, 2), st.integers(1, 3))
def test_packed_trees_come_once_in_each_epoch_and_see_only_themselves(
    rows: list[TokenRow], seed: int, epochs: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        packer = Packer([SharedPrefixRows(stored(rows, folder), SEQ)], seq_len=SEQ, seed=seed, epochs=epochs)
        seen: list[list[int]] = []
        while bins := packer.take(3):
            batch = collate(packer, bins, n_rows=3)
            mask = batch.mask()
            assert mask is not None
            branches = torch.zeros_like(batch.token_ids) if batch.branches is None else batch.branches
            assert batch.segments is not None
            for row, draws in enumerate(bins):
                for segment in range(1, len(draws) + 1):
                    here = batch.segments[row] == segment
                    for branch in range(1, int(branches[row][here].max()) + 1) or [0]:
                        own = here & ((branches[row] == 0) | (branches[row] == branch))
                        slots = own.nonzero()[:, 0].tolist()
                        seen.append(batch.token_ids[row][own].tolist())
                        assert batch.positions[row][own].tolist() == list(range(len(slots)))
                        last = slots[-1]
                        assert mask[row, 0, last].nonzero()[:, 0].tolist() == slots
        assert sorted(seen) == sorted(row.token_ids[:-1] for row in rows for _ in range(epochs))
