"""Beams: the live texts of a search, how those that ended are ranked, and when no live one can be among them."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nlpkit.core.decode.hypothesis import Hypothesis


@dataclass(frozen=True)
class Ended:
    """A hypothesis that grows no more, and its rank.

    One that keeps its conditions comes before any that does not, then one that ended before any that was cut.

    Attributes:
        keeps_conditions: As the hypothesis.
        ended: Whether it ended, by an end token or a stop string.
        score: Its score.
        order: Minus the number of those that ended before it: the earlier one of equals is the better.
        hypothesis: The hypothesis.
    """

    keeps_conditions: bool
    ended: bool
    score: float
    order: int
    hypothesis: Hypothesis

    @property
    def rank(self) -> tuple[bool, bool, float, int]:
        """What results are sorted by; more is better."""
        return self.keeps_conditions, self.ended, self.score, self.order

    def __lt__(self, other: Ended) -> bool:
        return self.rank < other.rank


@dataclass
class Beam:
    """The hypotheses of one search, or of one group of a diverse one.

    Attributes:
        k: Most live ones, and most ended ones.
        length_penalty: For scores.
        max_tokens: Longest text.
        live: Those still growing, best first.
        ended: The best of those that ended, worst first (a heap).
        surplus: Those that ended and are not among the best.
    """

    k: int
    length_penalty: float
    max_tokens: int
    live: list[Hypothesis]
    ended: list[Ended] = field(default_factory=list)
    surplus: list[Ended] = field(default_factory=list)
    _count: int = 0

    def finish(self, hypothesis: Hypothesis) -> None:
        """Add an ended hypothesis, keeping the k best."""
        self._count += 1
        result = Ended(
            hypothesis.keeps_conditions,
            hypothesis.finish_reason != "length",
            hypothesis.score(self.length_penalty),
            -self._count,
            hypothesis,
        )
        if len(self.ended) < self.k:
            heapq.heappush(self.ended, result)
        else:
            self.surplus.append(heapq.heappushpop(self.ended, result))

    @property
    def done(self) -> bool:
        """Whether no live hypothesis can be among the k best any more."""
        if not self.live:
            return True
        if len(self.ended) < self.k:
            return False
        # At best it ends without losing anything more: at the limit where length is favoured, else with its next token.
        length = self.max_tokens if self.length_penalty > 0 else len(self.live[0].token_ids) + 1
        bound = max(hypothesis.total for hypothesis in self.live) / float(max(1, length) ** self.length_penalty)
        return (True, True, bound) <= self.ended[0].rank[:3]


def best_of(beams: Sequence[Beam], n: int) -> list[Ended]:
    """Choose the results of a search.

    Every beam gives its best before any gives its second best, so that diverse groups are all heard. Of several
    hypotheses with the same text, however it is spelled in tokens, the best alone counts; the next best take the
    places of the others.

    Args:
        beams: The groups.
        n: Results wanted.

    Returns:
        At most `n` results, best first; fewer only where no more texts were found.
    """
    order = _in_turn([sorted(beam.ended, reverse=True) for beam in beams])
    if n > 1:
        order += _in_turn([sorted(beam.surplus, reverse=True) for beam in beams])
    chosen: dict[str | int, Ended] = {}
    for result in order:
        if len(chosen) == n:
            break
        chosen.setdefault(text_of(result.hypothesis) if n > 1 else len(chosen), result)
    return sorted(chosen.values(), reverse=True)


def text_of(hypothesis: Hypothesis) -> str:
    """Return a text as it is told from others: white space around it does not count."""
    return hypothesis.completion().text.strip()


def _in_turn(columns: Sequence[Sequence[Ended]]) -> list[Ended]:
    return [result for turn in _turns(columns) for result in sorted(turn, reverse=True)]


def _turns(columns: Sequence[Sequence[Ended]]) -> list[list[Ended]]:
    longest = max(map(len, columns), default=0)
    return [[column[turn] for column in columns if turn < len(column)] for turn in range(longest)]
