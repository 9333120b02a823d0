"""Carrying protected spans through a translation: masks for the model, and a check of what came out."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from nlpkit.apps.text.translation.number_values import dated_months, number_values, worded_values
from nlpkit.apps.text.translation.protected_grammar import HARD_KINDS, NUMBER_KINDS, ProtectedSpan, find_protected

__all__ = [
    "MAX_MASKS",
    "Differences",
    "Masked",
    "ProtectedSpan",
    "compare",
    "cut_to_masks",
    "find_protected",
    "mask",
    "unmask",
]

MAX_MASKS = 8
"""Masks that the translation model has in its vocabulary, from ``⟦1⟧`` on."""

_MASK = re.compile(r"⟦([1-9]\d{0,4})⟧|[⟦⟧]")
_PLAIN_NUMBER = re.compile(r"\d{1,4}(?:[.,]\d{1,2})?")
_GAP = re.compile(r"[ \u00a0\u202f]?")
_OPENING = re.compile(r"<[A-Za-z0-9][^<>]*(?<!/)>|\[[a-z]+(?:=[^\[\]]*)?\]")
_TAG = re.compile(r"<(/?)([A-Za-z][\w:.-]*|\d{1,3})[^<>]*?(/?)>")
_VOID = frozenset(["area", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"])
_POSITIONAL = re.compile(r"%\d+\$|%L?\d+$|%[({<]|%[A-Za-z_][\w.-]+%$|%%$")
_BLANKS = " \u00a0\u202f"
_DIGITS = re.compile(r"\d+")
_MINUS_WORD = re.compile(r"(?:minus|moins|menos) $", re.IGNORECASE)
_COMPOUND = re.compile(r"\d ?[/:x×] ?\d")
_CLOCK = re.compile(r"\d{1,2}\.\d\d(?= ?(?:Uhr|h|hs|horas|heures|[ap]\.? ?m)\b)")
_AFTERNOON = re.compile(r"(?<![A-Za-z])[pP]\.?\s?[mM](?![A-Za-z])")


@dataclass(frozen=True)
class Masked:
    """A text whose protected spans are replaced by masks.

    Attributes:
        text: The text with ``⟦1⟧``, ``⟦2⟧``, … in the places of spans.
        values: What the masks stand for, in the order of their numbers.
        limit: How many different masks the model knows.
    """

    text: str
    values: tuple[str, ...]
    limit: int = MAX_MASKS

    @property
    def fits(self) -> bool:
        """Whether the model knows all masks; if not, cut the text (`cut_to_masks`) or leave it as it is."""
        return len(self.values) <= self.limit


@dataclass(frozen=True)
class Differences:
    """How the protected spans of a translation differ from those of its source.

    Attributes:
        missing: What the translation lacks, in the order of the source; twice if it lacks twice.
        surplus: Placeholders, markup and addresses that only the translation has.
        reordered: Unnumbered printf placeholders in another order, and tags that no longer nest.
        numbers_changed: Numbers, dates and times of the source whose values the translation lacks, then those that
            only the translation has.
    """

    missing: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()
    reordered: tuple[str, ...] = ()
    numbers_changed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is any difference."""
        return bool(self.missing or self.surplus or self.reordered or self.numbers_changed)


def mask(text: str, *, limit: int = MAX_MASKS) -> Masked:
    """Replace protected spans by masks that the model copies.

    Plain numbers of one to four digits, also with one or two decimals, stay. Spans with at most one blank between
    them share a mask. Only if the masks do not suffice, equal values share one too.

    Args:
        text: One sentence or paragraph.
        limit: How many different masks the model knows.

    Returns:
        The masked text; see `Masked.fits`.
    """
    spans = _to_mask(text)
    values = [text[start:end] for start, end in spans]
    numbers: Sequence[int] = range(len(values))
    if len(values) > limit:
        order = {value: number for number, value in enumerate(dict.fromkeys(values))}
        numbers, values = [order[value] for value in values], list(order)
    pieces, done = [], 0
    for (start, end), number in zip(spans, numbers, strict=True):
        pieces.append(f"{text[done:start]}⟦{number + 1}⟧")
        done = end
    return Masked("".join(pieces) + text[done:], tuple(values), limit)


def _to_mask(text: str) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for span in find_protected(text):
        if span.kind == "number" and _PLAIN_NUMBER.fullmatch(text, span.start, span.end):
            continue
        if merged and span.start - merged[-1][1] <= 1 and _GAP.fullmatch(text, merged[-1][1], span.start):
            merged[-1] = (merged[-1][0], span.end)
        else:
            merged.append((span.start, span.end))
    return merged


