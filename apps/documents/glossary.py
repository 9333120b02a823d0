"""Reads glossaries: tables with tabs or commas, and TBX."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from xml.parsers import expat

from nlpkit.apps.documents.files import decode_text, display_name, read_bytes
from nlpkit.apps.documents.table_rows import table_rows
from nlpkit.apps.documents.untrusted_xml import untrusted_parser
from nlpkit.apps.text.languages import language_of_tag
from nlpkit.core.errors import ConfigError, InputError

_REFUSED = frozenset({"deprecatedTerm", "deprecatedTerm-admn-sts", "supersededTerm", "supersededTerm-admn-sts"})
"""What TBX says of terms that are not to be used any more."""


def read_glossary(
    path: str, *, encoding: str = "utf-8", source_lang: str | None = None, target_lang: str | None = None
) -> dict[str, str]:
    """Read a glossary by the suffix of its name: ``.tbx``, ``.csv``, else a term, a tab, its translation on each line.

    Blank lines and ``#`` lines are skipped; so is what is in further columns of CSV, and a first line that names the
    columns ``source`` and ``target``.

    Args:
        path: The file.
        encoding: Its encoding; TBX says its own.
        source_lang: Code of the language of the terms, for TBX; None for all but that of the translations.
        target_lang: Code of the language of the translations, for TBX.

    Returns:
        Term to translation, in the file's order.

    Raises:
        InputError: The file cannot be read, or a line is not a pair, or a term has two translations.
        ConfigError: A TBX needs the language of the translations.
    """
    name = display_name(path)
    data = read_bytes(path)
    suffix = path.lower().removesuffix(".gz").rpartition(".")[2]
    if suffix == "tbx":
        if target_lang is None:
            raise ConfigError(f"{name} has terms in several languages. Name the one to translate to with --to.")
        terms = _read_tbx(data, name, source_lang, target_lang)
    else:
        text = decode_text(data, encoding=encoding, where=name)
        terms = _pairs(_csv(text, name) if suffix == "csv" else _tabs(text, name), name)
    if not terms:
        raise InputError(f"{name} holds no terms{'' if suffix != 'tbx' else ' of these languages'}.")
    return terms


def _pairs(pairs: Iterator[tuple[int, str, str]], name: str) -> dict[str, str]:
    terms: dict[str, str] = {}
    for number, term, translation in pairs:
        if terms.get(term, translation) != translation:
            raise InputError(
                f"{name}:{number}: {term!r} is translated as {translation!r} here, but as {terms[term]!r} above. "
                "Keep one of the two."
            )
        terms[term] = translation
    return terms


def _tabs(text: str, name: str) -> Iterator[tuple[int, str, str]]:
    for number, cells in _rows(text, name, "\t"):
        if len(cells) != 2 or not all(cells):
            said = "\t".join(cells).strip()[:80]
            raise InputError(f"{name}:{number}: {said!r} is not a term, one tab and its translation. Mend the line.")
        yield number, cells[0], cells[1]


def _csv(text: str, name: str) -> Iterator[tuple[int, str, str]]:
    first = text.partition("\n")[0]
    comma = ";" if first.count(";") > first.count(",") else ","
    for number, cells in _rows(text, name, comma):
        if len(cells) < 2 or not all(cells[:2]):
            said = comma.join(cells)[:70]
            raise InputError(f"{name}:{number}: {said!r} is not a term and its translation. Mend the line.")
        yield number, cells[0], cells[1]


def _rows(text: str, name: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line and cells of the rows of a table, but for a first one that names the columns."""
    for index, (number, row) in enumerate(table_rows(text, name, delimiter=delimiter)):
        cells = [cell.strip() for cell in row]
        if index or [cell.lower() for cell in cells[:2]] != ["source", "target"]:
            yield number, cells


def _read_tbx(data: bytes, name: str, source_lang: str | None, target_lang: str) -> dict[str, str]:
    reader = _TbxReader(name)
    reader.run(data)
    terms: dict[str, str] = {}
    for concept in reader.concepts:
        for target in concept.get(target_lang, ())[:1]:
            for language, sources in concept.items():
                if language != target_lang and source_lang in (None, language):
                    for source in sources:
                        # A homonym of an earlier concept: only one of the two can be asked for.
                        terms.setdefault(source, target)
    return terms


class _TbxReader:
    """Reads TBX 2 (termEntry, langSet, tig) and 3 (conceptEntry, langSec, termSec)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.concepts: list[dict[str, list[str]]] = []
        self._concept: dict[str, list[str]] = {}
        self._language: str | None = None
        self._texts: list[str] | None = None
        self._term, self._status, self._note = "", "", ""

    def run(self, data: bytes) -> None:
        """Read a file.

        Raises:
            InputError: It is no XML, or declares entities.
        """
        parser = untrusted_parser(
            lambda why: InputError(f"{self.name} cannot be read as TBX: {why}. Export it again without them.")
        )
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._data
        try:
            parser.Parse(data, True)
        except (expat.ExpatError, ValueError, LookupError) as error:
            line = getattr(error, "lineno", 0)
            raise InputError(f"{self.name}:{line} cannot be read as TBX: {error}. Export it again.") from error

    def _start(self, tag: str, attributes: Mapping[str, str]) -> None:
        tag = tag.rpartition(":")[2]
        if tag in ("termEntry", "conceptEntry"):
            self._concept = {}
        elif tag in ("langSet", "langSec"):
            self._language = language_of_tag(attributes.get("xml:lang"))
        elif tag in ("tig", "ntig", "termSec"):
            self._term, self._status = "", ""
        elif tag in ("term", "termNote", "administrativeStatus"):
            self._texts = []
            self._note = attributes.get("type", tag)

    def _data(self, text: str) -> None:
        if self._texts is not None:
            self._texts.append(text)

    def _end(self, tag: str) -> None:
        tag = tag.rpartition(":")[2]
        if tag in ("term", "termNote", "administrativeStatus") and self._texts is not None:
            text = " ".join("".join(self._texts).split())
            self._texts = None
            if tag == "term":
                self._term = text
            elif self._note == "administrativeStatus":
                self._status = text
        elif tag in ("tig", "ntig", "termSec"):
            if self._term and self._language and self._status not in _REFUSED:
                terms = self._concept.setdefault(self._language, [])
                # The preferred term is the one to use.
                terms.insert(0 if self._status.startswith("preferredTerm") else len(terms), self._term)
        elif tag in ("termEntry", "conceptEntry"):
            self.concepts.append(self._concept)
