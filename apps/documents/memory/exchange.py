"""Pairs of sentences from files of all kinds: TMX, tables, review files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

from nlpkit.apps.documents.files import decode_text, display_name, read_bytes
from nlpkit.apps.documents.memory.entries import Entry
from nlpkit.apps.documents.memory.tmx import read_tmx
from nlpkit.core.errors import ConfigError, InputError

_SOURCES = ("source", "src")
_TARGETS = ("translation", "right", "target", "tgt", "corrected")
MAX_BYTES = 512 * 2**20
"""Largest table that is read."""


def read_entries(
    path: str, *, source_lang: str | None = None, target_lang: str | None = None, encoding: str = "utf-8"
) -> Iterator[Entry]:
    """Read the entries of a file, by its suffix: ``.tmx``, ``.csv``, else a table with tabs.

    A table has two columns, or a first line with the names of its columns: ``source``, and ``translation``, ``target``
    or ``right``.

    Args:
        path: The file.
        source_lang: Code of the language to translate from; tables do not say it.
        target_lang: Code of the language to translate to; tables do not say it.
        encoding: Encoding of a table.

    Raises:
        InputError: The file cannot be read.
        ConfigError: A table's languages are not named.
    """
    if path.lower().removesuffix(".gz").endswith(".tmx"):
        yield from read_tmx(path, source_lang=source_lang, target_lang=target_lang)
        return
    if source_lang is None or target_lang is None:
        raise ConfigError(f"{display_name(path)} does not say its languages. Name them: --from en --to de.")
    name = display_name(path)
    rows = read_table(path, encoding=encoding)
    number, first = next(rows, (0, []))
    columns = (0, 1)
    names = [cell.strip().lower() for cell in first]
    if any(one in names for one in _SOURCES):
        there = [names.index(one) for one in _SOURCES if one in names], [names.index(t) for t in _TARGETS if t in names]
        if not there[1]:
            raise InputError(f"{name}:1: there is a column {names[there[0][0]]!r}, but none of {', '.join(_TARGETS)}.")
        columns = there[0][0], there[1][0]
    elif first:
        yield _entry(first, number, columns, name, source_lang, target_lang)
    for number, row in rows:
        yield _entry(row, number, columns, name, source_lang, target_lang)


def _entry(row: list[str], number: int, columns: tuple[int, int], name: str, one: str, two: str) -> Entry:
    if len(row) <= max(columns):
        raise InputError(f"{name}:{number}: there are {len(row)} columns, and no source with its translation. Mend it.")
    return Entry(row[columns[0]].strip(), row[columns[1]].strip(), one, two, name)


def read_table(path: str, *, encoding: str = "utf-8") -> Iterator[tuple[int, list[str]]]:
    """Yield line and cells of the rows of a table; blank rows and those that begin with ``#`` are left out.

    Args:
        path: The file: CSV if it is named so, else with tabs.
        encoding: Its encoding.

    Raises:
        InputError: It cannot be read.
    """
    name = display_name(path)
    text = decode_text(read_bytes(path, max_bytes=MAX_BYTES), encoding=encoding, where=name)
    if path.lower().removesuffix(".gz").endswith(".csv"):
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    else:
        # Quotes mean nothing in a table with tabs, in which each row is a line.
        reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row) and not row[0].startswith("#"):
                yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{name}:{reader.line_num}: the table is damaged ({error}). Mend the line.") from error


def write_entries(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield the lines of a table with tabs: source, target, and their languages."""
    yield "source\ttarget\tsource_lang\ttarget_lang\n"
    for entry in entries:
        cells = (entry.source, entry.target, entry.source_lang, entry.target_lang)
        yield "\t".join(" ".join(cell.split()) for cell in cells) + "\n"
