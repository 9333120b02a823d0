"""Translates a document: its sentences are asked about in batches; what lost a code is asked about in another way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from nlpkit.apps.documents.document import Document, Segment, Translated
from nlpkit.apps.documents.translation.attempts import (
    EMPTY,
    FAILED,
    IN_PIECES,
    LOST,
    Answer,
    Attempt,
    Outcome,
    attempts,
    copies_inside,
    lost_codes,
)
from nlpkit.apps.documents.translation.masks import MaskedText, problems
from nlpkit.apps.documents.translation.units import PlannedSegment, plan_segment
from nlpkit.apps.text.translation.confidence import LOW

Translate = Callable[[Sequence[str]], Iterable[Answer]]
"""Translates texts, in order. Masks such as ``⟦1⟧`` in them are to be kept; what loses one is found out."""

Known = Callable[[int, int, str, MaskedText], "Outcome | None"]
"""What is known of a sentence, such as what a person made of it: by the number of its segment and its own in there, its
text with masks, and what these stand for. None where nothing is; what has other masks than the sentence is not used."""

TOO_LONG = "max_length"
"""The reason of a translation that is longer than its file allows."""

TOO_FAST = "reading_speed"
"""The reason of a subtitle that nobody can read in the time it is shown."""

READING_SPEED = 20.0
"""Characters a second that adults can read, as broadcasters' guides for subtitles have it."""

TOO_WIDE = "cue_length"
"""The reason of a subtitle that takes more room than a picture has for it."""

LONGEST_CUE = 84
"""Characters of two lines of a subtitle, which is what the same guides allow."""


@dataclass(frozen=True)
class Flag:
    """A segment that a person should look at.

    Attributes:
        line: Its line in the file, from 1; 0 where there are none.
        place: Where it stands in words, where a line says nothing.
        key: Its key in the file.
        source: The sentence.
        translation: What it became; the source where it stayed as it is.
        reasons: Why.
        lost: Codes that could not be brought through, as they stand in the file.
        confidence: How likely it is right.
    """

    line: int
    place: str
    key: str
    source: str
    translation: str
    reasons: tuple[str, ...]
    lost: tuple[str, ...] = ()
    confidence: float = 1.0


@dataclass(frozen=True)
class DocumentTranslation:
    """A translated document.

    Attributes:
        results: One a segment, for the format's `write`.
        outcomes: What became of each sentence of each segment.
        flags: What a person should look at, in the order of the file.
        sentences: How many sentences there were to translate.
        kept: How many of them stayed as they are, since they would have lost a code.
    """

    results: tuple[Translated | None, ...]
    outcomes: tuple[tuple[Outcome, ...], ...]
    flags: tuple[Flag, ...] = field(default=())
    sentences: int = 0
    kept: int = 0


def translate_segments(document: Document, translate: Translate, *, known: Known | None = None) -> DocumentTranslation:
    """Translate the segments of a document.

    Equal sentences are asked about once. Whatever the translator answers, each code of a segment comes out once and in
    a valid order: a sentence that loses one in all ways of asking keeps its source and is flagged.

    Args:
        document: The document.
        translate: The translator.
        known: Translations that need not be asked for.

    Raises:
        NlpkitError: The translator refuses all that it is asked; what it refuses among others stays as it is.
    """
    planned = [plan_segment(segment) for segment in document.segments]
    places = [(s, u) for s, plan in enumerate(planned) for u, unit in enumerate(plan.units) if not unit.copied]
    done = dict(zip(places, _outcomes(planned, places, translate, known), strict=True))
    results: list[Translated | None] = []
    outcomes: list[tuple[Outcome, ...]] = []
    flags: list[Flag] = []
    for index, plan in enumerate(planned):
        mine = tuple(done.get((index, at), Outcome(unit.text)) for at, unit in enumerate(plan.units))
        outcomes.append(mine)
        results.append(_result(plan, mine))
        flags += _flags(plan, mine, results[-1])
    kept = sum(bool(outcome.lost) for outcome in done.values())
    return DocumentTranslation(tuple(results), tuple(outcomes), tuple(flags), len(places), kept)


