"""Hypotheses of beam search: how they are ranked, and when a beam is done."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from nlpkit.core.decode.guide import Guide
from nlpkit.core.decode.lexical import Progress
from nlpkit.core.decode.request import FinishReason


@dataclass(frozen=True)
class Hypothesis:
    """One candidate text.

    Attributes:
        token_ids: Generated ids.
        logprobs: Raw log-probability of each, in nats.
        total: Summed log-probability under the processed distribution, by which beams are ranked.
        finish_reason: Why it ended, or None while alive.
        guide: How far it has come in its constraint, or None without one.
        progress: How far it has come with the phrases that it must include, or None without any.
    """

    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    total: float = 0.0
    finish_reason: FinishReason | None = None
    guide: Guide | None = field(default=None, compare=False)
    progress: Progress | None = None

    @property
    def keeps_conditions(self) -> bool:
        """Whether it satisfies its constraint (which then let it end) and includes what it must."""
        whole = self.guide is None or self.finish_reason == "eos"
        return whole and (self.progress is None or not self.progress.remaining)

    def score(self, length_penalty: float) -> float:
        """Return ``total / length ** length_penalty``."""
        return self.total / float(max(1, len(self.token_ids)) ** length_penalty)


@dataclass(frozen=True)
class Result:
    """An ended hypothesis and its rank: one that keeps its conditions comes before any that does not.

    Attributes:
        keeps_conditions: As the hypothesis.
        score: Its score.
        order: Minus the number of those that ended before it: the earlier one of equals is the better.
        hypothesis: The hypothesis.
    """

    keeps_conditions: bool
    score: float
    order: int
    hypothesis: Hypothesis

    @property
    def rank(self) -> tuple[bool, float, int]:
        """What results are sorted by; more is better."""
        return self.keeps_conditions, self.score, self.order

    def __lt__(self, other: Result) -> bool:
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
    """

    k: int
    length_penalty: float
    max_tokens: int
    live: list[Hypothesis]
    ended: list[Result] = field(default_factory=list)
    _count: int = 0

    def finish(self, hypothesis: Hypothesis) -> None:
        """Add an ended hypothesis, keeping the k best."""
        self._count += 1
        result = Result(hypothesis.keeps_conditions, hypothesis.score(self.length_penalty), -self._count, hypothesis)
        if len(self.ended) < self.k:
            heapq.heappush(self.ended, result)
        else:
            heapq.heappushpop(self.ended, result)

    @property
    def done(self) -> bool:
        """Whether no live hypothesis can be among the k best any more."""
        if not self.live:
            return True
        if len(self.ended) < self.k:
            return False
        length = self.max_tokens if self.length_penalty > 0 else len(self.live[0].token_ids) + 1
        bound = max(hypothesis.total for hypothesis in self.live) / float(max(1, length) ** self.length_penalty)
        return bound <= self.ended[0].score


def best_of(beams: Sequence[Beam], n: int) -> list[Result]:
    """Choose the results of a search.

    Every beam gives its best before any gives its second best, so that diverse groups are all heard; a text that two
    groups found counts once, unless there are too few others.

    Args:
        beams: The groups.
        n: Results wanted.

    Returns:
        At most `n` results, best first.
    """
    columns = [sorted(beam.ended, reverse=True) for beam in beams]
    turns = [sorted(turn, reverse=True) for turn in _turns(columns)]
    order = [result for turn in turns for result in turn]
    seen: set[tuple[int, ...]] = set()
    again: list[Result] = []
    chosen: list[Result] = []
    for result in order:
        (again if result.hypothesis.token_ids in seen else chosen).append(result)
        seen.add(result.hypothesis.token_ids)
    return sorted((chosen + again)[:n], reverse=True)


def _turns(columns: Sequence[Sequence[Result]]) -> list[list[Result]]:
    longest = max(map(len, columns), default=0)
    return [[column[turn] for column in columns if turn < len(column)] for turn in range(longest)]
