"""A translation memory in a file of SQLite."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING

from nlpkit.apps.documents.files import display_name
from nlpkit.apps.documents.memory.entries import (
    MOST_CHARACTERS,
    Entry,
    key_of,
    number_masks,
    renumbered,
    shape_of,
    with_masks,
    with_numbers,
)
from nlpkit.core.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

_LINE_END = re.compile(r"[ \t]*[\r\n]+[ \t]*")
VERSION = 1
_APPLICATION = 0x6E6C706B
"""What SQLite's header says of our files: ``nlpk``."""

_TABLE = """
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY,
    source_lang TEXT NOT NULL,
    target_lang TEXT NOT NULL,
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    origin TEXT NOT NULL,
    created TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (source_lang, target_lang, source)
)
"""
MOST_ENTRIES = 2_000_000
"""Most entries of a language pair that are looked through for a sentence that is nearly the same."""


NO_LIKENESS = "Sentences that are alike need rapidfuzz: pip install 'nlpkit[documents]'."


def finds_alike() -> bool:
    """Return whether the library is there that tells how much sentences are alike."""
    return find_spec("rapidfuzz") is not None


@dataclass(frozen=True)
class Found:
    """What a memory says of a sentence.

    Attributes:
        source: The sentence that it has.
        target: Its translation, with the masks of the sentence that was asked about.
        score: How much the two sentences are alike, from 0 to 1.
    """

    source: str
    target: str
    score: float = 1.0


@dataclass(frozen=True)
class Added:
    """What came of adding entries: how many are new, how many replaced another translation, how many were known."""

    new: int = 0
    replaced: int = 0
    known: int = 0


