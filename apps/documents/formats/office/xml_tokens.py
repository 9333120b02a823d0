"""XML as tokens with places: what is not replaced in a file comes back as it was written, down to its quotes."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple
from xml.parsers import expat

from nlpkit.apps.documents.document import ReadOptions, broken
from nlpkit.apps.documents.source_text import SourceText, decode_source
from nlpkit.apps.documents.untrusted_xml import FORBIDDEN, untrusted_parser

MAX_DEPTH = 100
"""Most elements within each other; office programs write some dozens."""

_TOKEN = re.compile(
    r"<!--.*?-->|<\?.*?\?>|<!\[CDATA\[(?P<cdata>.*?)\]\]>|<!DOCTYPE(?:[^\[>\"']|\"[^\"]*\"|'[^']*')*>"
    r"|<(?P<end>/?)(?P<name>[^\s/>!?]+)(?P<attributes>(?:[^>\"']|\"[^\"]*\"|'[^']*')*?)(?P<empty>/?)>|(?P<text>[^<]+)",
    re.DOTALL,
)
_ATTRIBUTE = re.compile(r"([^\s=]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")
_DECLARED = re.compile(rb"<\?xml[^>]*?encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")
_REFERENCE = re.compile(r"&(#\d{1,7}|#x[0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{0,40});")

_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"
_SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_ODF = "urn:oasis:names:tc:opendocument:xmlns:"
NAMESPACES: Mapping[str, str] = {
    _WORD: "w",
    "http://purl.oclc.org/ooxml/wordprocessingml/main": "w",
    _DRAWING: "a",
    "http://purl.oclc.org/ooxml/drawingml/main": "a",
    "http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing": "wp",
    "http://purl.oclc.org/ooxml/drawingml/wordprocessingDrawing": "wp",
    "http://schemas.openxmlformats.org/presentationml/2006/main": "p",
    "http://purl.oclc.org/ooxml/presentationml/main": "p",
    "http://schemas.openxmlformats.org/drawingml/2006/spreadsheetDrawing": "xdr",
    "http://purl.oclc.org/ooxml/drawingml/spreadsheetDrawing": "xdr",
    _SHEET: "s",
    "http://purl.oclc.org/ooxml/spreadsheetml/main": "s",
    "http://schemas.openxmlformats.org/markup-compatibility/2006": "mc",
    "http://schemas.openxmlformats.org/package/2006/relationships": "rel",
    "http://schemas.openxmlformats.org/package/2006/content-types": "types",
    "http://schemas.openxmlformats.org/officeDocument/2006/relationships": "r",
    "http://purl.oclc.org/ooxml/officeDocument/relationships": "r",
    "http://schemas.openxmlformats.org/officeDocument/2006/math": "m",
    f"{_ODF}office:1.0": "office",
    f"{_ODF}text:1.0": "text",
    f"{_ODF}table:1.0": "table",
    f"{_ODF}drawing:1.0": "draw",
    f"{_ODF}svg-compatible:1.0": "svg",
    f"{_ODF}manifest:1.0": "manifest",
    f"{_ODF}presentation:1.0": "presentation",
    f"{_ODF}container": "container",
    "http://www.w3.org/1999/xhtml": "h",
    "http://www.w3.org/1998/Math/MathML": "math",
    "http://www.w3.org/2000/svg": "svg2",
    "http://www.idpf.org/2007/opf": "opf",
    "http://www.idpf.org/2007/ops": "ops",
    "http://www.daisy.org/z3986/2005/ncx/": "ncx",
    "http://www.w3.org/2001/04/xmlenc#": "enc",
    "http://www.w3.org/XML/1998/namespace": "xml",
    "http://purl.org/dc/elements/1.1/": "dc",
    "http://schemas.microsoft.com/office/spreadsheetml/2018/threadedcomments": "threads",
}
"""Namespaces and the prefix that this code calls them by, whatever a file calls them."""

TokenKind = Literal["start", "end", "empty", "text", "other"]


class Token(NamedTuple):
    """A piece of XML.

    Attributes:
        kind: A start tag, an end tag, an empty element, text (also CDATA), or something else, such as a comment.
        start: Offset of its first character.
        end: Offset behind its last.
        name: Name of the element, with the prefix of `NAMESPACES`; ``?`` is the prefix of all others.
        raw: Its name as the file writes it; of a text, the text with its references resolved.
        attributes: The attributes as they are written.
    """

    kind: TokenKind
    start: int
    end: int
    name: str = ""
    raw: str = ""
    attributes: str = ""

    def get(self, name: str) -> str | None:
        """Return the value of the attribute that is written with this name, prefix and all, or None."""
        found = _ATTRIBUTE.findall(self.attributes)
        return next((unescaped(one or two) for key, one, two in found if key == name), None)

    def local(self, name: str) -> str | None:
        """Return the value of the first attribute with this name, whatever its prefix, or None."""
        return next(
            (
                unescaped(one or two)
                for key, one, two in _ATTRIBUTE.findall(self.attributes)
                if key.rpartition(":")[2] == name
            ),
            None,
        )

    def span(self, name: str) -> tuple[int, int] | None:
        """Return the offsets of an attribute's value, or None."""
        lead = self.start + 1 + len(self.raw)
        for match in _ATTRIBUTE.finditer(self.attributes):
            if match.group(1) == name:
                group = 2 if match.group(2) is not None else 3
                return lead + match.start(group), lead + match.end(group)
        return None