def unmask(translation: str, masked: Masked) -> str | None:
    """Put the protected spans back into a translation.

    White space around a span follows the source: a tag touches the word that it touched, and a span that stood
    between blanks does not run into a word.

    Args:
        translation: What the model made of ``masked.text``.
        masked: The masked source.

    Returns:
        The translation, or None where a mask is missing, doubled or unknown.
    """
    wanted = Counter(match.group() for match in _MASK.finditer(masked.text))
    got = list(_MASK.finditer(translation))
    if Counter(match.group() for match in got) != wanted or any(match.group(1) is None for match in got):
        return None
    sides: dict[str, deque[tuple[str, str]]] = {}
    for match in _MASK.finditer(masked.text):
        sides.setdefault(match.group(1), deque()).append(_sides(masked.text, match))
    parts: list[str] = []
    done = 0
    for match in got:
        value = masked.values[int(match.group(1)) - 1]
        left, right = sides[match.group(1)].popleft()
        parts += [_joined(translation[done : match.start()], left, value), value]
        done = match.end()
        following = translation[done : done + 1]
        if right == "word" and following and following in _BLANKS and _glues(value):
            done += 1
        elif right == "blank" and following.isalnum():
            parts.append(" ")
    return "".join(parts) + translation[done:]


def _sides(text: str, match: re.Match[str]) -> tuple[str, str]:
    return _side(text[match.start() - 1 : match.start()]), _side(text[match.end() : match.end() + 1])


def _side(char: str) -> str:
    if not char or char.isspace():
        return "blank"
    return "word" if char.isalnum() else "sign"


def _glues(value: str) -> bool:
    """Whether a span that touches a word in the source touches one in every language: markup and escapes do."""
    return value[:1] in ("<", "\\", "[", "`") or value[-1:] in (">", "]")


def _joined(between: str, left: str, value: str) -> str:
    if left == "word" and _glues(value) and not _OPENING.fullmatch(value) and between[-1:] in tuple(_BLANKS):
        return between[:-1]
    if left == "blank" and between[-1:].isalnum():
        return between + " "
    return between


def cut_to_masks(text: str, *, limit: int = MAX_MASKS) -> list[str]:
    """Cut a text so that no piece needs more masks than the model has.

    Args:
        text: A sentence whose `mask` does not fit.
        limit: How many masks a piece may need.

    Returns:
        Pieces that joined are the text, cut between spans: behind a comma or the like where there is one, else
        before a word.
    """
    spans = _to_mask(text)
    pieces, begin = [], 0
    for index in range(limit, len(spans), limit):
        low, high = spans[index - 1][1], spans[index][0]
        clauses = [match.end() for match in re.finditer(r"[,;:，；：、][ \u00a0]?", text[low:high])]
        blanks = [match.end() for match in re.finditer(r"\s", text[low:high])]
        cut = low + (clauses or blanks or [0])[-1]
        pieces.append(text[begin:cut])
        begin = cut
    return [*pieces, text[begin:]] if text[begin:] else pieces


def compare(source: str, translation: str) -> Differences:
    """Compare the protected spans of a translation with those of its source.

    Numbers are compared by value over the spellings of languages, with sign and decimals; 1,234 may be either of
    its readings, and numbers up to twelve, Roman numerals and months may be spelt. Unnumbered printf placeholders
    keep their order (``%1$s`` may move), tags nest as they did, everything else is compared as it is written.

    Args:
        source: The source text.
        translation: Its translation, unmasked.

    Returns:
        The differences; false where there are none.
    """
    ours, theirs = find_protected(source), find_protected(translation)
    missing = _lacking(source, ours, translation, theirs)
    surplus = _lacking(translation, [span for span in theirs if span.kind in HARD_KINDS], source, ours)
    return Differences(
        tuple(missing),
        tuple(surplus),
        _reordered(source, ours, translation, theirs),
        _changed(source, ours, translation, theirs),
    )


def _lacking(text: str, spans: Iterable[ProtectedSpan], other: str, others: Sequence[ProtectedSpan]) -> list[str]:
    have = Counter(other[span.start : span.end] for span in others)
    literal: dict[str, int] = {}
    lacking = []
    for span in spans:
        if span.kind in NUMBER_KINDS:
            continue
        value = text[span.start : span.end]
        if have[value] > 0:
            have[value] -= 1
            continue
        # What the grammar reads in another way there may yet stand there, letter by letter.
        if value not in literal:
            taken = sum(other[span.start : span.end] == value for span in others) if len(literal) < 50 else 0
            literal[value] = _count(value, other) - taken if len(literal) < 50 else 0
        if literal[value] > 0:
            literal[value] -= 1
        else:
            lacking.append(value)
    return lacking


def _count(value: str, text: str) -> int:
    count, at = 0, text.find(value)
    while at >= 0:
        end = at + len(value)
        inside = (value[0].isalnum() and text[at - 1 : at].isalnum()) or (
            value[-1].isalnum() and text[end : end + 1].isalnum()
        )
        count += not inside
        at = text.find(value, end)
    return count


