"""PPTX: slides in their order, with their tables, charts, notes and comments."""

from __future__ import annotations

import re

from nlpkit.apps.documents.document import Document, ReadOptions, Results, broken
from nlpkit.apps.documents.formats.office.drawing import DRAWING, GRAPHIC, GRAPHIC_TEXTS
from nlpkit.apps.documents.formats.office.grammar import Grammar
from nlpkit.apps.documents.formats.office.package import Package
from nlpkit.apps.documents.formats.office.xml_reader import read_paragraphs
from nlpkit.apps.documents.formats.office.zipped import (
    ZipSkeleton,
    part_tokens,
    part_types,
    read_part,
    related_parts,
    zip_document,
)

_TITLE = "a presentation"
_MAIN = re.compile(r"presentationml\.(?:presentation|slideshow|template)\.main\+xml$|ms-powerpoint\.\S*main\+xml$")
_SLIDE = "presentationml.slide+xml"
_NOTES = "presentationml.notesSlide+xml"
_COMMENTS = "presentationml.comments+xml"
_MODERN_COMMENTS = "ms-powerpoint.comments+xml"

_COMMENT = Grammar(paragraphs=frozenset({"p:text"}), direct=True)


class Slides:
    """Reads and writes PPTX, also with macros, which are kept."""

    name = "pptx"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a presentation.

        Raises:
            InputError: It is no presentation, or encrypted, broken or too large.
        """
        package = Package(data, options, _TITLE)
        types = part_types(package, options, _TITLE)
        main = next((part for part, kind in types.items() if _MAIN.search(kind)), None)
        if main is None:
            raise broken(_TITLE, options, "it has no main part")
        related = related_parts(package, main, options, _TITLE)
        shown = [
            related.get(token.get("r:id") or token.local("embed") or "", "")
            for token in part_tokens(package, main, options, _TITLE)
            if token.name == "p:sldId"
        ]
        slides = [part for part in dict.fromkeys(shown) if types.get(part, "").endswith(_SLIDE)]
        slides += [part for part, kind in types.items() if kind.endswith(_SLIDE) and part not in slides]
        found: list[tuple[str, Grammar, str]] = []
        for number, slide in enumerate(slides, start=1):
            found.append((slide, DRAWING, f"slide {number}"))
            for part in related_parts(package, slide, options, _TITLE).values():
                kind = types.get(part, "")
                if kind.endswith(_NOTES):
                    found.append((part, DRAWING, f"notes of slide {number}"))
                elif kind.endswith(_COMMENTS):
                    found.append((part, _COMMENT, f"comments on slide {number}"))
                elif kind.endswith(_MODERN_COMMENTS):
                    found.append((part, GRAPHIC, f"comments on slide {number}"))
                elif GRAPHIC_TEXTS.search(kind):
                    found.append((part, GRAPHIC, f"slide {number}"))
        texts = [
            (part, read_paragraphs(read_part(package, part, options, _TITLE), grammar, place=place))
            for part, (grammar, place) in {part: (grammar, place) for part, grammar, place in found}.items()
        ]
        return zip_document(self.name, package, texts)

    def write(self, skeleton: ZipSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a presentation."""
        return skeleton.write(results)
