"""From rows to fixed shapes: the order of rows, packing them into bins, and the tensors of a batch.

Everything here is a function of the seed and of a small state, so training can go on exactly where it stopped, also
with another number of processes: all of them compute the same bins and take their own share.
"""

from __future__ import annotations

import bisect
import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nlpkit.core.errors import ConfigError
from nlpkit.core.train.data.store import NO_LABEL, RowSource, TextWindows, TokenStore

WINDOW_BINS = 128
"""Bins' worth of rows that are sorted by length together: enough for bins that are nearly full."""


@dataclass(frozen=True)
class Draw:
    """One row in the order of training.

    Attributes:
        source: Index of its source.
        index: Its index there.
        epoch: How often all of the source was seen before.
    """

    source: int
    index: int
    epoch: int


class RowOrder:
    """The endless order in which rows are drawn: every source shuffled anew in each of its epochs.

    Sources are interleaved so that their shares hold at every moment, without chance: by their weights, or by
    their numbers of rows.
    """

    def __init__(
        self, sources: Sequence[RowSource], *, weights: Sequence[float] | None, seed: int, shuffle: bool = True
    ) -> None:
        """Set up the order.

        Args:
            sources: The data.
            weights: Share of each source in the rows drawn, a tree being one; None takes each by its size.
            seed: Decides the order.
            shuffle: Whether to shuffle at all.

        Raises:
            ConfigError: The weights do not fit the sources.
        """
        if weights is not None and (len(weights) != len(sources) or not all(weight > 0 for weight in weights)):
            raise ConfigError(
                f"There are {len(sources)} data sources and the weights {list(weights)}: each source needs one above 0."
            )
        self._sources = sources
        shares = list(weights) if weights is not None else [source.n_rows for source in sources]
        self._shares = [share / sum(shares) for share in shares]
        self._seed = seed
        self._shuffle = shuffle
        self._orders: dict[tuple[int, int], npt.NDArray[np.int64]] = {}

    @property
    def rows_per_epoch(self) -> int:
        """Rows of all sources together."""
        return sum(source.n_rows for source in self._sources)

    def draw(self, drawn: list[int]) -> Draw:
        """Return the next row and count it in `drawn`, the rows taken from each source so far."""
        total = sum(drawn) + 1
        owed = [share * total - count for share, count in zip(self._shares, drawn, strict=True)]
        source = owed.index(max(owed))
        epoch, offset = divmod(drawn[source], self._sources[source].n_rows)
        drawn[source] += 1
        return Draw(source, int(self._order(source, epoch)[offset]) if self._shuffle else offset, epoch)

    def _order(self, source: int, epoch: int) -> npt.NDArray[np.int64]:
        key = (source, epoch)
        if key not in self._orders:
            self._orders = {k: v for k, v in self._orders.items() if k[0] != source}
            rng = np.random.default_rng((self._seed, source, epoch))
            self._orders[key] = rng.permutation(self._sources[source].n_rows)
        return self._orders[key]


@dataclass(kw_only=True)
class DataState:
    """Where in the data training is.

    Attributes:
        drawn: Rows drawn from each source before the current window.
        window: Windows before the current one.
        emitted: Bins of the current window that were used.
    """

    drawn: list[int]
    window: int = 0
    emitted: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {"drawn": list(self.drawn), "window": self.window, "emitted": self.emitted}


