"""Where the hypotheses of beam searches lie in the cache, and what it takes to let one go on in several ways."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from nlpkit.core.decode.slots import place

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nlpkit.core.decode.runner import Runner


@dataclass(frozen=True)
class Entry:
    """A search that begins.

    Attributes:
        key: Names it.
        prompt_ids: Its prompt.
        size: Most hypotheses that it will have.
        n_slots: Most tokens of prompt and text.
    """

    key: int
    prompt_ids: Sequence[int]
    size: int
    n_slots: int


@dataclass(frozen=True)
class Move:
    """One step of a search.

    Attributes:
        key: Names the search.
        parents: For each hypothesis the place of the one that it goes on from, among those before the step.
        tokens: For each its new token.
        length: Tokens of prompt and text before it.
    """

    key: int
    parents: Sequence[int]
    tokens: Sequence[int]
    length: int


class Forks(Protocol):
    """Computes the hypotheses of any number of searches."""

    def enter(self, entries: Sequence[Entry]) -> Tensor:
        """Compute the prompts of new searches; return fp32 logits, shape ``(entries, vocab_size)``."""
        ...

    def step(self, moves: Sequence[Move]) -> Tensor:
        """Let all searches that have entered and not left take a step.

        Returns:
            fp32 logits, one row for each hypothesis in the order of the moves, shape ``(hypotheses, vocab_size)``.
        """
        ...

    def leave(self, key: int) -> None:
        """Forget a search."""
        ...


@runtime_checkable
class SharesRows(Protocol):
    """What a runner has whose sequences may go on from what lies in rows of others."""

    @property
    def can_share(self) -> bool:
        """Whether `extend_rows` can be used."""
        ...

    def reserve(self, n_rows: int, n_slots: int = 0) -> None:
        """Make room; see `Runner.reserve`."""
        ...

    def extend_rows(
        self,
        rows: Sequence[int],
        tokens: Sequence[Sequence[int]],
        lengths: Sequence[int],
        *,
        homes: Tensor | None = None,
    ) -> Tensor:
        """Append tokens to rows, as `Runner.extend` does to consecutive ones.

        Args:
            rows: Where the new tokens go, one row for each sequence.
            tokens: For each, one or more ids; exactly one where there are `homes`.
            lengths: For each, its length before.
            homes: int32, shape ``(sequences, longest + 1)``: the row in which each position of a sequence lies, its
                new token included; None where each lies in its own row.

        Returns:
            fp32 logits after each sequence's last token, shape ``(sequences, vocab_size)``.
        """
        ...


def new_forks(runner: Runner) -> Forks:
    """Return the cheapest way to fork that a runner has; its cache must be empty."""
    if isinstance(runner, SharesRows) and runner.can_share:
        return SharedRows(runner)
    return CopiedRows(runner)


class CopiedRows:
    """Each hypothesis is a whole row, copied where it goes on in several ways."""

    def __init__(self, runner: Runner) -> None:
        """Fork by copies in the rows of a runner."""
        self._runner = runner
        self._rows: dict[int, list[int]] = {}

    def enter(self, entries: Sequence[Entry]) -> Tensor:
        """Compute prompts; see `Forks.enter`."""
        first = max((row + 1 for rows in self._rows.values() for row in rows), default=0)
        self._runner.reserve(first + len(entries), max(entry.n_slots for entry in entries))
        logits = self._runner.extend(first, [entry.prompt_ids for entry in entries], [0] * len(entries))
        for row, entry in enumerate(entries, first):
            self._rows[entry.key] = [row] * entry.size
        return logits

    def step(self, moves: Sequence[Move]) -> Tensor:
        """Take a step; see `Forks.step`."""
        sources = [self._rows[move.key][parent] for move in moves for parent in move.parents]
        tokens = [token for move in moves for token in move.tokens]
        lengths = [move.length for move in moves for _ in move.tokens]
        # As few rows as possible change their place.
        targets = place(sources, 0)
        self._runner.reserve(len(targets))
        order = sorted(range(len(targets)), key=targets.__getitem__)
        by_row = [sources[i] for i in order]
        if by_row != list(range(len(by_row))):
            self._runner.reorder(0, by_row, max(lengths))
        logits = self._runner.extend(0, [[tokens[i]] for i in order], [lengths[i] for i in order])
        first = 0
        for move in moves:
            self._rows[move.key] = targets[first : first + len(move.tokens)]
            first += len(move.tokens)
        return logits if order == list(range(len(order))) else logits[torch.tensor(targets, device=logits.device)]

    def leave(self, key: int) -> None:
        """Forget a search; see `Forks.leave`."""
        del self._rows[key]


class SharedRows:
    """A hypothesis is a list that says in which row each of its positions lies: nothing is ever copied.

    Each search has as many rows as it may have hypotheses. At each step the new token of its i-th hypothesis goes to
    its i-th row, where no token of that position has been before; what came earlier stays where it is, for all
    hypotheses that go on from it. The prompt lies in the first row.
    """

    def __init__(self, runner: SharesRows) -> None:
        """Share rows of a runner."""
        self._runner = runner
        self._rows: dict[int, list[int]] = {}
        self._free: list[int] = []
        self._homes: NDArray[np.int32] = np.zeros((0, 0), dtype=np.int32)

    def enter(self, entries: Sequence[Entry]) -> Tensor:
        """Compute prompts; see `Forks.enter`."""
        self._make_room(sum(entry.size for entry in entries), max(entry.n_slots for entry in entries))
        for entry in entries:
            rows = self._rows[entry.key] = [heapq.heappop(self._free) for _ in range(entry.size)]
            self._homes[rows, : len(entry.prompt_ids)] = rows[0]
        firsts = [self._rows[entry.key][0] for entry in entries]
        return self._runner.extend_rows(firsts, [entry.prompt_ids for entry in entries], [0] * len(entries))

    def step(self, moves: Sequence[Move]) -> Tensor:
        """Take a step; see `Forks.step`."""
        targets: list[int] = []
        sources: list[int] = []
        for move in moves:
            rows = self._rows[move.key]
            targets += rows[: len(move.parents)]
            sources += [rows[parent] for parent in move.parents]
        lengths = [move.length for move in moves for _ in move.tokens]
        width = max(lengths) + 1
        homes = self._homes[sources, :width]
        homes[np.arange(len(targets)), lengths] = targets
        self._homes[targets, :width] = homes
        tokens = [[token] for move in moves for token in move.tokens]
        return self._runner.extend_rows(targets, tokens, lengths, homes=torch.from_numpy(homes))

    def leave(self, key: int) -> None:
        """Forget a search; see `Forks.leave`."""
        for row in self._rows.pop(key):
            heapq.heappush(self._free, row)

    def _make_room(self, n_rows: int, n_slots: int) -> None:
        known, width = self._homes.shape
        missing = max(0, n_rows - len(self._free))
        if missing or n_slots > width:
            grown = np.zeros((known + missing, max(n_slots, width)), dtype=np.int32)
            grown[:known, :width] = self._homes
            self._homes = grown
            for row in range(known, known + missing):
                heapq.heappush(self._free, row)
            self._runner.reserve(*grown.shape)
