"""Answers from the passages of many texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nlpkit.apps.asking.collection import Collection
from nlpkit.apps.asking.passages import Passage
from nlpkit.apps.pipeline.result import TaskResult

PASSAGES_ASKED = 8
"""Passages that are asked, where nobody says how many."""

RANK_WEIGHT = 8.0
"""What a passage's score, as a share of the best one's, counts beside the log-probability of its answer.

On 140 questions of held-out articles more was better: a model is about as sure of answers in wrong passages."""

Ask = Callable[[Sequence[dict[str, Any]]], Sequence[TaskResult]]
"""Runs the task of questions on rows with ``context`` and ``question``."""


@dataclass(frozen=True)
class FoundAnswer:
    """An answer, and where it stands.

    Attributes:
        text: The answer, word for word.
        name: The file's name.
        start: Where it begins in the file, in characters.
        end: Where it ends.
        line: Its line in the file, or 0.
        place: Where it stands in words, such as ``page 3``; empty where lines are known.
        evidence: The sentence around it.
        score: Probability that the model gives the answer, from 0 to 1, by its passage alone.
        passage: Place of the passage among those that were asked, from 1.
        result: What the task says.
    """

    text: str
    name: str
    start: int
    end: int
    line: int
    place: str
    evidence: str
    score: float
    passage: int
    result: TaskResult


@dataclass(frozen=True)
class Found:
    """What a question brought.

    Attributes:
        answers: The best first; none where no passage that was asked has one.
        passages: The passages that were asked, the likeliest first, with name and line or place.
    """

    answers: tuple[FoundAnswer, ...]
    passages: tuple[tuple[Passage, str, str], ...]


def ask_collection(ask: Ask, question: str, collection: Collection, *, passages: int = PASSAGES_ASKED) -> Found:
    """Ask the passages that a question is likely about, each alone, and rank the answers.

    An answer counts by the log-probability that the model gives it in its passage, and by how much the passage is about
    the question. The same answer in several passages is one, and counts as in the best of them.

    Args:
        ask: Asks the model.
        question: The question.
        collection: The texts.
        passages: Most passages to ask.

    Raises:
        NlpkitError: The question cannot be used.
    """
    ranked = collection.best(question, most=passages)
    rows = [{"context": passage.text, "question": question} for passage, _ in ranked]
    results = ask(rows) if rows else []
    top = ranked[0][1] if ranked else 1.0
    best: dict[str, tuple[float, FoundAnswer]] = {}
    for number, ((passage, score), result) in enumerate(zip(ranked, results, strict=True), start=1):
        if not result.text:
            continue
        answer = _placed(collection, passage, result, number)
        value = math.log(max(answer.score, 1e-9)) + RANK_WEIGHT * score / top
        key = " ".join(answer.text.casefold().split())
        if key not in best or best[key][0] < value:
            best[key] = (value, answer)
    order = sorted(best.values(), key=lambda pair: -pair[0])
    asked = [(passage, collection.texts[passage.source].name, where(collection, passage)) for passage, _ in ranked]
    return Found(tuple(answer for _, answer in order), tuple(asked))


def where(collection: Collection, passage: Passage, offset: int = 0) -> str:
    """Return where a character of a passage stands, for people: ``line 12``, or ``page 3``."""
    line, place = _line_and_place(collection, passage, offset)
    return f"line {line}" if line else place


def _line_and_place(collection: Collection, passage: Passage, offset: int) -> tuple[int, str]:
    text = collection.texts[passage.source]
    at = passage.start + offset
    if text.source is None:
        return text.text.count("\n", 0, at) + 1, ""
    found = text.source.find(at)
    return (0, "") if found is None else (found.line, "" if found.line else found.place)


def _placed(collection: Collection, passage: Passage, result: TaskResult, number: int) -> FoundAnswer:
    text = collection.texts[passage.source]
    fields = result.fields
    line, place = _line_and_place(collection, passage, fields["start"])
    return FoundAnswer(
        text=result.text,
        name=text.name,
        start=text.place(passage.start + fields["start"]),
        end=text.place(passage.start + fields["end"]),
        line=line,
        place=place,
        evidence=" ".join(str(fields["evidence"]).split()),
        score=float(fields["score"] or 0.0),
        passage=number,
        result=result,
    )
