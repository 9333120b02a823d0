"""Ways to get a sentence with codes through a model, one after the other, until one of them loses nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from nlpkit.apps.documents.document import Code
from nlpkit.apps.documents.translation.masks import MASK, MaskedText, mask_protected, problems, respaced
from nlpkit.apps.text.translation.protected import compare
from nlpkit.core.errors import NlpkitError

LOST = "placeholders"
"""The reason of an answer that lost a code."""

EMPTY = "empty"
"""The reason of an answer in which nothing was written."""

FAILED = "failed"
"""The reason of an answer that there is none."""

IN_PIECES = "pieces"
"""The reason of a sentence that was translated piece by piece, around its codes."""

FEWEST_WORDS = 3
"""Fewest words, for each code in it, of a sentence that is translated in pieces around its codes."""


SHORTEST_STEM = 4
"""Fewest letters that two forms of a word must share at their beginning."""

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


@dataclass(frozen=True)
class Answer:
    """What a translator made of a text.

    Attributes:
        text: Its translation.
        confidence: How likely it is right, from 0 to 1.
        reasons: What is wrong with it; empty where it is to be trusted.
        refusal: Why the translator cannot be asked this at all; None where it was asked.
    """

    text: str
    confidence: float = 1.0
    reasons: tuple[str, ...] = ()
    refusal: NlpkitError | None = None


@dataclass(frozen=True)
class Attempt:
    """One way to ask about a sentence.

    Attributes:
        asked: The texts to translate.
        read: Makes the sentence of the answers; None where a code was lost.
        in_pieces: Whether the texts are no sentences.
    """

    asked: tuple[str, ...]
    read: Callable[[Sequence[str]], str | None]
    in_pieces: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a sentence.

    Attributes:
        text: The translation with the masks of the segment; the source where all attempts failed.
        confidence: How likely it is right.
        reasons: What is wrong with it.
        lost: The codes that could not be brought through, as they stand in the file; the text is the source then.
    """

    text: str
    confidence: float = 1.0
    reasons: tuple[str, ...] = ()
    lost: tuple[str, ...] = field(default=())


def attempts(text: str, masked: MaskedText) -> Iterator[Attempt]:
    """Yield the ways to ask about a sentence, the best first.

    As it is, with masks for the format's codes; with masks for placeholders and numbers too; without the codes that
    enclose text, which are put around the translation of what they enclose; in pieces around the codes.

    Args:
        text: The sentence, with masks.
        masked: What they stand for.
    """
    yield _whole(text, masked)
    full, more = mask_protected(text, masked)
    if full != text:
        yield _fully_masked(text, full, more, masked.n_codes)
    for way in (
        _without_pairs(text, masked),
        _without_shortcut(text, masked),
        _in_pieces(full, more, masked.n_codes),
    ):
        if way is not None:
            yield way


def copies_inside(source: str, answer: str, masked: MaskedText) -> bool:
    """Return whether an answer left words as they were that codes enclose: models take them for names.

    Args:
        source: The sentence, with masks.
        answer: Its translation, with the same masks.
        masked: What they stand for.
    """
    after = {one: answer[begin:end] for begin, end, one, _ in _pairs(answer, masked)}
    return any(
        source[begin : begin + 1].islower() and end - begin > 2 and after.get(one) == source[begin:end]
        for begin, end, one, _ in _pairs(source, masked)
    )


def lost_codes(source: str, answer: str, masked: MaskedText) -> list[str]:
    """Return what an answer lost, doubled, made up or reordered: codes, placeholders, addresses, numbers."""
    wrong = problems(source, answer, masked)
    if wrong:
        return wrong
    differences = compare(_spelled(source, masked), _spelled(answer, masked))
    return [*differences.missing, *differences.surplus, *differences.reordered, *differences.numbers_changed]


def _spelled(text: str, masked: MaskedText) -> str:
    """Return a text with what its masks stand for where that is text, and signs for the rest."""

    def spell(match: re.Match[str]) -> str:
        code = masked.code(match.group(1))
        return code if isinstance(code, str) else " "

    return MASK.sub(spell, text)


def _whole(text: str, masked: MaskedText) -> Attempt:
    def read(answers: Sequence[str]) -> str | None:
        (answer,) = answers
        return None if lost_codes(text, answer, masked) else respaced(text, answer, masked)

    return Attempt((text,), read)


def _fully_masked(text: str, full: str, more: MaskedText, known: int) -> Attempt:
    def read(answers: Sequence[str]) -> str | None:
        (answer,) = answers
        if lost_codes(full, answer, more):
            return None
        spelled = _unmask_values(respaced(full, answer, more), more, known)
        return None if lost_codes(text, spelled, more) else spelled

    return Attempt((full,), read)


def _unmask_values(text: str, more: MaskedText, known: int) -> str:
    """Put texts back that were masked for one attempt alone; the segment's own masks stay."""

    def spell(match: re.Match[str]) -> str:
        code = more.code(match.group(1))
        return code if isinstance(code, str) and int(match.group(1)) > known else match.group()

    return MASK.sub(spell, text)


