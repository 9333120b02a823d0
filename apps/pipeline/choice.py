"""Closed sets of answers, what a model thinks of each after a prompt; and the best of what several places offer."""

from __future__ import annotations

import heapq
import itertools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nlpkit.apps.tasks.encoder import EncodedPrompt, PromptEncoder
from nlpkit.core.decode.request import Score

_Pair = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Choice:
    """A closed set of answers, to be scored after prompts.

    Attributes:
        answers: What there is to choose from.
        asked: The prompts of the chunks.
        neutral: A prompt that says nothing, or None.
    """

    answers: tuple[str, ...]
    asked: tuple[EncodedPrompt, ...]
    neutral: EncodedPrompt | None


def score_choices(
    choices: Sequence[Choice], encoder: PromptEncoder, score: Callable[[Sequence[_Pair]], Sequence[Score]]
) -> list[list[float]]:
    """Score the answers of several choices together.

    Args:
        choices: The choices.
        encoder: Makes the ids of answers.
        score: `LanguageModel.score`.

    Returns:
        For each choice the log-likelihood of each of its answers, in nats: the mean over its chunks by
        their lengths, less that after the prompt that says nothing.
    """
    chunks = [[_pairs(asked, choice.answers, encoder) for asked in choice.asked] for choice in choices]
    neutral = [[] if one.neutral is None else _pairs(one.neutral, one.answers, encoder) for one in choices]
    # Many rows ask about the same that says nothing: each pair is scored once.
    asked_for = dict.fromkeys(pair for rounds in (*chunks, neutral) for pairs in rounds for pair in pairs)
    logprobs = {pair: found.logprob for pair, found in zip(asked_for, score(list(asked_for)), strict=True)}
    results = []
    for choice, rounds, before in zip(choices, chunks, neutral, strict=True):
        total = sum(len(asked.ids) for asked in choice.asked)
        weights = [len(asked.ids) / total for asked in choice.asked]
        columns = zip(*([logprobs[pair] for pair in pairs] for pairs in rounds), strict=True)
        values = [sum(map(operator.mul, weights, column)) for column in columns]
        if before:
            values = [value - logprobs[pair] for value, pair in zip(values, before, strict=True)]
        results.append(values)
    return results


def best_choices(scores: Sequence[Sequence[float]], n: int) -> list[tuple[int, ...]]:
    """Choose one candidate for each of several places in the `n` best ways, by the sum of scores.

    Args:
        scores: For each place those of its candidates, best first.
        n: Ways wanted.

    Returns:
        Indices into the candidates, the best way first; fewer where there are no more ways.
    """
    start = (0,) * len(scores)
    heap = [(0.0, start)]
    seen = {start}
    found: list[tuple[int, ...]] = []
    while heap and len(found) < n:
        loss, choice = heapq.heappop(heap)
        found.append(choice)
        for place, index in enumerate(choice):
            following = (*choice[:place], index + 1, *choice[place + 1 :])
            if index + 1 < len(scores[place]) and following not in seen:
                seen.add(following)
                heapq.heappush(heap, (loss + scores[place][index] - scores[place][index + 1], following))
    return found


def _pairs(asked: EncodedPrompt, answers: Sequence[str], encoder: PromptEncoder) -> list[_Pair]:
    """Return prompt and answers as ids. Where one answer begins like another, their end tells them apart."""
    targets = [tuple(encoder.target(asked, answer)) for answer in answers]
    # In order, what begins like another stands right behind such a one.
    opens = any(one != other and other[: len(one)] == one for one, other in itertools.pairwise(sorted(targets)))
    end = (encoder.end(asked),) if opens else ()
    return [(tuple(asked.ids), (*target, *end)) for target in targets]
