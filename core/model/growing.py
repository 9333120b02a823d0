"""Rows of a cache that grow where rotations depend on a sequence's length (LongRoPE, dynamic scaling).

Their keys and values hold for one length only, so what a row holds is remembered with it: its tokens and the length
that they were computed for. Three rules give each row what it would get alone, whatever the passes are:

- A prompt is computed for its whole length: tokens of which no logits are wanted wait for the rest.
- LongRoPE has two sets of frequencies. A row that crosses the border between them is computed anew, as Phi-3 does in
  ``transformers``.
- Dynamic scaling changes with every token. What follows a prompt keeps the keys that there are, and each new token has
  the frequencies of the length that it ends, as ``transformers`` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nlpkit.core.model.config import ModelConfig

_MIXED = -1
"""Stands for the lengths of a row whose keys were computed for different ones."""


@dataclass
class Grown:
    """What one row of a cache holds.

    Attributes:
        ids: Its tokens.
        computed: How many of them have keys and values; the others wait.
        regime: The lengths that those were computed for; see `Growth.regime`.
        answered: Logits were taken behind the last of them: what follows is no longer the prompt.
        copied: It has just been taken from another row.
    """

    ids: list[int] = field(default_factory=list)
    computed: int = 0
    regime: int = 0
    answered: bool = False
    copied: bool = False

    def cut(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        if length > len(self.ids):
            raise RuntimeError(f"a row of {len(self.ids)} tokens cannot go on from token {length}")
        if length < len(self.ids):
            del self.ids[length:]
        self.computed = min(self.computed, length)
        self.answered = self.answered and self.computed == length > 0


@dataclass(frozen=True)
class GrowingSpan:
    """Tokens of one row to compute together.

    Attributes:
        first: Position of the first.
        stop: One more than the position of the last.
        lengths: For each, the length of the sequence that it is computed for.
    """

    first: int
    stop: int
    lengths: range | list[int]


@dataclass(frozen=True)
class Held:
    """What a segment of keys and values holds.

    Attributes:
        ids: The tokens.
        regime: What they were computed for; None where some were not.
    """

    ids: tuple[int, ...]
    regime: int | None


class Growth:
    """The rows of one cache."""

    def __init__(self, config: ModelConfig) -> None:
        """Begin without rows.

        Args:
            config: Shape of a model that depends on lengths.
        """
        ropes = [rope for rope in (config.rope, config.rope_local) if rope is not None]
        borders = {rope.scaling: rope.length_border(config.max_seq_len) for rope in ropes}
        self._long = borders.get("longrope")
        self._dynamic = borders.get("dynamic")
        self.rows: dict[int, Grown] = {}

    def regime(self, length: int) -> int:
        """Return a number that is the same for lengths with the same frequencies; 0 for those up to each border."""
        dynamic = length if self._dynamic is not None and length > self._dynamic else 0
        return 2 * dynamic + (self._long is not None and length > self._long)

    def append(self, row: int, start: int, ids: Sequence[int], *, wanted: bool) -> list[GrowingSpan]:
        """Let a row grow.

        Args:
            row: The row.
            start: How many of its tokens stay.
            ids: The new ones.
            wanted: Whether anything is wanted of them at once.

        Returns:
            What to compute, in order; the caller does so. The spans hold the new tokens and whatever has to be
            computed before, or nothing where nothing is wanted.
        """
        grown = self.rows.setdefault(row, Grown())
        grown.cut(start)
        # A step behind a prompt adds one token, or guesses; behind a copied beginning, several are more of a prompt.
        step = grown.answered and not (grown.copied and len(ids) > 1)
        grown.ids += ids
        grown.copied = False
        if not wanted:
            grown.answered = False
            return []
        stop = len(grown.ids)
        spans: list[GrowingSpan] = []
        ends = [stop]
        if step and self._long is not None and start < self._long < stop:
            ends = [self._long, stop]
        for end in ends:
            regime = self.regime(end)
            mixed = step and self._dynamic is not None and end > self._dynamic
            if mixed and (regime ^ grown.regime) & 1 == 0:
                first, regime = grown.computed, 2 * _MIXED + (regime & 1)
            else:
                first = grown.computed if grown.regime == regime else 0
            lengths = range(first + 1, end + 1) if mixed and first else [end] * (end - first)
            spans.append(GrowingSpan(first, end, lengths))
            grown.computed, grown.regime = end, regime
        grown.answered = True
        return spans

    def copy(self, moves: Sequence[tuple[int, int]], length: int, *, mark: bool) -> None:
        """Let rows take the first tokens of others, all at once.

        Args:
            moves: Sources and targets.
            length: How many tokens, at most.
            mark: Whether the copies may go on as another prompt.
        """
        taken = {}
        for source, target in moves:
            old = self.rows.get(source, Grown())
            new = Grown(old.ids[:length], min(old.computed, length), old.regime)
            new.answered = old.answered and new.computed == old.computed
            new.copied = mark or old.copied
            taken[target] = new
        self.rows.update(taken)

    def read(self, row: int, start: int, stop: int) -> Held:
        """Return what a row holds of its tokens ``start .. stop - 1``."""
        grown = self.rows.get(row, Grown())
        return Held(tuple(grown.ids[start:stop]), grown.regime if grown.computed >= stop else None)

    def write(self, row: int, start: int, held: Held) -> None:
        """Let a row hold tokens of another, whose keys and values are there already, from position `start` on."""
        grown = self.rows.setdefault(row, Grown())
        answered = grown.answered and grown.computed >= start > 0
        grown.cut(start)
        usable = grown.computed == start and (start == 0 or grown.regime == held.regime)
        grown.ids += held.ids
        if usable and held.regime is not None:
            grown.computed, grown.regime, grown.answered = len(grown.ids), held.regime, answered
