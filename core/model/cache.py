"""The KV cache: keys and values of every layer, row and slot.

A row's tokens sit at slots ``0 .. length - 1``, each written at its own position. How many slots of a row are valid
is the caller's knowledge, one integer a row; the mask ``key_slot <= query_position`` hides the rest. So rows of
unequal length live side by side, a freed row is reused as it is, and stale slots need no clearing.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nlpkit.core.model.config import ModelConfig
from nlpkit.core.model.growing import Growth, Held

SLOT_STEP = 64
FEWEST_ROWS = 64
"""Rows that there is room for on the CPU as soon as there are any."""
MOST_SPARE_BYTES = 512 << 20
"""Address space of keys, and of values, up to which there is room for rows that are not in use."""


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return zeros that take memory only as they are written, where the device is the CPU."""
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or not size:
        return torch.zeros(shape, dtype=dtype, device=device)
    memory = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        # A row's slots lie far apart: of a huge page of 2 MiB, a short row would use a few kilobytes.
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(shape)


@dataclass(frozen=True)
class KVSegment:
    """Keys and values of consecutive tokens of one sequence, apart from any cache.

    Attributes:
        keys: Shape ``(layer, kv_head, token, head_dim)``.
        values: Same shape.
        held: Its tokens, where the model depends on the length of sequences; else None.
    """

    keys: Tensor
    values: Tensor
    held: Held | None = None

    @property
    def n_tokens(self) -> int:
        """Number of tokens."""
        return self.keys.shape[2]

    def part(self, start: int, stop: int) -> KVSegment:
        """Return tokens ``start .. stop - 1`` as a view."""
        held = None if self.held is None else Held(self.held.ids[start:stop], self.held.regime)
        return KVSegment(self.keys[:, :, start:stop], self.values[:, :, start:stop], held)

    def clone(self) -> KVSegment:
        """Return a copy with memory of its own."""
        dense = torch.contiguous_format
        return KVSegment(self.keys.clone(memory_format=dense), self.values.clone(memory_format=dense), self.held)


