"""OpenDocument: texts, presentations and sheets, zipped or as one XML file."""

from __future__ import annotations

import re

from nlpkit.apps.documents.document import Document, ReadOptions, Results, broken
from nlpkit.apps.documents.formats.office.grammar import Grammar
from nlpkit.apps.documents.formats.office.package import Package
from nlpkit.apps.documents.formats.office.xml_reader import read_paragraphs
from nlpkit.apps.documents.formats.office.xml_tokens import Token, read_xml
from nlpkit.apps.documents.formats.office.xml_writer import XmlText
from nlpkit.apps.documents.formats.office.zipped import ZipSkeleton, part_tokens, read_part, zip_document

_TITLE = "an OpenDocument file"
_FIELDS = (
    "author-initials author-name chapter character-count conditional-text creator creation-date creation-time "
    "database-display date description editing-cycles editing-duration expression file-name hidden-text image- "
    "count initial-creator keywords modification-date modification-time object-count page-continuation page-count "
    "page-number page-variable-get paragraph-count print-date print-time printed-by bookmark-ref reference-ref "
    "note-ref sequence sequence-ref sheet-name subject table-count table-formula template-name text-input time "
    "title user-defined user-field-get user-field-input variable-get variable-input variable-set word-count "
    "placeholder number bibliography-mark "
)


def _keeps(token: Token) -> bool:
    """Return whether a cell shows a number, or what a formula makes: its text is computed."""
    if token.name not in ("table:table-cell", "table:covered-table-cell"):
        return False
    kind = token.get("office:value-type")
    return kind not in (None, "string") or token.local("formula") is not None or token.local("string-value") is not None


OPENDOCUMENT = Grammar(
    paragraphs=frozenset({"text:p", "text:h", "svg:title", "svg:desc"}),
    containers=frozenset({"text:span", "text:a", "text:meta", "text:ruby", "text:ruby-base"}),
    direct=True,
    blanks="text:s",
    breaks=frozenset({"text:line-break", "text:tab"}),
    dropped=frozenset({"text:soft-page-break"}),
    hidden=frozenset(
        {"text:tracked-changes", "text:ruby-text", "office:settings", "office:scripts", "office:meta"}
        | {"table:tracked-changes", "table:label-ranges", "office:automatic-styles"}
    ),
    said=frozenset(f"text:{name}" for name in _FIELDS.split()),
    kinds={
        "text:h": "heading",
        "svg:title": "attribute",
        "svg:desc": "attribute",
        "table:table-cell": "cell",
        "text:list-item": "list_item",
    },
    keeps=_keeps,
)
"""Elements of all kinds of OpenDocument files."""


class OpenDocument:
    """Reads and writes zipped OpenDocument files.

    Args:
        name: Name of the format.
    """

    def __init__(self, name: str = "odt") -> None:
        self.name = name

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a file.

        Raises:
            InputError: It is no OpenDocument file, or encrypted, broken or too large.
        """
        package = Package(data, options, _TITLE)
        if "content.xml" not in package:
            raise broken(_TITLE, options, "it has no content.xml")
        manifest = part_tokens(package, "META-INF/manifest.xml", options, _TITLE)
        if any(token.name == "manifest:encryption-data" for token in manifest):
            raise broken(_TITLE, options, "it is encrypted with a password")
        texts: list[tuple[str, XmlText]] = []
        for part in ("content.xml", "styles.xml"):
            if part in package:
                source = read_part(package, part, options, _TITLE)
                texts.append(
                    (
                        part,
                        read_paragraphs(
                            source, OPENDOCUMENT, place="paragraph" if part == "content.xml" else "styles, paragraph"
                        ),
                    )
                )
        return zip_document(self.name, package, texts)

    def write(self, skeleton: ZipSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a file."""
        return skeleton.write(results)


class FlatOpenDocument:
    """Reads and writes OpenDocument files that are one XML file."""

    name = "fodt"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a file.

        Raises:
            InputError: It is no OpenDocument file, or broken.
        """
        source = read_xml(data, options, _TITLE)
        if not re.search(r"<(?:\w+:)?document[\s>]", source.text[:20_000]):
            raise broken(_TITLE, options, "it has no element office:document")
        text = read_paragraphs(source, OPENDOCUMENT, lines=True)
        return Document(format=self.name, segments=text.segments, skeleton=text)

    def write(self, skeleton: XmlText, results: Results, options: ReadOptions) -> bytes:
        """Write a file."""
        return skeleton.write(results)
