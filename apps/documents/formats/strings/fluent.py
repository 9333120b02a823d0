"""Fluent (FTL): the texts of messages and their variants; placeables, selectors and identifiers stay."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from nlpkit.apps.documents.document import (
    Code,
    Document,
    Part,
    ReadOptions,
    Results,
    Segment,
    Translated,
    broken,
    missing_library,
)
from nlpkit.apps.documents.formats.spans import Place, SpanSkeleton, literals, span_document, write_spans
from nlpkit.apps.documents.formats.strings.keys import is_for_people
from nlpkit.apps.documents.formats.strings.messages import message_parts
from nlpkit.apps.documents.source_text import SourceText, decode_source


class Fluent:
    """Reads and writes Fluent."""

    name = "fluent"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a file of messages.

        Raises:
            InputError: It is no Fluent, or the library that reads it is not installed.
        """
        try:
            import fluent.syntax  # noqa: F401
        except ImportError as error:
            raise missing_library("Fluent files", "fluent.syntax") from error
        source = decode_source(data, options)
        # The parser makes one character of two at line ends, and counts them so.
        if "\r" in source.text:
            raise broken("Fluent", options, "it has carriage returns; convert its line ends first")
        try:
            found = list(_found(source, options))
        except RecursionError as error:
            raise broken("Fluent", options, "it is nested too deeply") from error
        return span_document(self.name, source, found)

    def write(self, skeleton: SpanSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a file of messages."""

        def render(result: Translated, segment: Segment, place: Place) -> str:
            return literals(result, _escaped)

        return write_spans(skeleton, results, render)


def _found(source: SourceText, options: ReadOptions) -> Iterator[tuple[Segment, Place]]:
    """Yield the texts of messages and terms, and of their attributes."""
    from fluent.syntax import FluentParser, ast

    text = source.text
    for entry in FluentParser(with_spans=True).parse(text).body:
        if isinstance(entry, ast.Junk):
            why = (entry.annotations and entry.annotations[0].message) or "a message cannot be read"
            at = entry.span.start if entry.span else 0
            raise broken("Fluent", options, why, line=source.line(at))
        if not isinstance(entry, (ast.Message, ast.Term)):
            continue
        holders = [(entry.id.name, entry.value)]
        holders += [(f"{entry.id.name}.{attribute.id.name}", attribute.value) for attribute in entry.attributes]
        for key, pattern in holders:
            if pattern is None or pattern.span is None:
                continue
            start, end = _begin(text, pattern), pattern.span.end
            parts = _parts(text, pattern)
            said = "".join(part for part in parts if isinstance(part, str))
            if is_for_people(said, key=""):
                line = source.line(start)
                segment = Segment(parts=parts, kind="message", line=line, offset=start, key=key, flowing=True)
                yield segment, Place(start, end)


def _begin(text: str, pattern: Any) -> int:
    """Return where a pattern begins: a line of its own has an indent, without which it would be another message."""
    start: int = pattern.span.start
    return start + len(text[start : pattern.span.end]) - len(text[start : pattern.span.end].lstrip())


def _parts(text: str, pattern: Any) -> tuple[Part, ...]:
    """Return the texts of a pattern and of its variants; all else of it is codes."""
    from fluent.syntax import ast

    parts: list[Part] = []
    for element in pattern.elements:
        start, end = max(element.span.start, _begin(text, pattern)), element.span.end
        if isinstance(element, ast.TextElement):
            for part in message_parts(text[start:end]):
                parts += [part] if isinstance(part, Code) else _lines(part)
            continue
        done = start
        for variant in getattr(element.expression, "variants", ()):
            value = variant.value
            parts.append(Code(literal=text[done : _begin(text, value)], breaks=True))
            parts += _parts(text, value)
            done = value.span.end
        parts.append(Code(literal=text[done:end], breaks=done > start, text="" if done > start else " "))
    return tuple(parts)


def _lines(text: str) -> list[Part]:
    """Keep line ends and the indent behind them as they are."""
    pieces = re.split(r"(\n[ \t\n]*)", text)
    return [Code(literal=piece, breaks=True) if index % 2 else piece for index, piece in enumerate(pieces) if piece]


def _escaped(text: str) -> str:
    text = re.sub(r"[\r\n]+", " ", text)
    return re.sub(r"[{}]", lambda match: '{"' + match.group() + '"}', text)