class KVCache:
    """Preallocated keys and values, shape ``(layer, row, kv_head, slot, head_dim)`` each.

    Slots grow on demand in steps, so that short answers never pay for a long context. On the CPU, where memory counts
    only once it is written, there is room for more rows than are in use, so that rows rarely have to be moved.

    Attributes:
        keys: All keys.
        values: All values.
        n_rows: Number of rows in use; `keys` and `values` may have room for more.
        growth: What the rows hold, where the model depends on the length of sequences; else None.
    """

    def __init__(self, config: ModelConfig, *, n_rows: int, dtype: torch.dtype, device: torch.device) -> None:
        self.n_rows = n_rows
        shape = (config.n_layers, n_rows, config.n_kv_heads, 0, config.head_dim)
        self.keys = _zeros(shape, dtype, device)
        self.values = _zeros(shape, dtype, device)
        self.growth = Growth(config) if config.depends_on_length else None

    @property
    def n_slots(self) -> int:
        """Slots allocated per row."""
        return self.keys.shape[3]

    def _room(self, n_rows: int, n_slots: int) -> int:
        """Return for how many rows to make room where `n_rows` are in use, of `n_slots` slots each."""
        n_layers, _, n_kv_heads, _, head_dim = self.keys.shape
        row_bytes = n_layers * n_kv_heads * max(1, n_slots) * head_dim * self.keys.dtype.itemsize
        wanted = max(2 * n_rows, FEWEST_ROWS) if self.keys.device.type == "cpu" and n_rows else n_rows
        return max(n_rows, min(wanted, MOST_SPARE_BYTES // row_bytes))

    def reserve(self, n_slots: int) -> None:
        """Make room for at least `n_slots` slots per row, keeping what is there."""
        if n_slots <= self.n_slots:
            return
        # Zeros, not empty memory: a masked slot has weight 0, and 0 * NaN would still be NaN.
        n_slots = max(-(-n_slots // SLOT_STEP) * SLOT_STEP, self.n_slots + self.n_slots // 2)
        for name in ("keys", "values"):
            old: Tensor = getattr(self, name)
            shape = (old.shape[0], self._room(self.n_rows, n_slots), old.shape[2], n_slots, old.shape[4])
            new = _zeros(shape, old.dtype, old.device)
            new[:, : self.n_rows, :, : old.shape[3]] = old[:, : self.n_rows]
            setattr(self, name, new)

    def reserve_rows(self, n_rows: int) -> None:
        """Make room for at least `n_rows` rows, keeping what is there."""
        if n_rows <= self.n_rows:
            return
        used, self.n_rows = self.n_rows, n_rows
        if n_rows <= self.keys.shape[1]:
            return
        n_rows = self._room(n_rows, self.n_slots)
        for name in ("keys", "values"):
            old: Tensor = getattr(self, name)
            new = _zeros((old.shape[0], n_rows, *old.shape[2:]), old.dtype, old.device)
            new[:, :used] = old[:, :used]
            setattr(self, name, new)

    def rows(self, start: int, count: int, *, n_slots: int, lengths: Tensor | None = None) -> CacheRows:
        """Return a window on rows ``start .. start + count - 1`` and their first `n_slots` slots; see `CacheRows`."""
        self.reserve(n_slots)
        return CacheRows(self, start, count, n_slots, lengths)

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` slots of one row to another."""
        if source != target:
            self.keys[:, target, :, :length] = self.keys[:, source, :, :length]
            self.values[:, target, :, :length] = self.values[:, source, :, :length]
            if self.growth is not None:
                self.growth.copy([(source, target)], length, mark=True)

    def read(self, row: int, start: int, stop: int) -> KVSegment:
        """Return a copy of slots ``start .. stop - 1`` of one row."""
        held = None if self.growth is None else self.growth.read(row, start, stop)
        return KVSegment(self.keys[:, row, :, start:stop], self.values[:, row, :, start:stop], held).clone()

    def write(self, row: int, start: int, segment: KVSegment) -> None:
        """Put a segment into one row, from slot `start` on.

        Raises:
            RuntimeError: The model depends on the length of sequences, and the segment does not say what it holds.
        """
        if self.growth is not None:
            if segment.held is None:
                raise RuntimeError("keys and values of unknown tokens cannot be used where they depend on the length")
            self.growth.write(row, start, segment.held)
        stop = start + segment.n_tokens
        self.reserve(stop)
        self.keys[:, row, :, start:stop] = segment.keys
        self.values[:, row, :, start:stop] = segment.values

    def reorder(self, start: int, sources: Sequence[int], length: int) -> None:
        """Let rows ``start ..`` take the first `length` slots of rows `sources`, all at once (beam search)."""
        moved = [(source, target) for target, source in enumerate(sources, start) if source != target]
        if not moved:
            return
        index, targets = torch.tensor(moved, device=self.keys.device).unbind(1)
        for held in (self.keys, self.values):
            held[:, targets, :, :length] = held[:, index, :, :length]
        if self.growth is not None:
            self.growth.copy(moved, length, mark=False)


@dataclass(frozen=True)
class CacheRows:
    """The rows and slots of a cache that one forward pass reads and writes.

    Attributes:
        cache: The cache.
        start: First row.
        count: Number of rows.
        n_slots: Slots of each row that the pass sees, from the first.
        lengths: Where the model depends on the length of sequences, that of each new token's, shape ``(rows, seq)``.
    """

    cache: KVCache
    start: int
    count: int
    n_slots: int
    lengths: Tensor | None = None

    def update(self, layer: int, positions: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write new keys and values at their positions; return all that the rows hold so far.

        Args:
            layer: Index of the layer.
            positions: Slots to write, shape ``(rows, seq)``; equal to the tokens' positions.
            keys: Shape ``(rows, n_kv_heads, seq, head_dim)``.
            values: Same shape.

        Returns:
            Keys and values of shape ``(rows, n_kv_heads, n_slots, head_dim)``, views of the cache.
        """
        window = slice(self.start, self.start + self.count)
        k, v = self.cache.keys[layer, window], self.cache.values[layer, window]
        if self.count == 1 and positions.shape[1] == 1:
            slot = int(positions)
            k[:, :, slot : slot + 1] = keys
            v[:, :, slot : slot + 1] = values
        else:
            rows = torch.arange(self.count, device=positions.device)[:, None]
            k[rows, :, positions] = keys.transpose(1, 2)
            v[rows, :, positions] = values.transpose(1, 2)
        return k[:, :, : self.n_slots], v[:, :, : self.n_slots]
