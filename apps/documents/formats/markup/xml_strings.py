"""XML files of programs' texts: Android resources, RESX, and the words of SVG drawings."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator

from nlpkit.apps.documents.document import (
    Code,
    Document,
    Kind,
    Part,
    ReadOptions,
    Results,
    Role,
    Segment,
    Translated,
    has_words,
)
from nlpkit.apps.documents.formats.markup.entities import text_parts
from nlpkit.apps.documents.formats.markup.tree import Element, content_parts, escaper, in_cdata, read_rooted
from nlpkit.apps.documents.formats.spans import Place, SpanSkeleton, span_document, write_spans
from nlpkit.apps.documents.formats.strings.messages import accelerated, join_surrogates, message_parts
from nlpkit.apps.text.translation.layout import copies_as_is

_ANDROID_TOKEN = re.compile(
    r"(?P<escape>\\u[0-9A-Fa-f]{4}|\\.)|(?P<quote>\")|(?P<blank>[ \t\r\n]+)|[^\\\" \t\r\n]+|.", re.DOTALL
)


class XmlStrings(ABC):
    """What the formats share: elements whose content is text for people."""

    name = ""
    title = ""
    roots: frozenset[str] = frozenset()

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a file.

        Raises:
            InputError: It is no such file, or not well-formed.
        """
        source, root = read_rooted(data, options, self.title, self.roots)
        segments: list[Segment] = []
        places: list[Place] = []
        for element, key, kind in self.texts(source.text, root):
            parts = self.parts(source.text, element)
            if not has_words(parts) or copies_as_is("".join(part for part in parts if isinstance(part, str))):
                continue
            start, end = element.inner
            segments.append(Segment(parts=parts, kind=kind, line=source.line(start), offset=start, key=key))
            places.append(Place(start, end))
        return span_document(self.name, source, zip(segments, places, strict=True))

    def write(self, skeleton: SpanSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a file."""

        def render(result: Translated, segment: Segment, place: Place) -> str:
            raw = skeleton.source.text[place.start : place.end]
            escape = escaper(raw, skeleton.source)
            return rendered(
                result,
                lambda text: escape(self.escaped(text, raw)),
                lambda text: in_cdata(self.escaped(text, raw)),
            )

        return write_spans(skeleton, results, render)

    @abstractmethod
    def texts(self, text: str, root: Element) -> Iterator[tuple[Element, str, Kind]]:
        """Yield the elements with text for people, with their keys."""

    def parts(self, text: str, element: Element) -> tuple[Part, ...]:
        """Return text and codes of one of them."""
        return content_parts(text, element, read=markup_messages)

    def escaped(self, text: str, raw: str) -> str:
        """Return text with the format's own escapes, before those of XML.

        Args:
            text: What people read.
            raw: What stood in its place.
        """
        return text


def rendered(result: Translated, escape: Callable[[str], str], escape_raw: Callable[[str], str] = in_cdata) -> str:
    """Write text and codes as XML.

    Args:
        result: The text and codes.
        escape: Escapes text.
        escape_raw: Escapes text in a CDATA section.
    """
    pieces, raw = [], False
    for part in result.parts:
        if isinstance(part, str):
            pieces.append(escape_raw(part) if raw else escape(part))
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
    for match in re.finditer(r"&lt;/?[A-Za-z][\w:.-]*(?:\s(?:[^<>&]|&(?![gl]t;)[^<>&;\s]{1,8};)*)?/?&gt;", raw):
        found += text_parts(raw[done : match.start()])
        literal = match.group()
        name = re.match(r"&lt;/?([\w:.-]+)", literal)
        alone = literal.endswith("/&gt;") or (name is not None and name.group(1).lower() in ("br", "hr", "img"))
        role: Role = "alone" if alone else "close" if literal.startswith("&lt;/") else "open"
        found.append(Code(literal=literal, role=role, breaks="br" in literal[:8]))
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

        def plain(pieces: Iterable[Part]) -> list[Part]:
            return [part for piece in pieces for part in ([piece] if isinstance(piece, Code) else _plain(piece))]

        return content_parts(
            text,
            element,
            copied=lambda child: child.name == "xliff:g",
            read=lambda raw: plain(markup_messages(raw)),
            read_raw=lambda raw: plain(message_parts(raw)),
        )

    def escaped(self, text: str, raw: str) -> str:
        """Return text as Android reads it."""
        quoted = len(raw.strip()) > 1 and raw.strip().startswith('"') and raw.strip().endswith('"')
        text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
        return re.sub(r"\A[@?]|\"" if quoted else r"\A[@?]|['\"]", r"\\\g<0>", text)


def _plain(text: str) -> list[Part]:
    """Return what Android reads: escapes undone, runs of blanks as one; quotes that keep blanks are codes."""
    parts: list[Part] = []
    said = ""
    for match in _ANDROID_TOKEN.finditer(text):
        kind, sign = match.lastgroup, match.group()
        if kind == "quote":
            parts += [said, Code(literal=sign)]
            said = ""
        elif kind == "blank":
            within = sum(isinstance(part, Code) for part in parts) % 2
            said += sign if within else " "
        elif kind == "escape":
            said += chr(int(sign[2:], 16)) if len(sign) == 6 else {"n": "\n", "t": "\t"}.get(sign[1], sign[1])
        else:
            said += sign
    return [join_surrogates(part) if isinstance(part, str) else part for part in [*parts, said] if part != ""]


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
        stack = [root]
        while stack:
            element = stack.pop()
            if element.local in kinds and not any(child.local in ("title", "desc") for child in element.elements()):
                yield element, element.attributes.get("id", ""), kinds[element.local]
            else:
                # What stands in a text is part of it.
                stack.extend(reversed(list(element.elements())))

    def parts(self, text: str, element: Element) -> tuple[Part, ...]:
        """Return text and codes; each placed span is read apart."""
        placed = {"x", "y", "dy"}
        return content_parts(
            text, element, breaks=lambda child: child.local == "tspan" and not placed.isdisjoint(child.attributes)
        )