class Packer:
    """Packs drawn rows into bins of equal width.

    Rows are drawn a window at a time, sorted by length and put where they fit best (best-fit decreasing); then the
    bins of the window are shuffled.

    Attributes:
        sources: The data.
        seq_len: Slots of a bin.
        epochs: How many times as many rows it draws as there are; None never ends.
        state: Where it is; set it to go on from there.
    """

    def __init__(
        self,
        sources: Sequence[RowSource],
        *,
        seq_len: int,
        weights: Sequence[float] | None = None,
        seed: int = 0,
        shuffle: bool = True,
        epochs: float | None = None,
    ) -> None:
        """Set up the packer.

        Args:
            sources: The data.
            seq_len: Slots of a bin.
            weights: See `RowOrder`.
            seed: Decides the order.
            shuffle: Whether to shuffle.
            epochs: How many times as many rows to draw as there are; None never ends.
        """
        self.sources = sources
        self.seq_len = seq_len
        self._order = RowOrder(sources, weights=weights, seed=seed, shuffle=shuffle)
        self._seed, self._shuffle = seed, shuffle
        self.epochs = epochs
        self.state = DataState(drawn=[0] * len(sources))
        self._bins: list[list[Draw]] | None = None
        self._after: list[int] = []

    @property
    def single(self) -> bool:
        """Whether every bin is one whole row of its source, so that no mask is needed."""
        return all(isinstance(source, TextWindows) and source.slots(0) == self.seq_len for source in self.sources)

    @property
    def _limit(self) -> int | None:
        return None if self.epochs is None else max(1, round(self.epochs * self._order.rows_per_epoch))

    @property
    def epoch(self) -> float:
        """Rows drawn as a multiple of the rows there are."""
        drawn = float(sum(self.state.drawn))
        if self._bins:
            drawn += (sum(self._after) - drawn) * self.state.emitted / len(self._bins)
        return drawn / self._order.rows_per_epoch

    def restore(self, state: DataState) -> None:
        """Go on from a saved state."""
        self.state = DataState(drawn=list(state.drawn), window=state.window, emitted=state.emitted)
        self._bins = None

    def take(self, count: int) -> list[list[Draw]]:
        """Return the next `count` bins, fewer at the end of the data."""
        taken: list[list[Draw]] = []
        while len(taken) < count:
            if self._bins is None:
                self._bins, self._after = self._pack_window()
                if not self._bins:
                    break
            if self.state.emitted == len(self._bins):
                self.state = DataState(drawn=self._after, window=self.state.window + 1)
                self._bins = None
                continue
            step = self._bins[self.state.emitted : self.state.emitted + count - len(taken)]
            self.state.emitted += len(step)
            taken += step
        return taken

    def count(self, bins: Sequence[Sequence[Draw]]) -> tuple[int, int]:
        """Return the used slots and the labels with loss of some bins."""
        draws = [draw for one in bins for draw in one]
        slots = sum(self.sources[draw.source].slots(draw.index) for draw in draws)
        return slots, sum(self.sources[draw.source].targets(draw.index) for draw in draws)

    def rewound(self, epochs: float | None) -> Packer:
        """Return a packer of the same data at their start, perhaps of another length."""
        fresh = copy.copy(self)
        fresh.epochs = epochs
        fresh.restore(DataState(drawn=[0] * len(self.sources)))
        return fresh

    def count_bins(self) -> int:
        """Return how many bins there are from the start to the end of the data."""
        if self._limit is None:
            raise ConfigError("The data have no end; count steps instead.")
        fresh = self.rewound(self.epochs)
        total = 0
        while taken := len(fresh.take(4096)):
            total += taken
        return total

    def _pack_window(self) -> tuple[list[list[Draw]], list[int]]:
        drawn = list(self.state.drawn)
        rows: list[tuple[int, Draw]] = []
        filled = 0
        limit = self._limit
        while filled < WINDOW_BINS * self.seq_len and (limit is None or sum(drawn) < limit):
            draw = self._order.draw(drawn)
            size = self.sources[draw.source].slots(draw.index)
            rows.append((size, draw))
            filled += size
            if sum(drawn) % self._order.rows_per_epoch == 0:
                # No window reaches into the next epoch: the same row would be near itself.
                break
        bins = best_fit([size for size, _ in rows], self.seq_len)
        if self._shuffle:
            order = np.random.default_rng((self._seed, 1 << 20, self.state.window)).permutation(len(bins))
            bins = [bins[i] for i in order]
        return [[rows[i][1] for i in one] for one in bins], drawn


