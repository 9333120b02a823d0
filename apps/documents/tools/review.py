"""Review files: the sentences of documents as a table, the least sure first, which a person edits and hands back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nlpkit.apps.documents.document import Document
from nlpkit.apps.documents.files import display_name
from nlpkit.apps.documents.table_rows import read_table
from nlpkit.apps.documents.translation.attempts import Outcome
from nlpkit.apps.documents.translation.masks import MASK, MaskedText, problems
from nlpkit.apps.documents.translation.translate import DocumentTranslation, Known
from nlpkit.apps.documents.translation.units import plan_segment
from nlpkit.core.errors import InputError

COLUMNS = ("file", "id", "place", "confidence", "reasons", "source", "translation", "machine", "memory")
"""Columns of a review file. ``translation`` is for a person to edit; ``machine`` says what stood there."""

MOST_NAMED = 20
"""Most lines that an error names."""

_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_ESCAPED = re.compile(r"\\([\\tnr])")
_PLAIN = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r"}
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')


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
        for at, (unit, outcome) in enumerate(zip(plan.units, outcomes, strict=True), start=1):
            if unit.copied:
                continue
            memory = hint(unit.text) if hint is not None and outcome.confidence < 1 else ""
            yield Reviewed(
                *(file, f"{number}.{at}", segment.where, round(outcome.confidence, 3), outcome.reasons),
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


def is_review(names: Iterable[str]) -> bool:
    """Return whether the first row of a table is that of a review file."""
    return {"source", "translation", "machine"} <= {_QUOTED.sub(r"\1", name) for name in names}


def read_review(path: str, *, encoding: str = "utf-8") -> list[Reviewed]:
    """Read a review file, edited or not; cells that a spreadsheet has quoted are read without their quotes.

    Args:
        path: The file.
        encoding: Its encoding.

    Raises:
        InputError: It cannot be read, is no review file, or edited translations have other masks than their sources;
            lines with such are named, up to `MOST_NAMED` of them.
    """
    name = display_name(path)
    rows = read_table(path, headers=frozenset({"source"}), encoding=encoding)
    _, names = next(rows, (0, []))
    quoted = bool(names) and all(map(_QUOTED.fullmatch, names))
    names = [_QUOTED.sub(r"\1", cell) for cell in names] if quoted else names
    if not {"source", "translation"} <= set(names):
        raise InputError(f"{name} is no review file: its first line must name the columns source and translation.")
    found: list[Reviewed] = []
    wrong: list[str] = []
    for line, cells in rows:
        cell = dict(zip(names, (_read(text, quoted=quoted) for text in cells), strict=False))
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
        more = f" and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
        raise InputError(
            f"{name}: in the translations of {'; '.join(wrong[:MOST_NAMED])}{more} inline codes are missing or there "
            "too often. Each ⟦…⟧ of the source must stand in the translation once."
        )
    return found


def _differing(source: str, translation: str) -> list[str]:
    one, two = sorted(MASK.findall(source)), sorted(MASK.findall(translation))
    if one == two:
        return []
    return [f"⟦{mask}⟧" for mask in dict.fromkeys([*one, *two]) if one.count(mask) != two.count(mask)]


def is_edited(row: Reviewed) -> bool:
    """Return whether a person changed or emptied a translation."""
    return row.translation.strip() != row.machine.strip()


def from_review(rows: Sequence[Reviewed], file: str, used: set[Reviewed] | None = None) -> Known:
    """Return what a review says of the sentences of a document.

    A sentence counts where it stood when the review was written, and else wherever it stands; a sentence whose
    translation a person emptied keeps its source.

    Args:
        rows: The review.
        file: What the document is called in it.
        used: Takes in the rows that a sentence was translated by.
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
        if used is not None:
            used.add(row)
        edited = translation != row.machine
        return Outcome(translation, 1.0 if edited else row.confidence, () if edited else row.reasons)

    return known


def _number(text: str | None) -> float:
    try:
        return min(max(float(text or 1), 0.0), 1.0)
    except ValueError:
        return 1.0


def _written(text: str) -> str:
    text = "".join(_ESCAPES.get(char, char) for char in text)
    # What looks as spreadsheets quote cells is quoted once more: it would be read without its quotes.
    return '"' + text.replace('"', '""') + '"' if _unquoted(text) is not None else text


def _read(text: str, *, quoted: bool) -> str:
    """Return what a cell says.

    Args:
        text: The cell.
        quoted: Whether all cells of the table are quoted.
    """
    plain = _unquoted(text)
    if plain is None and quoted and _QUOTED.fullmatch(text):
        plain = text[1:-1]
    return _ESCAPED.sub(lambda match: _PLAIN[match.group(1)], text if plain is None else plain)


def _unquoted(text: str) -> str | None:
    """Return a cell without the quotes of a spreadsheet; None for one that only begins and ends with a quote.

    Spreadsheets quote a cell with quotes in it, and write each of these twice.
    """
    plain = text[1:-1].replace('""', '"') if _QUOTED.fullmatch(text) else ""
    return plain if '"' in plain else None


def corrections(rows: Iterable[Reviewed]) -> Iterator[Mapping[str, str]]:
    """Yield what a person changed: ``source``, ``wrong`` and ``right``.

    Args:
        rows: The rows of a review.
    """
    for row in rows:
        if row.translation.strip() and row.translation != row.machine:
            yield {"source": row.source, "wrong": row.machine, "right": row.translation}
