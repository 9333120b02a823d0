"""Closed sets of answers: what a model thinks of each after a prompt."""

from __future__ import annotations

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
    # Many rows ask about the same that says nothing: each pair is scored once.
    logprobs: dict[_Pair, float] = {}
    for choice in choices:
        for asked in (*choice.asked, *([] if choice.neutral is None else [choice.neutral])):
            logprobs.update(dict.fromkeys(_pairs(asked, choice.answers, encoder), 0.0))
    logprobs.update(zip(logprobs, (found.logprob for found in score(list(logprobs))), strict=True))
    results = []
    for choice in choices:
        chunks = [[logprobs[pair] for pair in _pairs(asked, choice.answers, encoder)] for asked in choice.asked]
        weights = [len(asked.ids) / sum(len(other.ids) for other in choice.asked) for asked in choice.asked]
        values = [sum(map(operator.mul, weights, column)) for column in zip(*chunks, strict=True)]
        if choice.neutral is not None:
            before = [logprobs[pair] for pair in _pairs(choice.neutral, choice.answers, encoder)]
            values = [value - other for value, other in zip(values, before, strict=True)]
        results.append(values)
    return results


def _pairs(asked: EncodedPrompt, answers: Sequence[str], encoder: PromptEncoder) -> list[_Pair]:
    """Return prompt and answers as ids. Where one answer begins like another, their end tells them apart."""
    targets = [tuple(encoder.target(asked, answer)) for answer in answers]
    opens = any(one != other and other[: len(one)] == one for one in targets for other in targets)
    end = (encoder.end(asked),) if opens else ()
    return [(tuple(asked.ids), (*target, *end)) for target in targets]
