"""Rows that begin alike, learned together: their common beginning goes through the model once.

Several questions about one text, or several targets of one prompt, differ at the end only. Laid out as a tree, one
beginning and then a branch for each row, with branches that do not see each other, they give the same loss and the same
gradients as apart, in fewer slots.
"""

from __future__ import annotations

import hashlib
from array import array

import numpy as np
import numpy.typing as npt

from nlpkit.core.train.data.store import TokenLayout, TokenStore, single_layout

SHORTEST = 16
"""Tokens that rows must have in common to be laid out together."""


def _common(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> int:
    size = min(len(a), len(b))
    differing = np.flatnonzero(a[:size] != b[:size])
    return int(differing[0]) if len(differing) else size


class SharedPrefixRows:
    """The rows of a store, neighbours that share at least half of their tokens joined to trees of at most `seq_len`.

    Attributes:
        saved: Share of the store's slots that the trees save.
    """

    def __init__(self, store: TokenStore, seq_len: int) -> None:
        """Find the neighbours that belong together.

        Args:
            store: Rows with prompts.
            seq_len: Slots that a tree may take.
        """
        self._store = store
        # Flat: tuples of numbers would take ten times the memory.
        groups = array("q")
        apart = together = 0
        start = 0
        while start < store.n_rows:
            first, first_prompt = store.row(start, 0)
            prefix, end = first_prompt - 1, start + 1
            slots, targets = len(first) - 1, store.targets(start)
            longest = len(first)
            apart += slots
            while end < store.n_rows and prefix >= SHORTEST:
                tokens, prompt = store.row(end, 0)
                # The slot before a branch predicts the branch's first token, so that token must carry no loss.
                common = min(prefix, prompt - 1, _common(first, tokens))
                longest = max(longest, len(tokens))
                grown = slots + (prefix - common) * (end - start - 1) + len(tokens) - 1 - common
                if common < SHORTEST or 2 * common < longest or grown > seq_len:
                    break
                apart += len(tokens) - 1
                prefix, slots, targets = common, grown, targets + store.targets(end)
                end += 1
            groups.extend((start, end - start, prefix if end - start > 1 else 0, slots, targets))
            together += slots
            start = end
        self._groups = np.frombuffer(groups, np.int64).reshape(-1, 5)
        self.saved = 1 - together / max(1, apart)

    @property
    def n_rows(self) -> int:
        """Number of trees, single rows included."""
        return len(self._groups)

    @property
    def layout_key(self) -> str:
        """Name the way the rows are joined."""
        return f"trees {hashlib.sha256(self._groups.tobytes()).hexdigest()[:16]}"

    def slots(self, index: int) -> int:
        """Return the slots that a tree takes."""
        return int(self._groups[index, 3])

    def targets(self, index: int) -> int:
        """Return the number of labels that carry loss."""
        return int(self._groups[index, 4])

    def layout(self, index: int, epoch: int) -> TokenLayout:
        """Lay out a tree."""
        start, count, prefix, slots, _ = (int(value) for value in self._groups[index])
        if count == 1:
            return single_layout(*self._store.row(start, epoch))
        inputs, labels = np.zeros(slots, np.int64), np.full(slots, -1, np.int64)
        positions, branches = np.zeros(slots, np.int64), np.zeros(slots, np.int32)
        at = prefix
        for number in range(count):
            whole = single_layout(*self._store.row(start + number, epoch))
            if number == 0:
                inputs[:prefix], positions[:prefix] = whole.inputs[:prefix], whole.positions[:prefix]
            size = len(whole.inputs) - prefix
            here = slice(at, at + size)
            inputs[here], labels[here] = whole.inputs[prefix:], whole.labels[prefix:]
            positions[here], branches[here] = whole.positions[prefix:], number + 1
            at += size
        return TokenLayout(inputs, labels, positions, branches)
