"""EPUB: pages in their order, the tables of contents, and the book's title."""

from __future__ import annotations

from urllib.parse import unquote

from nlpkit.apps.documents.document import Document, ReadOptions, Results, broken
from nlpkit.apps.documents.formats.office.grammar import Grammar
from nlpkit.apps.documents.formats.office.package import Package
from nlpkit.apps.documents.formats.office.xml_reader import read_paragraphs
from nlpkit.apps.documents.formats.office.xml_writer import XmlText
from nlpkit.apps.documents.formats.office.zipped import ZipSkeleton, part_tokens, read_part, resolved, zip_document

_TITLE = "an EPUB book"
_PAGES = frozenset({"application/xhtml+xml"})
_CONTENTS = "application/x-dtbncx+xml"
_INLINE = "a abbr acronym b bdi bdo big cite del dfn em font i ins label mark q s small span strike strong sub sup tt u"
_PIECES = "br code kbd samp var img wbr ruby input object math noscript"
_HIDDEN = "script style pre template iframe audio video"


def _named(names: str) -> frozenset[str]:
    return frozenset(f"h:{name}" for name in names.split())


XHTML = Grammar(
    paragraphs=frozenset(),
    containers=_named(_INLINE),
    direct=True,
    loose=True,
    pieces=_named(_PIECES) | frozenset({"math:math", "svg2:svg"}),
    breaks=frozenset({"h:br"}),
    hidden=_named(_HIDDEN) | frozenset({"math:math", "svg2:svg", "h:code", "h:kbd", "h:samp", "h:var"}),
    said=_named("code kbd samp var"),
    attributes={"h:img": ("alt", "title"), "h:a": ("title",), "h:abbr": ("title",)},
    kinds={
        **{f"h:h{level}": "heading" for level in range(1, 7)},
        **{"h:li": "list_item", "h:td": "cell", "h:th": "cell", "h:title": "title"},
    },
)
"""Elements of pages."""

_NCX = Grammar(paragraphs=frozenset({"ncx:text"}), direct=True, kinds={"ncx:text": "title"})
_OPF = Grammar(
    paragraphs=frozenset({"dc:title", "dc:description"}),
    direct=True,
    kinds={"dc:title": "title", "dc:description": "paragraph"},
)


class Epub:
    """Reads and writes EPUB 2 and 3."""

    name = "epub"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a book.

        Raises:
            InputError: It is no EPUB, or its text is encrypted, or it is broken or too large.
        """
        package = Package(data, options, _TITLE)
        container = part_tokens(package, "META-INF/container.xml", options, _TITLE)
        root = next((token.get("full-path") for token in container if token.name == "container:rootfile"), None)
        if root is None or root not in package:
            raise broken(_TITLE, options, "its container names no package document")
        folder = root.rpartition("/")[0]
        items: dict[str, tuple[str, str]] = {}
        spine: list[str] = []
        language, reading = None, False
        for token in part_tokens(package, root, options, _TITLE):
            if token.name == "opf:item":
                part = resolved(folder, unquote(token.get("href") or ""))
                items[token.get("id") or ""] = part, token.get("media-type") or ""
            elif token.name == "opf:itemref":
                spine.append(token.get("idref") or "")
            elif token.name == "dc:language" and token.kind == "start":
                reading = language is None
            elif token.kind == "text" and reading:
                language, reading = token.raw.strip() or None, False
        pages = [items[name][0] for name in spine if name in items and items[name][1] in _PAGES]
        pages += [part for part, kind in items.values() if kind in _PAGES and part not in pages]
        found: list[tuple[str, Grammar]] = [(root, _OPF), *((part, XHTML) for part in pages)]
        found += [(part, _NCX) for part, kind in items.values() if kind == _CONTENTS]
        encrypted = {
            unquote(token.get("URI") or "")
            for token in part_tokens(package, "META-INF/encryption.xml", options, _TITLE)
            if token.name == "enc:CipherReference"
        }
        texts: list[tuple[str, XmlText]] = []
        for part, grammar in dict(found).items():
            if part in encrypted:
                raise broken(_TITLE, options, f"its page {part!r} is encrypted, as shops do it (DRM)")
            if part in package:
                source = read_part(package, part, options, _TITLE)
                texts.append((part, read_paragraphs(source, grammar, place=f"{part}, paragraph")))
        return zip_document(self.name, package, texts, source_lang=language)

    def write(self, skeleton: ZipSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a book."""
        return skeleton.write(results)