def _without_pairs(text: str, masked: MaskedText) -> Attempt | None:
    """Ask for the sentence without the codes that enclose text, and for what they enclose; or say that it has none."""
    pairs = _pairs(text, masked)
    if not pairs:
        return None
    inside = [text[begin:end] for begin, end, _, _ in pairs]
    enclosing = {number for _, _, one, two in pairs for number in (one, two)}

    def bare(part: str) -> str:
        return MASK.sub(lambda match: "" if int(match.group(1)) in enclosing else match.group(), part)

    sentence = bare(text)
    asked = (sentence, *(bare(part) for part in inside))

    def read(answers: Sequence[str]) -> str | None:
        whole, *inner = answers
        if lost_codes(sentence, whole, masked):
            return None
        places: list[tuple[int, int, str]] = []
        for (_, _, one, two), source, answer in zip(pairs, asked[1:], inner, strict=True):
            place = _find(whole, answer) or _find(whole, source)
            if place is None:
                return None
            places += [(place[0], 1, f"⟦{one}⟧"), (place[1], 0, f"⟦{two}⟧")]
        done = whole
        for at, _, code in sorted(places, reverse=True):
            done = done[:at] + code + done[at:]
        return None if lost_codes(text, done, masked) else done

    return Attempt(asked, read)


def _pairs(text: str, masked: MaskedText) -> list[tuple[int, int, int, int]]:
    """Return where enclosed texts begin and end, and the numbers of their codes, if no pair is in another."""
    opened: tuple[int, re.Match[str]] | None = None
    pairs = []
    for match in MASK.finditer(text):
        code = masked.code(match.group(1))
        if not isinstance(code, Code) or code.role == "alone":
            continue
        if code.role == "open":
            if opened is not None:
                return []
            opened = code.pair, match
        elif opened is None or opened[0] != code.pair:
            return []
        else:
            pairs.append((opened[1].end(), match.start(), int(opened[1].group(1)), int(match.group(1))))
            opened = None
    inside = [text[begin:end] for begin, end, _, _ in pairs]
    if opened is not None or not all(any(map(str.isalpha, MASK.sub("", part))) for part in inside):
        return []
    return pairs


def _without_shortcut(text: str, masked: MaskedText) -> Attempt | None:
    """Ask for a label without the mark of its keyboard shortcut, which is put before the same letter or the first."""
    marks = [match for match in MASK.finditer(text) if _literal(masked, match) in ("&", "&amp;", "_")]
    if len(marks) != 1 or len(masked.numbers(text)) != 1:
        return None
    (mark,) = marks
    letter = text[mark.end() : mark.end() + 1].casefold()

    def read(answers: Sequence[str]) -> str | None:
        (answer,) = answers
        places = [match.start() for match in re.finditer(r"(?<!\w)[^\W\d_]", answer)]
        same = [place for place in places if answer[place].casefold() == letter]
        if not places:
            return None
        at = (same or places)[0]
        done = answer[:at] + mark.group() + answer[at:]
        return None if lost_codes(text, done, masked) else done

    return Attempt((MASK.sub("", text),), read)


def _literal(masked: MaskedText, match: re.Match[str]) -> str:
    code = masked.code(match.group(1))
    return code if isinstance(code, str) else code.literal


def _without_stop(answer: str, source: str) -> str:
    """Return a part of a sentence without the full stop that a model put behind it."""
    return answer[:-1] if answer.endswith(".") and not answer.endswith("..") and source[-1:].isalnum() else answer


def _find(text: str, wanted: str) -> tuple[int, int] | None:
    """Return the one place where words stand in a text, whatever their case; None for none and for several."""
    wanted = wanted.strip(" .,;:!?")
    if not wanted:
        return None
    found = [match.span() for match in re.finditer(rf"(?<!\w){re.escape(wanted)}(?!\w)", text, re.IGNORECASE)]
    if not found:
        found = _inflected(text, wanted)
    return found[0] if len(found) == 1 else None


def _inflected(text: str, wanted: str) -> list[tuple[int, int]]:
    """Return the places of words that begin as the wanted ones do and may end in another way."""
    words, stems = list(_WORD.finditer(text)), [word.casefold() for word in _WORD.findall(wanted)]
    if not stems or len(stems[0]) < SHORTEST_STEM:
        return []
    return [
        (words[at].start(), words[at + len(stems) - 1].end())
        for at in range(len(words) - len(stems) + 1)
        if all(_alike(words[at + index].group().casefold(), stem) for index, stem in enumerate(stems))
    ]


def _alike(word: str, other: str) -> bool:
    common = next(
        (at for at, (a, b) in enumerate(zip(word, other, strict=False)) if a != b), min(len(word), len(other))
    )
    longer = max(len(word), len(other))
    return common == longer or (common >= SHORTEST_STEM and longer - common <= 2)


def _in_pieces(text: str, masked: MaskedText, known: int) -> Attempt | None:
    """Ask for each run of words between codes; None where they are hardly more than single words."""
    runs = re.split(r"(⟦[1-9]\d{0,5}⟧)", text)
    asked = [index for index, run in enumerate(runs) if index % 2 == 0 and any(map(str.isalpha, run))]
    words = sum(len(runs[index].split()) for index in asked)
    if len(runs) == 1 or words < FEWEST_WORDS * (len(asked) - 1):
        return None

    def read(answers: Sequence[str]) -> str | None:
        done = list(runs)
        for index, answer in zip(asked, answers, strict=True):
            run = runs[index]
            if lost_codes(run.strip(), answer, masked):
                return None
            lead, trail = run[: len(run) - len(run.lstrip())], run[len(run.rstrip()) :]
            done[index] = lead + _without_stop(answer.strip(), run.strip()) + trail
        return _unmask_values("".join(done), masked, known)

    return Attempt(tuple(runs[index].strip() for index in asked), read, in_pieces=True)
