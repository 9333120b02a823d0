"""Pairs of sentences from files of all kinds: TMX, tables, review files."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from nlpkit.apps.documents.files import display_name
from nlpkit.apps.documents.memory.entries import Entry
from nlpkit.apps.documents.memory.tmx import read_tmx
from nlpkit.apps.documents.table_rows import read_table
from nlpkit.apps.documents.tools.review import is_review, read_review
from nlpkit.apps.text.languages import parse_language
from nlpkit.core.errors import ConfigError, InputError

COLUMNS = ("source", "target", "source_lang", "target_lang")
"""Columns of the tables that are written."""

_SOURCES = ("source", "src")
_TARGETS = ("translation", "right", "target", "tgt", "corrected")
_LINE_ENDS = re.compile(r"[\t\r\n\v\f]+")


@dataclass(frozen=True)
class _Columns:
    """Which columns of a table hold what; None for languages that it does not say."""

    source: int = 0
    target: int = 1
    source_lang: int | None = None
    target_lang: int | None = None


def read_entries(
    path: str, *, source_lang: str | None = None, target_lang: str | None = None, encoding: str = "utf-8"
) -> Iterator[Entry]:
    """Read the entries of a file, by its suffix: ``.tmx``, ``.csv``, else a table with tabs.

    A table has two columns, or a first line with the names of its columns: ``source``, and ``translation``, ``target``
    or ``right``; it may have ``source_lang`` and ``target_lang``. Of a review file the column ``translation`` counts.

    Args:
        path: The file.
        source_lang: Code of the language to translate from; entries from others are left out. Tables without a column
            for it do not say it.
        target_lang: Code of the language to translate to, likewise.
        encoding: Encoding of a table.

    Raises:
        InputError: The file cannot be read.
        ConfigError: A table's languages are not named.
    """
    if path.lower().removesuffix(".gz").endswith(".tmx"):
        yield from read_tmx(path, source_lang=source_lang, target_lang=target_lang)
        return
    name = display_name(path)
    rows = read_table(path, headers=frozenset(_SOURCES), encoding=encoding)
    number, first = next(rows, (0, []))
    if is_review(first):
        one, two = _named(name, source_lang), _named(name, target_lang)
        for sentence in read_review(path, encoding=encoding):
            yield Entry(sentence.source, sentence.translation, one, two, name)
        return
    columns = _columns(first, name)
    pairs = [(number, first)] if first and columns is None else []
    for line, row in chain(pairs, rows):
        entry = _entry(row, line, columns or _Columns(), name, source_lang, target_lang)
        if source_lang in (None, entry.source_lang) and target_lang in (None, entry.target_lang):
            yield entry


def _columns(first: list[str], name: str) -> _Columns | None:
    """Return the columns that a first row names; None if it names none, but is a row of the table."""
    names = [cell.strip().lower() for cell in first]
    sources = [names.index(one) for one in _SOURCES if one in names]
    targets = [names.index(one) for one in _TARGETS if one in names]
    if not sources:
        return None
    if not targets:
        raise InputError(f"{name}:1: there is a column {names[sources[0]]!r}, but none of {', '.join(_TARGETS)}.")
    languages = [names.index(one) if one in names else None for one in COLUMNS[2:]]
    return _Columns(sources[0], targets[0], *languages)


def _entry(
    row: list[str], number: int, columns: _Columns, name: str, source_lang: str | None, target_lang: str | None
) -> Entry:
    if len(row) <= max(columns.source, columns.target):
        raise InputError(f"{name}:{number}: there are {len(row)} columns, and no source with its translation. Mend it.")
    one = _language(row, columns.source_lang, number, name) or _named(name, source_lang)
    two = _language(row, columns.target_lang, number, name) or _named(name, target_lang)
    return Entry(row[columns.source].strip(), row[columns.target].strip(), one, two, name)


def _language(row: list[str], column: int | None, number: int, name: str) -> str | None:
    """Return the code of the language in a column; None where there is none."""
    said = "" if column is None or column >= len(row) else row[column].strip()
    try:
        return parse_language(said) if said else None
    except ConfigError as error:
        raise InputError(f"{name}:{number}: {error}") from error


def _named(name: str, language: str | None) -> str:
    if language is None:
        raise ConfigError(f"{name} does not say its languages. Name them: --from en --to de.")
    return language


def write_entries(entries: Iterable[Entry], *, delimiter: str = "\t") -> Iterator[str]:
    """Yield the lines of a table: source, target, and their languages; line ends and tabs are written as blanks.

    Args:
        entries: The entries.
        delimiter: A tab, or the comma of CSV.
    """
    rows = ((entry.source, entry.target, entry.source_lang, entry.target_lang) for entry in entries)
    for row in chain([COLUMNS], rows):
        cells = [_LINE_ENDS.sub(" ", cell) for cell in row]
        if delimiter == "\t":
            # As tables with tabs are read: quotes mean nothing in them.
            yield "\t".join(cells) + "\n"
            continue
        line = io.StringIO()
        csv.writer(line, delimiter=delimiter, lineterminator="\n").writerow(cells)
        yield line.getvalue()