def read_xml(data: bytes, options: ReadOptions, title: str) -> SourceText:
    """Decode XML from somewhere that is not trusted.

    Args:
        data: The whole file or part.
        options: Its options; the encoding in them does not count.
        title: What its format is called.

    Raises:
        InputError: It is not well-formed, declares entities or the like, is too deep, or is in an unknown encoding.
    """
    _check(data, options, title)
    declared = _DECLARED.match(data.removeprefix(b"\xef\xbb\xbf"))
    return decode_source(data, options, encoding=declared.group(1).decode() if declared else "utf-8")


def _check(data: bytes, options: ReadOptions, title: str) -> None:
    parser = untrusted_parser(lambda why: broken(title, options, why))
    depth = 0

    def start(name: str, attributes: Mapping[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise broken(title, options, f"more than {MAX_DEPTH} elements are within each other")

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1

    def doctype(name: str, system: str | None, public: str | None, has_subset: bool) -> None:
        if has_subset:
            raise broken(title, options, "it declares entities or the like of its own, which are not taken in here")

    parser.StartDoctypeDeclHandler = doctype
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        line = getattr(error, "lineno", 0)
        raise broken(title, options, f"its XML is not well-formed ({error})", line=line) from error


def tokens(text: str) -> Iterator[Token]:
    """Cut well-formed XML into tokens, one behind the other without gaps.

    Args:
        text: What `read_xml` accepted.
    """
    scopes: list[Mapping[str, str]] = []
    names: Mapping[str, str] = {"xml": "xml"}
    known: dict[str, str] = {}
    for match in _TOKEN.finditer(text):
        start, end = match.span()
        raw = match.group("name")
        if raw is None:
            if match.group("text") is not None:
                yield Token("text", start, end, raw=unescaped(match.group("text")))
            elif match.group("cdata") is not None:
                yield Token("text", start, end, raw=match.group("cdata"))
            else:
                yield Token("other", start, end)
            continue
        attributes = match.group("attributes")
        closes, empty = bool(match.group("end")), bool(match.group("empty"))
        outer = names
        if not closes and "xmlns" in attributes:
            names, known = _scope(names, attributes), {}
        name = known.get(raw)
        if name is None:
            prefix, _, local = raw.rpartition(":")
            name = known[raw] = f"{names.get(prefix, '?' if prefix else '')}:{local}"
        if closes:
            yield Token("end", start, end, name, raw)
            names = scopes.pop()
            known = known if names is outer else {}
        elif empty:
            yield Token("empty", start, end, name, raw, attributes)
            names, known = (names, known) if names is outer else (outer, {})
        else:
            scopes.append(outer)
            yield Token("start", start, end, name, raw, attributes)


def _scope(names: Mapping[str, str], attributes: str) -> Mapping[str, str]:
    inner = dict(names)
    for key, one, two in _ATTRIBUTE.findall(attributes):
        if key == "xmlns" or key.startswith("xmlns:"):
            inner[key.partition(":")[2]] = NAMESPACES.get(unescaped(one or two), "?")
    return inner


def unescaped(text: str) -> str:
    """Resolve references to characters; unknown ones stay as they are."""
    if "&" not in text:
        return text
    return _REFERENCE.sub(lambda match: html.unescape(match.group()), text)


def escaped(text: str) -> str:
    """Write text as XML content; characters that XML does not have are left out."""
    text = FORBIDDEN.sub("", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def escaped_value(text: str) -> str:
    """Write text as the value of an attribute, in quotes of either kind."""
    return escaped(text).replace('"', "&quot;").replace("'", "&apos;").replace("\n", "&#10;").replace("\t", "&#9;")
