"""XML as a tree of elements with their places in the text, for formats that are made of XML."""

from __future__ import annotations

import re
import xml.parsers.expat
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

from nlpkit.apps.documents.document import Code, Part, ReadOptions, broken
from nlpkit.apps.documents.formats.markup.entities import escape_text, spellings, text_parts
from nlpkit.apps.documents.formats.markup.tags import Token, attribute_values, tokenize
from nlpkit.apps.documents.formats.strings.messages import message_parts, pair_codes
from nlpkit.apps.documents.source_text import SourceText, decode_source

MAX_DEPTH = 500
"""Deepest nesting that is read."""

_ENCODING = re.compile(rb"<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([\w.:-]{1,40})")


@dataclass
class Element:
    """An element.

    Attributes:
        name: Its name, as it is written.
        open: Its opening tag.
        close: Its closing tag; the opening one of an empty element.
        attributes: Values by name, as they are written.
        children: What stands in it: elements, texts and others, in order.
        parent: The element around it.
    """

    name: str
    open: Token
    close: Token
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element | Token] = field(default_factory=list)
    parent: Element | None = None

    @property
    def local(self) -> str:
        """Its name without the prefix."""
        return self.name.rpartition(":")[2]

    @property
    def empty(self) -> bool:
        """Whether it is one tag."""
        return self.open is self.close

    @property
    def inner(self) -> tuple[int, int]:
        """Where its content begins and ends."""
        return self.open.end, self.open.end if self.empty else self.close.start

    def elements(self, *names: str) -> Iterator[Element]:
        """Yield the elements right below it, of some names without prefixes or all."""
        for child in self.children:
            if isinstance(child, Element) and (not names or child.local in names):
                yield child

    def walk(self) -> Iterator[Element]:
        """Yield it and all elements below it, in the order of the text."""
        stack = [self]
        while stack:
            element = stack.pop()
            yield element
            stack.extend(reversed([child for child in element.children if isinstance(child, Element)]))


def read_xml(data: bytes, options: ReadOptions, title: str) -> tuple[SourceText, Element]:
    """Read an XML file.

    Args:
        data: The file.
        options: Its options.
        title: What its format is called.

    Returns:
        The text, and its outermost element.

    Raises:
        InputError: It is not well-formed.
    """
    parser = xml.parsers.expat.ParserCreate()
    # Without a handler nothing is fetched; what a file defines for itself is bounded by expat.
    try:
        parser.Parse(data, True)
    except xml.parsers.expat.ExpatError as error:
        why = xml.parsers.expat.ErrorString(error.code)
        raise broken(title, options, f"it is no well-formed XML ({why})", line=error.lineno) from error
    except (LookupError, ValueError) as error:
        raise broken(title, options, f"it names an encoding that XML is not read in here ({error})", line=1) from error
    named = _ENCODING.match(data.removeprefix(b"\xef\xbb\xbf").lstrip())
    source = decode_source(data, options, encoding=named.group(1).decode("ascii") if named else "utf-8")
    return source, read_tree(source.text, options, title)


def read_rooted(data: bytes, options: ReadOptions, title: str, roots: Collection[str]) -> tuple[SourceText, Element]:
    """Read an XML file whose outermost element tells its format.

    Args:
        data: The file.
        options: Its options.
        title: What its format is called.
        roots: Names, without a prefix, of elements that it may begin with.

    Returns:
        The text, and its outermost element.

    Raises:
        InputError: It is not well-formed, or begins with another element.
    """
    source, root = read_xml(data, options, title)
    if root.local not in roots:
        raise broken(title, options, f"it begins with <{root.name}>")
    return source, root


def read_tree(text: str, options: ReadOptions, title: str) -> Element:
    """Return the outermost element of well-formed XML.

    Args:
        text: The XML.
        options: The file's options.
        title: What its format is called.

    Raises:
        InputError: It has none, or is nested too deeply.
    """
    root: Element | None = None
    current: Element | None = None
    depth = 0
    for token in tokenize(text):
        if token.kind in ("open", "empty"):
            element = Element(token.name, token, token, attribute_values(text, token), parent=current)
            if current is not None:
                current.children.append(element)
            elif root is None:
                root = element
            if token.kind == "open":
                current = element
                depth += 1
        elif token.kind == "close" and current is not None:
            current.close = token
            current = current.parent
            depth -= 1
        elif current is not None:
            current.children.append(token)
        if depth > MAX_DEPTH:
            raise broken(title, options, f"it is nested more than {MAX_DEPTH} deep")
    if root is None:
        raise broken(title, options, "it has no element")
    return root


def content(text: str, element: Element) -> str:
    """Return the text of an element and all below it, as people read it.

    Args:
        text: The whole text.
        element: The element.
    """
    return "".join(part if isinstance(part, str) else part.text for part in content_parts(text, element))


def content_parts(
    text: str,
    element: Element,
    *,
    copied: Callable[[Element], bool] = lambda element: False,
    breaks: Callable[[Element], bool] = lambda element: False,
    read: Callable[[str], list[Part]] = text_parts,
    read_raw: Callable[[str], Iterable[Part]] = message_parts,
) -> tuple[Part, ...]:
    """Return the content of an element as text and codes; elements in it are codes.

    Args:
        text: The whole text.
        element: The element.
        copied: Tells which elements are one code with all that stands in them.
        breaks: Tells which elements break the text.
        read: Cuts raw text between tags.
        read_raw: Cuts the content of a CDATA section.
    """
    parts: list[Part] = []

    def collect(holder: Element) -> None:
        for child in holder.children:
            if isinstance(child, Token):
                raw = text[child.start : child.end]
                if child.kind == "text":
                    parts.extend(read(raw))
                elif child.kind == "cdata":
                    parts.append(Code(literal="<![CDATA[", breaks=True))
                    parts.extend(read_raw(raw[9:-3]))
                    parts.append(Code(literal="]]>", breaks=True))
                else:
                    parts.append(Code(literal=raw))
                continue
            literal = text[child.open.start : child.close.end]
            if child.empty or copied(child):
                said = "" if child.empty else re.sub(r"<[^<>]*>", "", literal)
                parts.append(Code(literal=literal, breaks=breaks(child), text=said))
                continue
            apart = breaks(child)
            parts.append(Code(literal=text[child.open.start : child.open.end], role="open", breaks=apart))
            collect(child)
            parts.append(Code(literal=text[child.close.start : child.close.end], role="close", breaks=apart))

    collect(element)
    return tuple(pair_codes([part for part in parts if part != ""]))


def escaper(raw: str, source: SourceText) -> Callable[[str], str]:
    """Return what escapes text as a piece of XML does, with references for what its encoding lacks.

    Args:
        raw: The piece.
        source: The file that it stands in.
    """
    spelled = spellings(raw)

    def escape(text: str) -> str:
        escaped = escape_text(text, spelled)
        return "".join(char if source.can_encode(char) else f"&#{ord(char)};" for char in escaped)

    return escape


def in_cdata(result_text: str) -> str:
    """Return text for a CDATA section: its end cannot stand in it."""
    return result_text.replace("]]>", "]]]]><![CDATA[>")
