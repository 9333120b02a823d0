"""DOCX: body, headers, footers, notes, comments, text boxes, charts and alternative texts."""

from __future__ import annotations

import re

from nlpkit.apps.documents.document import Document, ReadOptions, Results, broken
from nlpkit.apps.documents.formats.office.drawing import GRAPHIC, GRAPHIC_TEXTS
from nlpkit.apps.documents.formats.office.grammar import Grammar
from nlpkit.apps.documents.formats.office.package import Package
from nlpkit.apps.documents.formats.office.xml_reader import read_paragraphs
from nlpkit.apps.documents.formats.office.xml_writer import XmlText
from nlpkit.apps.documents.formats.office.zipped import ZipSkeleton, part_types, read_part, zip_document

_TITLE = "a Word document"
_MAIN = re.compile(r"wordprocessingml\.(?:document|template)\.main\+xml$|ms-word\.\w+\.macro\S*main\+xml$")
_OTHERS = re.compile(r"wordprocessingml\.(?P<what>header|footer|footnotes|endnotes|comments)\+xml$")
_ORDER = ("header", "main", "footnotes", "endnotes", "comments", "footer")

WORD = Grammar(
    paragraphs=frozenset({"w:p"}),
    containers=frozenset(
        {"w:hyperlink", "w:ins", "w:moveTo", "w:smartTag", "w:customXml", "w:sdt", "w:sdtContent", "w:dir", "w:bdo"}
    ),
    runs=frozenset({"w:r"}),
    looks=frozenset({"w:rPr"}),
    texts=frozenset({"w:t"}),
    leading=frozenset({"w:pPr"}),
    letters={"w:noBreakHyphen": "\u2011"},
    breaks=frozenset({"w:br", "w:cr", "w:tab", "w:ptab"}),
    dropped=frozenset({"w:proofErr", "w:lastRenderedPageBreak", "w:softHyphen"}),
    # What was deleted is kept as it is; a program shows it, but nobody reads it as text.
    hidden=frozenset({"w:del", "w:moveFrom", "w:pPr", "w:rPr", "w:sdtPr", "w:sectPr", "w:tblPr", "w:instrText"}),
    said=frozenset({"w:fldSimple", "w:ruby", "m:oMath", "m:oMathPara"}),
    attributes={"wp:docPr": ("descr",), "p:cNvPr": ("descr",)},
    kinds={"w:tc": "cell"},
    leading_kinds=(
        (r'<w:pStyle w:val="(?:Heading|Title|Subtitle|berschrift|Titre|Ttulo)', "heading"),
        (r"<w:outlineLvl\b", "heading"),
        (r'<w:numPr\b|<w:pStyle w:val="List', "list_item"),
    ),
    noise=(
        r' w:rsid\w*="[^"]*"|<w:(?:lang|noProof|webHidden)\b[^>]*/>|<w:rPr\s*/>|<w:rPr>\s*</w:rPr>|(?<!\s)\s+(?=/?>)'
        r"|<w:rPr>(?:\s|<w:(?:lang|noProof|webHidden)\b[^>]*/>)*</w:rPr>"
    ),
    keep_blanks=True,
)


class Word:
    """Reads and writes DOCX, also with macros, which are kept."""

    name = "docx"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a document.

        Raises:
            InputError: It is no Word document, or encrypted, broken or too large.
        """
        package = Package(data, options, _TITLE)
        found: list[tuple[int, str, Grammar]] = []
        for part, kind in part_types(package, options, _TITLE).items():
            other = _OTHERS.search(kind)
            if _MAIN.search(kind):
                found.append((_ORDER.index("main"), part, WORD))
            elif other:
                found.append((_ORDER.index(other.group("what")), part, WORD))
            elif GRAPHIC_TEXTS.search(kind):
                found.append((len(_ORDER), part, GRAPHIC))
        if not any(order == _ORDER.index("main") for order, _, _ in found):
            raise broken(_TITLE, options, "it has no main part")
        texts: list[tuple[str, XmlText]] = [
            (part, read_paragraphs(read_part(package, part, options, _TITLE), grammar, place=_place(part)))
            for _, part, grammar in sorted(found, key=lambda entry: entry[:2])
        ]
        return zip_document(self.name, package, texts)

    def write(self, skeleton: ZipSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a document."""
        return skeleton.write(results)


def _place(part: str) -> str:
    """Return what people call a part: ``paragraph`` for the text itself, ``footnotes, paragraph`` for others."""
    name = part.rpartition("/")[2].removesuffix(".xml")
    return "paragraph" if name == "document" else f"{name}, paragraph"