def _reordered(
    source: str, ours: Sequence[ProtectedSpan], translation: str, theirs: Sequence[ProtectedSpan]
) -> tuple[str, ...]:
    before, after = _ordered(source, ours), _ordered(translation, theirs)
    moved = (
        [one for one, two in zip(before, after, strict=False) if one != two]
        if Counter(before) == Counter(after)
        else []
    )
    if _nests(source, ours):
        moved += _crossing(translation, theirs)
    return tuple(moved)


def _ordered(text: str, spans: Sequence[ProtectedSpan]) -> list[str]:
    values = (text[span.start : span.end] for span in spans if span.kind == "printf")
    return [value for value in values if not _POSITIONAL.match(value)]


def _nests(text: str, spans: Sequence[ProtectedSpan]) -> bool:
    return not _crossing(text, spans)


def _crossing(text: str, spans: Sequence[ProtectedSpan]) -> list[str]:
    """Return the tags that close nothing or are never closed, if any tag is closed at all."""
    stack: list[tuple[str, str]] = []
    wrong: list[str] = []
    for span in spans:
        value = text[span.start : span.end]
        match = _TAG.fullmatch(value) if span.kind == "tag" else None
        if not match or match.group(3) or match.group(2).lower() in _VOID:
            continue
        if not match.group(1):
            stack.append((match.group(2), value))
        elif stack and stack[-1][0] == match.group(2):
            stack.pop()
        else:
            wrong.append(value)
    return wrong


def _changed(
    source: str, ours: Sequence[ProtectedSpan], translation: str, theirs: Sequence[ProtectedSpan]
) -> tuple[str, ...]:
    have, need = _numbers(translation, theirs), _numbers(source, ours)
    pool = _pool(have)
    used: set[int] = set()
    lacking = []
    # Numbers of one reading choose first.
    for number in sorted(need, key=lambda number: len(number[1])):
        index = _take(pool, number[1], used)
        if index is None:
            lacking.append(number)
    added = [number for index, number in enumerate(have) if index not in used]
    if not lacking and not added:
        return ()
    lacking, added = _afternoon(source, lacking, added)
    lacking = _not_spelt(lacking, worded_values(translation))
    added = _not_spelt(added, worded_values(source))
    return tuple(written for written, _ in (*lacking, *added))


_Number = tuple[str, frozenset[Decimal]]


def _pool(numbers: Sequence[_Number]) -> dict[Decimal, list[int]]:
    """Return the places of each value, the last first."""
    pool: dict[Decimal, list[int]] = {}
    for index in range(len(numbers) - 1, -1, -1):
        for value in numbers[index][1]:
            pool.setdefault(value, []).append(index)
    return pool


def _take(pool: dict[Decimal, list[int]], values: Iterable[Decimal], used: set[int]) -> int | None:
    for value in values:
        waiting = pool.get(value, [])
        while waiting:
            index = waiting.pop()
            if index not in used:
                used.add(index)
                return index
    return None


def _numbers(text: str, spans: Sequence[ProtectedSpan]) -> list[_Number]:
    """Return the numbers of a text with their values; dates and times count as the numbers they consist of."""
    numbers: list[_Number] = []
    for span in spans:
        value = text[span.start : span.end]
        if span.kind == "number" and not _COMPOUND.search(value) and not _CLOCK.match(text, span.start):
            values = number_values(value)
            if _MINUS_WORD.match(text, max(0, span.start - 6), span.start):
                values = frozenset(-abs(one) for one in values)
            numbers.append((value, values))
        elif span.kind in NUMBER_KINDS:
            numbers.extend((part, frozenset([Decimal(part).normalize()])) for part in _DIGITS.findall(value))
    numbers.extend((name, frozenset([Decimal(number)])) for name, number in dated_months(text))
    return numbers


def _afternoon(source: str, lacking: list[_Number], added: list[_Number]) -> tuple[list[_Number], list[_Number]]:
    """Pair hours of twelve with hours of twenty-four: 5 pm is 17 Uhr; minutes of zero may go."""
    used: set[int] = set()
    rest = lacking
    if _AFTERNOON.search(source):
        pool = _pool(added)
        rest = [number for number in lacking if _take(pool, [value + 12 for value in number[1]], used) is None]
    kept = (number for index, number in enumerate(added) if index not in used)
    return [number for number in rest if number[0] != "00"], [number for number in kept if number[0] != "00"]


def _not_spelt(numbers: list[_Number], spelt: dict[Decimal, int]) -> list[_Number]:
    rest = []
    for number in numbers:
        value = next((value for value in number[1] if spelt.get(value, 0) > 0), None)
        if value is None:
            rest.append(number)
        else:
            spelt[value] -= 1
    return rest
