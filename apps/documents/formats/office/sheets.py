"""XLSX: the texts of cells, comments, shapes and charts; numbers, formulas and what they look for are kept."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nlpkit.apps.documents.document import Document, ReadOptions, Results, broken
from nlpkit.apps.documents.formats.office.drawing import DRAWING, GRAPHIC, GRAPHIC_TEXTS
from nlpkit.apps.documents.formats.office.grammar import Grammar
from nlpkit.apps.documents.formats.office.package import Package
from nlpkit.apps.documents.formats.office.xml_reader import read_paragraphs
from nlpkit.apps.documents.formats.office.xml_writer import XmlText
from nlpkit.apps.documents.formats.office.zipped import ZipSkeleton, part_tokens, part_types, read_part, zip_document

_TITLE = "a workbook"
_MAIN = re.compile(r"spreadsheetml\.(?:sheet|template)\.main\+xml$|ms-excel\.\S*main\+xml$")
_SHEET = "spreadsheetml.worksheet+xml"
_STRINGS = "spreadsheetml.sharedStrings+xml"
_COMMENTS = "spreadsheetml.comments+xml"
_THREADS = "ms-excel.threadedcomments+xml"
_NAMES = ("spreadsheetml.table+xml", "spreadsheetml.pivotCacheDefinition+xml")
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_FORMULAS = frozenset({"s:f", "s:formula", "s:formula1", "s:formula2", "s:definedName"})

_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")

_CELLS = Grammar(
    paragraphs=frozenset({"s:si", "s:is", "s:text"}),
    runs=frozenset({"s:r"}),
    looks=frozenset({"s:rPr"}),
    texts=frozenset({"s:t"}),
    trailing=frozenset({"s:rPh", "s:phoneticPr"}),
    hidden=frozenset({"s:rPh", "s:f", "s:v"}),
    kinds={"s:si": "cell", "s:is": "cell", "s:text": "paragraph"},
    keep_blanks=True,
    keep_lines=True,
)
_THREAD = Grammar(paragraphs=frozenset({"threads:threadedComment"}), texts=frozenset({"threads:text"}), keep_lines=True)


class Sheets:
    """Reads and writes XLSX, also with macros, which are kept."""

    name = "xlsx"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a workbook.

        Raises:
            InputError: It is no workbook, or encrypted, broken or too large.
        """
        package = Package(data, options, _TITLE)
        types = part_types(package, options, _TITLE)
        if not any(_MAIN.search(kind) for kind in types.values()):
            raise broken(_TITLE, options, "it has no main part")
        texts: list[tuple[str, XmlText]] = []
        for part, kind in types.items():
            grammar = None
            if kind.endswith((_STRINGS, _COMMENTS)) or (kind.endswith(_SHEET) and _has_texts(package, part, options)):
                grammar = _CELLS
            elif kind.endswith(_THREADS):
                grammar = _THREAD
            elif kind.endswith("drawing+xml") or GRAPHIC_TEXTS.search(kind):
                grammar = GRAPHIC if GRAPHIC_TEXTS.search(kind) else DRAWING
            if grammar is not None:
                source = read_part(package, part, options, _TITLE)
                texts.append((part, read_paragraphs(source, grammar, place=part)))
        names = frozenset(_needed(package, types, options))
        kept = [
            frozenset(at for at, segment in enumerate(text.segments) if _key(segment.text) in names)
            for _, text in texts
        ]
        n_kept = sum(map(len, kept))
        notes = (f"{n_kept} texts stay as they are: formulas, tables or filters look for them.",) if n_kept else ()
        return zip_document(self.name, package, texts, kept=kept, notes=notes)

    def write(self, skeleton: ZipSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a workbook."""
        return skeleton.write(results)


def _has_texts(package: Package, part: str, options: ReadOptions) -> bool:
    return any(token.name == "s:is" for token in part_tokens(package, part, options, _TITLE))


def _needed(package: Package, types: dict[str, str], options: ReadOptions) -> Iterator[str]:
    """Return the texts that something in a workbook looks for: headings of tables, words in formulas, filters."""
    for part, kind in types.items():
        if kind.endswith(_NAMES):
            for token in part_tokens(package, part, options, _TITLE):
                if token.name in ("s:tableColumn", "s:cacheField"):
                    yield _key(token.get("name") or "")
                elif token.name == "s:s":
                    yield _key(token.get("v") or "")
        elif kind.endswith(_SHEET) or _MAIN.search(kind):
            inside = ""
            for token in part_tokens(package, part, options, _TITLE):
                if token.kind == "start" and token.name in _FORMULAS:
                    inside = token.name
                elif token.kind == "end":
                    inside = ""
                elif token.kind == "text" and inside:
                    for quoted in _QUOTED.findall(token.raw):
                        yield from map(_key, {quoted, *quoted.split(",")})
                elif token.name in ("s:filter", "s:customFilter"):
                    yield _key((token.get("val") or "").strip("* "))


def _key(text: str) -> str:
    """Return what texts have in common that count as the same; some parts write control characters as ``_x000a_``."""
    plain = _ESCAPED.sub(lambda match: chr(int(match.group(1), 16)), text)
    return plain.replace("\r\n", "\n").strip().casefold()