def _outcomes(
    planned: Sequence[PlannedSegment],
    places: Sequence[tuple[int, int]],
    translate: Translate,
    known: Known | None,
) -> Iterator[Outcome]:
    """Ask about sentences until each is through or nothing is left to try."""
    found: dict[int, Outcome] = dict(_found(planned, places, known)) if known is not None else {}
    spare: dict[int, Outcome] = {}
    lost: dict[int, tuple[str, ...]] = {}
    failed: set[int] = set()
    # Each sentence's ways are made as they are needed, and put away when it is through.
    ways = {
        index: attempts(planned[s].units[u].text, planned[s].masked)
        for index, (s, u) in enumerate(places)
        if index not in found
    }
    turn = -1
    while ways:
        turn += 1
        due: dict[int, Attempt] = {}
        for index in [*ways]:
            attempt = next(ways[index], None)
            if attempt is None:
                del ways[index]
            elif not (index in spare and attempt.in_pieces):
                due[index] = attempt
        if not due:
            continue
        asked = dict.fromkeys(text for attempt in due.values() for text in attempt.asked)
        answers = dict(zip(asked, translate(tuple(asked)), strict=True))
        refusals = [answer.refusal for answer in answers.values() if answer.refusal is not None]
        if turn == 0 and not found and len(refusals) == len(answers):
            raise refusals[0]
        for index, attempt in due.items():
            mine = [answers[text] for text in attempt.asked]
            text = attempt.read([answer.text for answer in mine])
            if text is not None and all(_usable(answer) for answer in mine):
                s, u = places[index]
                kept = turn == 0 and copies_inside(planned[s].units[u].text, text, planned[s].masked)
                (spare if kept else found)[index] = _outcome(text, mine, attempt)
                if not kept:
                    del ways[index]
            elif turn == 0:
                failed.update([index] if FAILED in mine[0].reasons else [])
                s, u = places[index]
                lost[index] = tuple(lost_codes(attempt.asked[0], mine[0].text, planned[s].masked))
    for index, (s, u) in enumerate(places):
        source = planned[s].units[u].text
        yield (
            found.get(index)
            or spare.get(index)
            or Outcome(
                source,
                0.0,
                (FAILED if index in failed else LOST,),
                lost.get(index) or _all_codes(planned[s], source),
            )
        )


def _found(
    planned: Sequence[PlannedSegment], places: Sequence[tuple[int, int]], known: Known
) -> Iterator[tuple[int, Outcome]]:
    for index, (s, u) in enumerate(places):
        text, masked = planned[s].units[u].text, planned[s].masked
        outcome = known(s, u, text, masked)
        if outcome is not None and not problems(text, outcome.text, masked):
            yield index, outcome


def _usable(answer: Answer) -> bool:
    return bool(answer.text.strip()) and not {LOST, FAILED, EMPTY}.intersection(answer.reasons)


def _outcome(text: str, answers: Sequence[Answer], attempt: Attempt) -> Outcome:
    reasons = dict.fromkeys(reason for answer in answers for reason in answer.reasons)
    if attempt.in_pieces:
        reasons[IN_PIECES] = None
    return Outcome(text, min((answer.confidence for answer in answers), default=1.0), tuple(reasons))


def _all_codes(plan: PlannedSegment, text: str) -> tuple[str, ...]:
    codes = [plan.masked.code(number) for number in plan.masked.numbers(text)]
    return tuple(code if isinstance(code, str) else code.literal for code in codes) or (text,)


def _result(plan: PlannedSegment, outcomes: Sequence[Outcome]) -> Translated | None:
    """Return the segment with its translations; None where nothing of it changed."""
    if not any(not unit.copied for unit in plan.units):
        return None
    if all(outcome.lost or unit.copied for unit, outcome in zip(plan.units, outcomes, strict=True)):
        return None
    parts = plan.parts([outcome.text for outcome in outcomes])
    sure = all(not outcome.reasons and outcome.confidence >= LOW for outcome in outcomes)
    return Translated(parts=parts, sure=sure)


def _flags(plan: PlannedSegment, outcomes: Sequence[Outcome], result: Translated | None) -> Iterator[Flag]:
    segment = plan.segment
    for unit, outcome in zip(plan.units, outcomes, strict=True):
        if outcome.reasons or outcome.confidence < LOW:
            yield _flag(
                segment,
                segment.line and segment.line + unit.line,
                plan.masked.plain(unit.text),
                plan.masked.plain(outcome.text),
                outcome.reasons or ("unsure",),
                outcome.lost,
                outcome.confidence,
            )
    if result is None:
        return
    text = "".join(part if isinstance(part, str) else part.text for part in result.parts)
    # What was too fast before is not the translator's fault.
    if segment.seconds and len(text) > max(READING_SPEED * segment.seconds, len(segment.text)):
        yield _flag(segment, segment.line, segment.text, text, (TOO_FAST,), (), 1.0)
    if segment.seconds and len(text) > max(LONGEST_CUE, len(segment.text)):
        yield _flag(segment, segment.line, segment.text, text, (TOO_WIDE,), (), 1.0)
    if segment.max_length is not None and len(text) > segment.max_length:
        yield _flag(segment, segment.line, segment.text, text, (TOO_LONG,), (), 1.0)


def _flag(
    segment: Segment,
    line: int,
    source: str,
    text: str,
    reasons: tuple[str, ...],
    lost: tuple[str, ...],
    confidence: float,
) -> Flag:
    return Flag(line, segment.place, segment.key, source, text, reasons, lost, round(confidence, 3))
