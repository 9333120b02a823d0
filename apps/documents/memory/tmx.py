"""TMX, in which programs for translators exchange memories: read piece by piece, as such files are large."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from nlpkit.apps.documents.files import display_name, open_input
from nlpkit.apps.documents.memory.entries import MOST_CHARACTERS, Entry
from nlpkit.apps.documents.translation.masks import MASK
from nlpkit.apps.documents.untrusted_xml import FORBIDDEN, untrusted_parser
from nlpkit.apps.text.languages import fits_language, language_of_tag
from nlpkit.core.errors import InputError

MAX_BYTES = 2**31
"""Largest file that is read."""

_CHUNK = 2**20
_CODES = frozenset({"bpt", "ept", "ph", "it", "ut"})
_BRACKETS = re.compile("[⟦⟧]")


def read_tmx(path: str, *, source_lang: str | None = None, target_lang: str | None = None) -> Iterator[Entry]:
    """Read entries, in both directions unless languages are named.

    Inline codes become masks, whatever stands in them; the two languages of a unit share their numbers.

    Args:
        path: The file.
        source_lang: Code of the language to translate from; None for the one that the file calls its source, or all.
        target_lang: Code of the language to translate to; None for all others.

    Raises:
        InputError: The file cannot be read, is no TMX, or declares entities.
    """
    name = display_name(path)
    reader = _TmxReader(name)
    used = 0
    with open_input(path) as stream:
        while True:
            chunk = stream.read(_CHUNK)
            used += len(chunk)
            if used > MAX_BYTES:
                raise InputError(f"{name} is larger than {MAX_BYTES / 2**30:g} GB. Split it.")
            reader.feed(chunk)
            yield from _entries(reader, source_lang, target_lang, name)
            if not chunk:
                return


def _entries(reader: _TmxReader, source_lang: str | None, target_lang: str | None, origin: str) -> Iterator[Entry]:
    units, reader.units = reader.units, []
    for said, found in units:
        # Chinese of a file that tells its script is taken for Chinese that was asked for without one, and so around.
        unit = _renamed(_renamed(found, source_lang), target_lang)
        first = source_lang or said or reader.source_lang
        for one, source in unit.items():
            if first is not None and one != first:
                continue
            for two, target in unit.items():
                if two != one and target_lang in (None, two) and source.strip() and target.strip():
                    yield Entry(source, target, one, two, origin)


def _renamed(unit: dict[str, str], wanted: str | None) -> dict[str, str]:
    """Return a unit in which the text that fits a wanted language has its code."""
    if wanted is None or wanted in unit:
        return unit
    fitting = next((code for code in unit if fits_language(wanted, code)), None)
    return unit if fitting is None else {wanted if code == fitting else code: text for code, text in unit.items()}


class _TmxReader:
    def __init__(self, name: str) -> None:
        self.name = name
        self.units: list[tuple[str | None, dict[str, str]]] = []
        self.source_lang: str | None = None
        self._unit: dict[str, str] = {}
        self._said: str | None = None
        self._codes: dict[tuple[str, str], int] = {}
        self._seen: dict[str, int] = {}
        self._lang: str | None = None
        self._text: list[str] | None = None
        self._used = 0
        self._inside = 0
        self._root = ""
        self._parser = untrusted_parser(
            lambda why: InputError(f"{name} cannot be read as TMX: {why}. Export it again without them.")
        )
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._data

    def feed(self, chunk: bytes) -> None:
        """Read on; an empty chunk is the end."""
        try:
            self._parser.Parse(chunk, not chunk)
        except (expat.ExpatError, ValueError, LookupError) as error:
            line = getattr(error, "lineno", 0)
            raise InputError(f"{self.name}:{line} cannot be read as TMX: {error}. Export it again.") from error

    def _start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if not self._root:
            self._root = tag
            if tag.rpartition(":")[2] != "tmx":
                raise InputError(f"{self.name} is no TMX: its first element is {tag!r}. Name another file.")
        if tag == "header":
            self.source_lang = language_of_tag(attributes.get("srclang"))
        elif tag == "tu":
            self._unit, self._codes = {}, {}
            self._said = language_of_tag(attributes.get("srclang"))
        elif tag == "tuv":
            self._lang = language_of_tag(attributes.get("xml:lang") or attributes.get("lang"))
        elif tag == "seg":
            self._text, self._seen, self._used = [], {}, 0
        elif tag in _CODES and self._text is not None:
            if not self._inside:
                self._mask(self._text, tag, attributes)
            self._inside += 1
        elif self._inside:
            self._inside += 1

    def _mask(self, text: list[str], tag: str, attributes: Mapping[str, str]) -> None:
        """Add the mask of a code to a text; one with more codes than characters is too long as well."""
        if self._used > MOST_CHARACTERS or len(self._codes) > MOST_CHARACTERS:
            self._used = MOST_CHARACTERS + 1
            return
        self._seen[tag] = self._seen.get(tag, 0) + 1
        mark = attributes.get("i") or attributes.get("x") or f"#{self._seen[tag]}"
        mask = f"⟦{self._codes.setdefault((tag, mark), len(self._codes) + 1)}⟧"
        self._used += len(mask)
        text.append(mask)

    def _data(self, text: str) -> None:
        if self._text is not None and not self._inside and self._used <= MOST_CHARACTERS:
            self._used += len(text)
            self._text.append(_BRACKETS.sub("", text))

    def _end(self, tag: str) -> None:
        if self._inside:
            self._inside -= 1
        elif tag == "seg" and self._text is not None:
            if self._lang is not None and self._used <= MOST_CHARACTERS:
                self._unit.setdefault(self._lang, "".join(self._text))
            self._text = None
        elif tag == "tu":
            self.units.append((self._said, self._unit))


def write_tmx(entries: Iterable[Entry], *, version: str) -> Iterator[str]:
    """Yield the pieces of a TMX file.

    Args:
        entries: The entries.
        version: Version of the program that writes it.
    """
    yield (
        '<?xml version="1.0" encoding="UTF-8"?>\n<tmx version="1.4">\n'
        f'<header creationtool="nlpkit" creationtoolversion={quoteattr(version)} segtype="sentence" o-tmf="nlpkit" '
        'adminlang="en" srclang="*all*" datatype="plaintext"/>\n<body>\n'
    )
    for entry in entries:
        yield f"<tu srclang={quoteattr(entry.source_lang)}>"
        for language, text in ((entry.source_lang, entry.source), (entry.target_lang, entry.target)):
            yield f"<tuv xml:lang={quoteattr(language)}><seg>{_written(text)}</seg></tuv>"
        yield "</tu>\n"
    yield "</body>\n</tmx>\n"


def _written(text: str) -> str:
    return MASK.sub(r'<ph x="\1"/>', escape(FORBIDDEN.sub("", text)))