def best_fit(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Pack items by best-fit decreasing (Johnson 1973), which wastes little and is fast.

    Args:
        sizes: The items' sizes, each at most `capacity`.
        capacity: Size of a bin.

    Returns:
        Indices of the items of each bin.

    Raises:
        ConfigError: An item is larger than a bin.
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []
    for item in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        size = sizes[item]
        if size > capacity:
            raise ConfigError(f"A row takes {size} slots, a bin has {capacity}.")
        at = bisect.bisect_left(room, (size, -1))
        if at < len(room):
            left, target = room.pop(at)
        else:
            left, target = capacity, len(bins)
            bins.append([])
        bins[target].append(item)
        if left > size:
            bisect.insort(room, (left - size, target))
    return bins


@dataclass(frozen=True)
class Batch:
    """A micro-batch of packed rows.

    Attributes:
        token_ids: Shape ``(batch, seq)``.
        labels: The token after each, or -1 where there is no loss; same shape.
        positions: Positions, counted from 0 in each packed row; same shape.
        segments: Number of the packed row from 1, 0 for padding; same shape. None where every row is one segment.
        branches: Rows that share their beginning: 0 in it, else which of them; same shape. None where there are none.
        weights: Weight of each label's loss; same shape. None where all count alike.
        labelled: Numbers of the slots with a label, counted row by row, shape ``(labels,)``; known here so that no
            device has to be asked.
    """

    token_ids: Tensor
    labels: Tensor
    positions: Tensor
    segments: Tensor | None
    branches: Tensor | None = None
    weights: Tensor | None = None
    labelled: Tensor | None = None

    def pinned(self) -> Batch:
        """Return the batch in memory that a GPU copies from without making the host wait."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        names = (item.name for item in dataclasses.fields(self))
        changed = {name: change(part) for name in names if (part := getattr(self, name)) is not None}
        return dataclasses.replace(self, **changed)

    def mask(self) -> Tensor | None:
        """Return the block-diagonal causal mask, shape ``(batch, 1, seq, seq)``, or None where plain causal does."""
        if self.segments is None:
            return None
        seq = self.segments.shape[1]
        same = self.segments[:, None, :, None] == self.segments[:, None, None, :]
        causal = torch.ones(seq, seq, dtype=torch.bool, device=same.device).tril()
        if self.branches is not None:
            queries, keys = self.branches[:, None, :, None], self.branches[:, None, None, :]
            same = same & ((keys == 0) | (keys == queries))
        return same & causal

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return self._each(lambda part: part.to(device, non_blocking=True))

    def with_prompt_loss(self, weight: float) -> Batch:
        """Return the batch with labels on prompt tokens too, whose loss counts `weight` times as much."""
        following, after = torch.full_like(self.labels, NO_LABEL), self.positions[:, 1:] == self.positions[:, :-1] + 1
        for numbers in (self.segments, self.branches):
            if numbers is not None:
                after = after & (numbers[:, 1:] == numbers[:, :-1])
        if self.segments is not None:
            after = after & (self.segments[:, 1:] > 0)
        following[:, :-1] = torch.where(after, self.token_ids[:, 1:], NO_LABEL)
        prompt = self.labels < 0
        labels = torch.where(prompt, following, self.labels)
        weights = torch.where(prompt, weight, 1.0)
        return dataclasses.replace(self, labels=labels, weights=weights, labelled=_labelled(labels))


def collate(packer: Packer, bins: Sequence[Sequence[Draw]], *, n_rows: int) -> Batch:
    """Build the tensors of some bins.

    Args:
        packer: Where the bins come from.
        bins: At most `n_rows` bins.
        n_rows: Rows of the batch: what is missing is padding, so that the shape never changes.

    Returns:
        The batch.
    """
    shape = (n_rows, packer.seq_len)
    ids = np.zeros(shape, np.int64)
    labels = np.full(shape, NO_LABEL, np.int64)
    positions = np.zeros(shape, np.int64)
    segments = np.zeros(shape, np.int32)
    branches = np.zeros(shape, np.int32)
    stores = [source if isinstance(source, TokenStore) else None for source in packer.sources]
    if None not in stores and bins:
        _fill(packer, bins, ids, labels, positions, segments)
    else:
        for row, draws in enumerate(bins):
            at = 0
            for number, draw in enumerate(draws, 1):
                layout = packer.sources[draw.source].layout(draw.index, draw.epoch)
                here = slice(at, at + len(layout.inputs))
                ids[row, here], labels[row, here] = layout.inputs, layout.labels
                positions[row, here], branches[row, here] = layout.positions, layout.branches
                segments[row, here] = number
                at += len(layout.inputs)
    made = torch.from_numpy(labels)
    return Batch(
        torch.from_numpy(ids),
        made,
        torch.from_numpy(positions),
        None if packer.single else torch.from_numpy(segments),
        torch.from_numpy(branches) if branches.any() else None,
        labelled=_labelled(made),
    )


def _labelled(labels: Tensor) -> Tensor:
    return (labels.flatten() >= 0).nonzero()[:, 0]


def _fill(
    packer: Packer,
    bins: Sequence[Sequence[Draw]],
    ids: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    positions: npt.NDArray[np.int64],
    segments: npt.NDArray[np.int32],
) -> None:
    """Do for stores of rows, all rows at once, what their layouts say one by one."""
    which = np.array([draw.source for draws in bins for draw in draws])
    index = np.array([draw.index for draws in bins for draw in draws])
    rows = np.repeat(np.arange(len(bins)), [len(draws) for draws in bins])
    number = np.concatenate([np.arange(1, len(draws) + 1) for draws in bins])
    start, slots, prompt = (np.zeros(len(index), np.int64) for _ in range(3))
    for source in np.unique(which):
        mine = which == source
        facts = cast("TokenStore", packer.sources[source]).facts(index[mine])
        start[mine], slots[mine], prompt[mine] = facts[0], facts[1] - 1, np.maximum(facts[2], 1)
    # Where in its bin each row begins: the slots before it, less those of earlier bins.
    before = np.cumsum(slots) - slots
    first = np.searchsorted(rows, rows)
    place = rows * ids.shape[1] + before - before[first]
    within = np.arange(slots.sum()) - np.repeat(before, slots)
    slot = np.repeat(place, slots) + within
    tokens, following = np.empty(len(slot), np.int64), np.empty(len(slot), np.int64)
    of_slot = np.repeat(which, slots)
    at = np.repeat(start, slots) + within
    for source in np.unique(which):
        mine = of_slot == source
        stored = cast("TokenStore", packer.sources[source]).all_tokens
        tokens[mine], following[mine] = stored[at[mine]], stored[at[mine] + 1]
    ids.flat[slot] = tokens
    positions.flat[slot] = within
    segments.flat[slot] = np.repeat(number, slots)
    learned = within >= np.repeat(prompt, slots) - 1
    labels.flat[slot[learned]] = following[learned]


def batches(packer: Packer, *, batch_size: int) -> Iterator[Batch]:
    """Yield all batches of a packer that ends, for evaluation."""
    while bins := packer.take(batch_size):
        yield collate(packer, bins, n_rows=batch_size)
