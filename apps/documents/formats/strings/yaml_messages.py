"""YAML: the strings of a file of messages, each written in the way it was; keys, anchors and comments stay."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from nlpkit.apps.documents.document import Document, ReadOptions, Results, Segment, Translated, broken
from nlpkit.apps.documents.formats.spans import Place, SpanSkeleton, write_spans
from nlpkit.apps.documents.formats.strings.keys import is_for_people
from nlpkit.apps.documents.formats.strings.messages import message_parts
from nlpkit.apps.documents.source_text import SourceText, decode_source

_HEADER = re.compile(r"[|>][+-]?[1-9]?[+-]?[ \t]*(?:#[^\n]*)?\r?\n")
_PROPERTIES = re.compile(r"(?:[&!][^\s,\[\]{}]*\s+)*")
_PLAIN = re.compile(r"[^\s\-?:,\[\]{}#&*!|>'\"%@`](?:[^:#\n]|:(?=\S)|(?<=\S)#)*")
_OTHER_TYPE = re.compile(r"(?i:true|false|yes|no|on|off|null|y|n|~)|[-+.\d][\d_.,:eExX+-]*")


class YamlMessages:
    """Reads and writes YAML."""

    name = "yaml"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a file of messages.

        Raises:
            InputError: It is no YAML.
        """
        import yaml

        source = decode_source(data, options)
        found: list[tuple[Segment, Place]] = []
        try:
            # Composed, not loaded: what an alias names twice is still one node.
            for root in yaml.compose_all(source.text, Loader=yaml.SafeLoader):  # type: ignore[no-untyped-call]
                if root is not None:
                    found += _segments(source, root, (), set())
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            why = str(getattr(error, "problem", None) or error).splitlines()[0]
            raise broken("YAML", options, why, line=0 if mark is None else mark.line + 1) from error
        except RecursionError as error:
            raise broken("YAML", options, "it is nested too deeply") from error
        found.sort(key=lambda pair: pair[1].start)
        return Document(
            format=self.name,
            segments=tuple(segment for segment, _ in found),
            skeleton=SpanSkeleton(source, tuple(place for _, place in found), tuple(segment for segment, _ in found)),
        )

    def write(self, skeleton: SpanSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a file of messages."""

        def render(result: Translated, segment: Segment, place: Place) -> str:
            text = "".join(part if isinstance(part, str) else part.literal for part in result.parts)
            return _written(text, skeleton.source.text[place.start : place.end], place.style, skeleton.source)

        return write_spans(skeleton, results, render)


def _segments(source: SourceText, node: Any, path: tuple[str, ...], seen: set[int]) -> Iterator[tuple[Segment, Place]]:
    import yaml

    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            yield from _segments(source, value, (*path, name), seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _segments(source, value, (*path, str(index)), seen)
    elif isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str":
        key = next((name for name in reversed(path) if not name.isdigit()), "")
        text = node.value
        if not is_for_people(text, key=key):
            return
        start, end = node.start_mark.index, node.end_mark.index
        # An anchor and a tag stand before the scalar that they belong to.
        start = _PROPERTIES.match(source.text, start, end).end()  # type: ignore[union-attr]
        style = node.style or ""
        flowing = style != "|"
        segment = Segment(
            parts=message_parts(text),
            kind="message",
            line=source.line(start),
            offset=start,
            key=".".join(path),
            flowing=flowing,
        )
        indent = node.start_mark.column if style == "" else 0
        yield segment, Place(start, end, style or f"p{indent}")


def _written(text: str, raw: str, style: str, source: SourceText) -> str:
    if style == '"':
        return _double(text, raw)
    if style == "'":
        return _single(text) if "\n" not in text else _double(text, raw)
    if style in ("|", ">"):
        return _block(text, raw, style)
    if _PLAIN.fullmatch(text) and not _OTHER_TYPE.fullmatch(text) and "\n" not in text and text == text.strip():
        return text
    return _double(text, raw) if "\\" in text or "\n" in text or '"' not in text else _single(text)


def _single(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _double(text: str, raw: str) -> str:
    return json.dumps(text, ensure_ascii="\\u" in raw or "\\x" in raw)


def _block(text: str, raw: str, style: str) -> str:
    """Write a block scalar with the header, indent and last line ends that it had."""
    header = _HEADER.match(raw)
    if header is None:
        return _double(text, raw)
    body = raw[header.end() :]
    first = next((line for line in body.splitlines() if line.strip()), "  ")
    indent = first[: len(first) - len(first.lstrip(" "))]
    newline = "\r\n" if header.group().endswith("\r\n") else "\n"
    trail = body[len(body.rstrip("\r\n \t")) :]
    lines = text.strip("\n").split("\n")
    if style == ">":
        width = max(len(line.rstrip()) for line in body.splitlines() or [""])
        lines = [piece for line in lines for piece in [*_folded(line, max(width - len(indent), 20)), ""]][:-1]
    return header.group() + newline.join(indent + line if line.strip() else "" for line in lines) + trail


def _folded(line: str, width: int) -> list[str]:
    pieces, piece = [], ""
    for word in line.split(" "):
        if piece and len(piece) + 1 + len(word) > width:
            pieces.append(piece)
            piece = word
        else:
            piece = f"{piece} {word}" if piece else word
    return [*pieces, piece]