class Memory:
    """A translation memory; use it in a ``with`` block.

    Args:
        path: Its file.
        create: Whether a file that is not there is made; a memory that is only asked stays as it is.

    Raises:
        InputError: The file is not there, or no translation memory, or damaged.
    """

    def __init__(self, path: str, *, create: bool = False) -> None:
        self.path = path
        self._sources: dict[tuple[str, str], list[str]] = {}
        self._shapes: dict[tuple[str, str], dict[str, str]] = {}
        name = display_name(path)
        try:
            mode = "rwc" if create else "ro"
            self._data = sqlite3.connect(f"file:{_quoted(path)}?mode={mode}", uri=True)
        except sqlite3.Error as error:
            raise _unopened(name, error) from error
        try:
            self._data.execute("PRAGMA trusted_schema = OFF")
            self._check(name, create=create)
        except InputError:
            self._data.close()
            raise
        except sqlite3.OperationalError as error:
            self._data.close()
            raise _unopened(name, error) from error
        except sqlite3.DatabaseError as error:
            self._data.close()
            raise InputError(f"{name} is no translation memory ({error}). Name another file.") from error

    def _check(self, name: str, *, create: bool) -> None:
        (application,) = self._data.execute("PRAGMA application_id").fetchone()
        (version,) = self._data.execute("PRAGMA user_version").fetchone()
        (tables,) = self._data.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not tables and create:
            # In this order: a file that is left behind half made can be taken for what it is, and made.
            with self._data:
                self._data.execute(f"PRAGMA application_id = {_APPLICATION}")
                self._data.execute(f"PRAGMA user_version = {VERSION}")
                self._data.execute(_TABLE)
        elif application != _APPLICATION or version != VERSION:
            raise InputError(f"{name} is a database, but no translation memory of this version. Name another file.")

    def __enter__(self) -> Memory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._data.close()

    def add(self, entries: Iterable[Entry]) -> Added:
        """Add entries, all of them or none; a new translation of a known sentence takes the place of the old one.

        Args:
            entries: The entries; those with an empty side or one of more than `MOST_CHARACTERS` are left out.

        Raises:
            InputError: The file cannot be written.
        """
        new = replaced = known = 0
        try:
            with self._data:
                for entry in map(renumbered, entries):
                    longest = max(len(entry.source), len(entry.target))
                    if not entry.source or not entry.target or longest > MOST_CHARACTERS:
                        continue
                    pair = (entry.source_lang, entry.target_lang, key_of(entry.source))
                    row = self._data.execute(
                        "SELECT target FROM entries WHERE source_lang = ? AND target_lang = ? AND source = ?", pair
                    ).fetchone()
                    if row is not None and row[0] == entry.target:
                        known += 1
                        continue
                    self._data.execute(
                        "INSERT INTO entries (source_lang, target_lang, source, target, origin) VALUES (?, ?, ?, ?, ?) "
                        "ON CONFLICT DO UPDATE SET target = excluded.target, origin = excluded.origin, "
                        "created = CURRENT_TIMESTAMP",
                        (*pair, entry.target, entry.origin),
                    )
                    new, replaced = new + (row is None), replaced + (row is not None)
        except sqlite3.DatabaseError as error:
            raise InputError(f"{display_name(self.path)} cannot be written ({error}).") from error
        self._sources.clear()
        return Added(new, replaced, known)

    def find(self, text: str, source_lang: str, target_lang: str) -> Found | None:
        """Find a sentence, as it is or with other numbers.

        Args:
            text: The sentence, with masks.
            source_lang: Code of its language.
            target_lang: Code of the language wanted.
        """
        source, names = self._own(text)
        target = self._target(source, source_lang, target_lang)
        found = source
        if target is None:
            self._known(source_lang, target_lang)
            found = self._shapes[source_lang, target_lang].get(shape_of(source), "")
            known = self._target(found, source_lang, target_lang) if found else None
            target = known and with_numbers(source, Entry(found, known, source_lang, target_lang))
        masked = with_masks(_on_lines_of(text, target), names) if target is not None else None
        return None if masked is None else Found(found, masked)

    def find_like(
        self, text: str, source_lang: str, target_lang: str, *, at_least: float, most: int = 1
    ) -> list[Found]:
        """Find sentences that are nearly the same, the likest first.

        Args:
            text: The sentence, with masks.
            source_lang: Code of its language.
            target_lang: Code of the language wanted.
            at_least: Least likeness, from 0 to 1: that of the two texts by insertions and deletions of characters.
            most: Most sentences.

        Raises:
            ConfigError: The library that compares texts is missing.
        """
        try:
            from rapidfuzz import fuzz, process
        except ImportError as error:
            raise ConfigError(NO_LIKENESS) from error
        source, names = self._own(text)
        known = self._known(source_lang, target_lang)
        near = process.extract(source, known, scorer=fuzz.ratio, score_cutoff=100 * at_least, limit=most)
        found = []
        for other, score, _ in near:
            target = self._target(other, source_lang, target_lang) or ""
            other_numbers = with_numbers(source, Entry(other, target, source_lang, target_lang))
            masked = with_masks(_on_lines_of(text, other_numbers or target), names)
            if masked is not None:
                found.append(Found(other, masked, 1.0 if other_numbers else score / 100))
        return found

    def _own(self, text: str) -> tuple[str, dict[int, str]]:
        """Return a sentence as the memory writes it, and the masks that its numbers stand for."""
        numbers = number_masks(text)
        source = renumbered(Entry(text, text, "", "")).source
        return key_of(source), {number: mask for mask, number in numbers.items()}

    def _target(self, source: str, source_lang: str, target_lang: str) -> str | None:
        rows = self._rows(
            "SELECT target FROM entries WHERE source_lang = ? AND target_lang = ? AND source = ?",
            (source_lang, target_lang, source),
        )
        return next((str(row[0]) for row in rows), None)

    def _rows(self, query: str, values: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
        try:
            yield from self._data.execute(query, values)
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"The translation memory {display_name(self.path)} cannot be read ({error}). Get it again, or make it "
                "anew from its TMX file."
            ) from error

    def _known(self, source_lang: str, target_lang: str) -> Sequence[str]:
        pair = (source_lang, target_lang)
        if pair not in self._sources:
            rows = self._rows(
                "SELECT source FROM entries WHERE source_lang = ? AND target_lang = ? ORDER BY id LIMIT ?",
                (*pair, MOST_ENTRIES),
            )
            self._sources[pair] = [str(row[0]) for row in rows]
            self._shapes[pair] = {shape_of(source): source for source in reversed(self._sources[pair])}
        return self._sources[pair]

    def entries(self, source_lang: str | None = None, target_lang: str | None = None) -> Iterator[Entry]:
        """Yield entries in the order in which they came in.

        Args:
            source_lang: Code of a language; None for all.
            target_lang: Code of a language; None for all.
        """
        rows = self._rows(
            "SELECT source, target, source_lang, target_lang, origin FROM entries "
            "WHERE (?1 IS NULL OR source_lang = ?1) AND (?2 IS NULL OR target_lang = ?2) ORDER BY id",
            (source_lang, target_lang),
        )
        while chunk := list(islice(rows, 1000)):
            yield from (Entry(*map(str, row)) for row in chunk)

    def counts(self) -> dict[tuple[str, str], int]:
        """Return how many entries there are of each pair of languages."""
        rows = self._rows(
            "SELECT source_lang, target_lang, count(*) FROM entries GROUP BY source_lang, target_lang ORDER BY 1, 2"
        )
        return {(str(one), str(two)): int(str(count)) for one, two, count in rows}


def _unopened(name: str, error: sqlite3.Error) -> InputError:
    return InputError(f"The translation memory {name} cannot be opened ({error}). `nlpkit memory import` makes one.")


def _on_lines_of(text: str, target: str) -> str:
    """Return a translation on one line if the sentence is on one: elsewhere a line end could mean something."""
    return target if "\n" in text else _LINE_END.sub(" ", target)


def _quoted(path: str) -> str:
    from urllib.parse import quote

    return quote(os.fsencode(path))
