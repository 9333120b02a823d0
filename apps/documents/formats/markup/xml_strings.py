"""XML files of programs' texts: Android resources, RESX, and the words of SVG drawings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from nlpkit.apps.documents.document import Code, Document, Kind, Part, ReadOptions, Results, Segment, Translated, broken
from nlpkit.apps.documents.formats.markup.entities import text_parts
from nlpkit.apps.documents.formats.markup.tree import Element, content_parts, escaper, in_cdata, read_xml
from nlpkit.apps.documents.formats.spans import Place, SpanSkeleton, write_spans
from nlpkit.apps.documents.formats.strings.messages import accelerated
from nlpkit.apps.documents.source_text import SourceText
from nlpkit.apps.text.translation.layout import copies_as_is

_ANDROID_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_BLANK = re.compile(r"[ \t\r\n]+")


class XmlStrings:
    """What the formats share: elements whose content is text for people."""

    name = ""
    title = ""
    roots: frozenset[str] = frozenset()

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a file.

        Raises:
            InputError: It is no such file, or not well-formed.
        """
        source, root = read_xml(data, options, self.title)
        if root.local not in self.roots:
            raise broken(self.title, options, f"it begins with <{root.name}>")
        segments: list[Segment] = []
        places: list[Place] = []
        for element, key, kind in self.texts(source.text, root):
            parts = self.parts(source.text, element)
            text = "".join(part for part in parts if isinstance(part, str))
            if not any(map(str.isalpha, text)) or copies_as_is(text):
                continue
            start, end = element.inner
            segments.append(Segment(parts=parts, kind=kind, line=source.line(start), offset=start, key=key))
            places.append(Place(start, end))
        return Document(
            format=self.name, segments=tuple(segments), skeleton=SpanSkeleton(source, tuple(places), tuple(segments))
        )

    def write(self, skeleton: SpanSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a file."""

        def render(result: Translated, segment: Segment, place: Place) -> str:
            raw = skeleton.source.text[place.start : place.end]
            return rendered(result, self.escaper(raw, skeleton.source))

        return write_spans(skeleton, results, render)

    def texts(self, text: str, root: Element) -> Iterator[tuple[Element, str, Kind]]:
        """Yield the elements with text for people, with their keys."""
        raise NotImplementedError

    def parts(self, text: str, element: Element) -> tuple[Part, ...]:
        """Return text and codes of one of them."""
        return content_parts(text, element, read=markup_messages)

    def escaper(self, raw: str, source: SourceText) -> Callable[[str], str]:
        """Return what writes text in the place of a raw one."""
        return escaper(raw, source)


def rendered(result: Translated, escape: Callable[[str], str]) -> str:
    """Write text and codes as XML; what stands in a CDATA section is not escaped."""
    pieces, raw = [], False
    for part in result.parts:
        if isinstance(part, str):
            pieces.append(in_cdata(part) if raw else escape(part))
            continue
        raw = (raw or part.literal == "<![CDATA[") and part.literal != "]]>"
        pieces.append(part.literal)
    return "".join(pieces)


def markup_messages(raw: str) -> list[Part]:
    """Cut raw text into text and codes; tags that are spelled with references are codes too.

    Args:
        raw: Text between tags.
    """
    found: list[Part] = []
    done = 0
    for match in re.finditer(r"&lt;/?[A-Za-z][\w:.-]*(?:\s[^<>&]*|&(?!gt;)[^<>]{0,8};)*?/?&gt;", raw):
        found += text_parts(raw[done : match.start()])
        literal = match.group()
        name = re.match(r"&lt;/?([\w:.-]+)", literal)
        alone = literal.endswith("/&gt;") or (name is not None and name.group(1).lower() in ("br", "hr", "img"))
        role = "alone" if alone else "close" if literal.startswith("&lt;/") else "open"
        found.append(Code(literal=literal, role=role, breaks="br" in literal[:8]))  # type: ignore[arg-type]
        done = match.end()
    found += text_parts(raw[done:])
    if any(isinstance(part, Code) for part in found):
        return found
    text = "".join(part for part in found if isinstance(part, str))
    return accelerated(text, lambda mark: "&amp;" if mark == "&" else mark)


class Android(XmlStrings):
    r"""Android's ``strings.xml``: strings, plurals and arrays, with ``\'`` and quoted blanks."""

    name = "android"
    title = "Android resources"
    roots = frozenset({"resources"})

    def texts(self, text: str, root: Element) -> Iterator[tuple[Element, str, Kind]]:
        """Yield strings and the items of plurals and arrays, but for those that are not to be translated."""
        for element in root.elements("string", "plurals", "string-array"):
            key = element.attributes.get("name", "")
            if element.attributes.get("translatable") == "false" or element.attributes.get("translate") == "no":
                continue
            if element.local == "string":
                yield element, key, "message"
            for item in element.elements("item") if element.local != "string" else ():
                yield item, f"{key}.{item.attributes.get('quantity', '')}".rstrip("."), "message"

    def parts(self, text: str, element: Element) -> tuple[Part, ...]:
        """Return text and codes; what stands in ``<xliff:g>`` is one code."""
        start, end = element.inner
        raw = text[start:end].strip()
        if raw.startswith(("@string/", "@android:", "?attr/")):
            return (Code(literal=text[start:end]),)

        def read(raw: str) -> list[Part]:
            pieces = markup_messages(raw)
            return [part for piece in pieces for part in ([piece] if isinstance(piece, Code) else _plain(piece))]

        return content_parts(text, element, copied=lambda child: child.name == "xliff:g", read=read)

    def escaper(self, raw: str, source: SourceText) -> Callable[[str], str]:
        """Return what writes text as Android reads it."""
        escape = escaper(raw, source)
        quoted = raw.lstrip().startswith('"') and raw.rstrip().endswith('"') and len(raw.strip()) > 1

        def write(text: str) -> str:
            text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
            if not quoted:
                text = re.sub(r"['\"]", r"\\\g<0>", text)
            return re.sub(r"\A[@?]", r"\\\g<0>", escape(text))

        return write


def _plain(text: str) -> list[Part]:
    """Return what Android reads: escapes undone, runs of blanks as one; quotes that keep blanks are codes."""

    def undone(match: re.Match[str]) -> str:
        if match.group(1):
            return chr(int(match.group(1), 16))
        return {"n": "\n", "t": "\t"}.get(match.group(2), match.group(2))

    parts: list[Part] = []
    for piece in re.split(r'((?<!\\)")', text):
        if piece == '"':
            parts.append(Code(literal='"'))
        elif piece:
            parts.append(_ANDROID_ESCAPE.sub(undone, _BLANK.sub(" ", piece)))
    return parts


class Resx(XmlStrings):
    """.NET's RESX: the values of its data."""

    name = "resx"
    title = ".NET resources (RESX)"
    roots = frozenset({"root"})

    def texts(self, text: str, root: Element) -> Iterator[tuple[Element, str, Kind]]:
        """Yield the values of strings: data with a type are numbers, pictures and the like."""
        for data in root.elements("data"):
            name = data.attributes.get("name", "")
            if "type" in data.attributes or "mimetype" in data.attributes or name.startswith((">>", "$this.")):
                continue
            for value in data.elements("value"):
                yield value, name, "message"


class Svg(XmlStrings):
    """SVG: the words of a drawing, its title and its description."""

    name = "svg"
    title = "SVG"
    roots = frozenset({"svg"})

    def texts(self, text: str, root: Element) -> Iterator[tuple[Element, str, Kind]]:
        """Yield texts; those that hold spans are taken whole."""
        kinds: dict[str, Kind] = {"title": "title", "desc": "paragraph", "text": "paragraph"}
        for element in root.walk():
            if element.local in kinds and not any(child.local in ("title", "desc") for child in element.elements()):
                yield element, element.attributes.get("id", ""), kinds[element.local]

    def parts(self, text: str, element: Element) -> tuple[Part, ...]:
        """Return text and codes; each placed span is read apart."""
        placed = {"x", "y", "dy"}
        return content_parts(
            text, element, breaks=lambda child: child.local == "tspan" and not placed.isdisjoint(child.attributes)
        )
