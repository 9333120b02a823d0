"""Review files: the sentences of documents as a table, the least sure first, which a person edits and hands back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nlpkit.apps.documents.document import Document
from nlpkit.apps.documents.files import display_name
from nlpkit.apps.documents.memory.exchange import read_table
from nlpkit.apps.documents.translation.attempts import Outcome
from nlpkit.apps.documents.translation.masks import MASK, MaskedText, problems
from nlpkit.apps.documents.translation.translate import DocumentTranslation, Known
from nlpkit.apps.documents.translation.units import plan_segment
from nlpkit.core.errors import InputError

COLUMNS = ("file", "id", "place", "confidence", "reasons", "source", "translation", "machine", "memory")
"""Columns of a review file. ``translation`` is for a person to edit; ``machine`` says what stood there."""

_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_ESCAPED = re.compile(r"\\([\\tnr])")
_PLAIN = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r"}


@dataclass(frozen=True)
class Reviewed:
    """A sentence of a document and its translation.

    Attributes:
        file: Name of the document.
        id: Number of the segment and of the sentence in it, from 1: ``12.1``.
        place: Line, place or key in the document.
        confidence: How likely the translation is right.
        reasons: What is wrong with it.
        source: The sentence, with masks such as ``⟦1⟧`` for inline codes.
        translation: Its translation, with the same masks.
        machine: What the translation was before a person edited it.
        memory: What a memory has for a sentence like this one.
    """

    file: str
    id: str
    place: str
    confidence: float
    reasons: tuple[str, ...]
    source: str
    translation: str
    machine: str
    memory: str = ""


def reviewed(
    file: str, document: Document, translation: DocumentTranslation, hint: Callable[[str], str] | None = None
) -> Iterator[Reviewed]:
    """Yield the sentences of a document.

    Args:
        file: What the document is called.
        document: The document.
        translation: Its translation.
        hint: Returns what a memory has for a sentence; asked about those alone that are not certain.
    """
    for number, (segment, outcomes) in enumerate(zip(document.segments, translation.outcomes, strict=True), start=1):
        plan = plan_segment(segment)
        place = f"line {segment.line}" if segment.line else segment.place or segment.key
        for at, (unit, outcome) in enumerate(zip(plan.units, outcomes, strict=True), start=1):
            if unit.copied:
                continue
            memory = hint(unit.text) if hint is not None and outcome.confidence < 1 else ""
            yield Reviewed(
                *(file, f"{number}.{at}", place, round(outcome.confidence, 3), outcome.reasons),
                *(unit.text, outcome.text, outcome.text, memory),
            )


def write_review(rows: Iterable[Reviewed]) -> str:
    """Return a review file: a table with tabs, the sentences least sure first."""
    ordered = sorted(rows, key=lambda row: (row.confidence, not row.reasons))
    lines = ["\t".join(COLUMNS)]
    for row in ordered:
        cells = (
            *(row.file, row.id, row.place, f"{row.confidence:.3f}", ", ".join(row.reasons)),
            *(row.source, row.translation, row.machine, row.memory),
        )
        lines.append("\t".join(_written(cell) for cell in cells))
    return "\n".join(lines) + "\n"


def read_review(path: str, *, encoding: str = "utf-8") -> list[Reviewed]:
    """Read a review file, edited or not.

    Raises:
        InputError: It cannot be read, is no review file, or edited translations have other masks than their sources;
            all lines with such are named.
    """
    name = display_name(path)
    rows = read_table(path, encoding=encoding)
    _, names = next(rows, (0, []))
    if not {"source", "translation"} <= set(names):
        raise InputError(f"{name} is no review file: its first line must name the columns source and translation.")
    found: list[Reviewed] = []
    wrong: list[str] = []
    for line, cells in rows:
        cell = dict(zip(names, map(_read, cells), strict=False))
        source, translation = cell.get("source", ""), cell.get("translation", "")
        lacks = _differing(source, translation)
        if lacks and translation:
            wrong.append(f"line {line} ({', '.join(lacks)})")
        found.append(
            Reviewed(
                *(cell.get("file", ""), cell.get("id", ""), cell.get("place", ""), _number(cell.get("confidence"))),
                tuple(reason for reason in cell.get("reasons", "").split(", ") if reason),
                *(source, translation, cell.get("machine", translation), cell.get("memory", "")),
            )
        )
    if wrong:
        raise InputError(
            f"{name}: in the translations of {'; '.join(wrong[:20])}{' and more' if len(wrong) > 20 else ''} inline "
            "codes are missing or there too often. Each ⟦…⟧ of the source must stand in the translation once."
        )
    return found


def _differing(source: str, translation: str) -> list[str]:
    one, two = sorted(MASK.findall(source)), sorted(MASK.findall(translation))
    if one == two:
        return []
    return [f"⟦{mask}⟧" for mask in dict.fromkeys([*one, *two]) if one.count(mask) != two.count(mask)]


def from_review(rows: Sequence[Reviewed], file: str) -> Known:
    """Return what a review says of the sentences of a document.

    A sentence counts where it stood when the review was written, and else wherever it stands; a sentence whose
    translation a person emptied keeps its source.

    Args:
        rows: The review.
        file: What the document is called in it.
    """
    mine = [row for row in rows if row.file in ("", file)]
    by_place = {row.id: row for row in mine}
    by_source: dict[str, Reviewed] = {}
    for row in [*mine, *rows]:
        by_source.setdefault(row.source, row)

    def known(segment: int, unit: int, text: str, masked: MaskedText) -> Outcome | None:
        row = by_place.get(f"{segment + 1}.{unit + 1}")
        if row is None or row.source != text:
            row = by_source.get(text)
        if row is None or row.source != text:
            return None
        translation = row.translation.strip() or text
        if problems(text, translation, masked):
            return None
        edited = translation != row.machine
        return Outcome(translation, 1.0 if edited else row.confidence, () if edited else row.reasons)

    return known


def _number(text: str | None) -> float:
    try:
        return min(max(float(text or 1), 0.0), 1.0)
    except ValueError:
        return 1.0


def _written(text: str) -> str:
    return "".join(_ESCAPES.get(char, char) for char in text)


def _read(text: str) -> str:
    return _ESCAPED.sub(lambda match: _PLAIN[match.group(1)], text)


def corrections(rows: Iterable[Reviewed]) -> Iterator[Mapping[str, str]]:
    """Yield what a person changed: ``source``, ``wrong`` and ``right``."""
    for row in rows:
        if row.translation.strip() and row.translation != row.machine:
            yield {"source": row.source, "wrong": row.machine, "right": row.translation}
