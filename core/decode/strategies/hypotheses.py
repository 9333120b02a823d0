"""Hypotheses of beam search: how they are ranked, and when a beam is done."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nlpkit.core.decode.guide import Guide
from nlpkit.core.decode.request import FinishReason
from nlpkit.core.decode.stops import StopState
from nlpkit.core.decode.strategies.lexical import Progress


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
        stops: How much of each stop string it ends with.
        top_logprobs: For each id the likeliest alternatives, where they are wanted.
    """

    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    total: float = 0.0
    finish_reason: FinishReason | None = None
    guide: Guide | None = field(default=None, compare=False)
    progress: Progress | None = None
    stops: StopState | None = field(default=None, compare=False)
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = ()

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
        surplus: Those that ended and are not among the best.
    """

    k: int
    length_penalty: float
    max_tokens: int
    live: list[Hypothesis]
    ended: list[Result] = field(default_factory=list)
    surplus: list[Result] = field(default_factory=list)
    _count: int = 0

    def finish(self, hypothesis: Hypothesis) -> None:
        """Add an ended hypothesis, keeping the k best."""
        self._count += 1
        result = Result(
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
        length = self.max_tokens if self.length_penalty > 0 else len(self.live[0].token_ids) + 1
        bound = max(hypothesis.total for hypothesis in self.live) / float(max(1, length) ** self.length_penalty)
        return bound <= self.ended[0].score


def best_of(beams: Sequence[Beam], n: int, text_of: Callable[[Hypothesis], str]) -> list[Result]:
    """Choose the results of a search.

    Every beam gives its best before any gives its second best, so that diverse groups are all heard. Of several
    hypotheses with the same text, however it is spelled in tokens, the best alone counts; the next best take the
    places of the others.

    Args:
        beams: The groups.
        n: Results wanted.
        text_of: Returns the text of a hypothesis.

    Returns:
        At most `n` results, best first; fewer only where no more texts were found.
    """
    order = _in_turn([sorted(beam.ended, reverse=True) for beam in beams])
    if n > 1:
        order += _in_turn([sorted(beam.surplus, reverse=True) for beam in beams])
    chosen: dict[str | int, Result] = {}
    for result in order:
        if len(chosen) == n:
            break
        chosen.setdefault(text_of(result.hypothesis) if n > 1 else len(chosen), result)
    return sorted(chosen.values(), reverse=True)


def _in_turn(columns: Sequence[Sequence[Result]]) -> list[Result]:
    return [result for turn in _turns(columns) for result in sorted(turn, reverse=True)]


def _turns(columns: Sequence[Sequence[Result]]) -> list[list[Result]]:
    longest = max(map(len, columns), default=0)
    return [[column[turn] for column in columns if turn < len(column)] for turn in range(longest)]
