"""YAML: the strings of a file of messages, each written in the way it was; keys, anchors and comments stay."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from nlpkit.apps.documents.document import Document, ReadOptions, Results, Segment, Translated, broken
from nlpkit.apps.documents.formats.spans import Place, SpanSkeleton, literals, matched_end, span_document, write_spans
from nlpkit.apps.documents.formats.strings.keys import is_for_people
from nlpkit.apps.documents.formats.strings.messages import message_parts
from nlpkit.apps.documents.source_text import SourceText, decode_source

_HEADER = re.compile(r"[|>][+-]?[1-9]?[+-]?[ \t]*(?:#[^\n]*)?\r?\n")
_PROPERTIES = re.compile(r"(?:[&!][^\s,\[\]{}]*\s+)*")
_ODD = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff"
"""What YAML does not read, or reads as a line end: it stands between double quotes, escaped."""

_BARE = re.compile(rf"[^{_ODD}]*")
_PLAIN = re.compile(rf"[^\s\-?:,\[\]{{}}#&*!|>'\"%@`{_ODD}](?:[^:#\t\n{_ODD}]|:(?=\S)|(?<=\S)#)*")
_FLOW_SIGNS = re.compile(r"[,\[\]{}?:]")
_OTHER_TYPE = re.compile(
    r"(?i:true|false|yes|no|on|off|null|y|n|~|=|<<)|[-+.\d][\w.,:+-]*|\d{4}-\d\d?-\d\d?(?:[Tt \t].*)?", re.DOTALL
)
_DOUBLE = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


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
                    found += yaml_segments(source, root)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            why = str(getattr(error, "problem", None) or error).splitlines()[0]
            raise broken("YAML", options, why, line=0 if mark is None else mark.line + 1) from error
        except RecursionError as error:
            raise broken("YAML", options, "it is nested too deeply") from error
        found.sort(key=lambda pair: pair[1].start)
        return span_document(self.name, source, found)

    def write(self, skeleton: SpanSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a file of messages."""

        def render(result: Translated, segment: Segment, place: Place) -> str:
            text = literals(result, str)
            return yaml_scalar(text, skeleton.source.text[place.start : place.end], place.style)

        return write_spans(skeleton, results, render)


def yaml_segments(source: SourceText, root: Any, begin: int = 0) -> Iterator[tuple[Segment, Place]]:
    """Yield the strings for people below a node, with their places and how they are written there.

    Args:
        source: The file.
        root: A node that PyYAML composed of it.
        begin: Where in the file that began which it was composed of.
    """
    yield from _segments(source, root, begin, (), set(), flow=False)


def _segments(
    source: SourceText, node: Any, begin: int, path: tuple[str, ...], seen: set[int], *, flow: bool
) -> Iterator[tuple[Segment, Place]]:
    import yaml

    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            yield from _segments(source, value, begin, (*path, name), seen, flow=flow or bool(node.flow_style))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _segments(source, value, begin, (*path, str(index)), seen, flow=flow or bool(node.flow_style))
    elif isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str":
        key = next((name for name in reversed(path) if not name.isdigit()), "")
        text = node.value
        if not is_for_people(text, key=key):
            return
        start, end = begin + node.start_mark.index, begin + node.end_mark.index
        # An anchor and a tag stand before the scalar that they belong to.
        start = matched_end(_PROPERTIES, source.text, start, end)
        style = node.style or ""
        segment = Segment(
            parts=message_parts(text),
            kind="message",
            line=source.line(start),
            offset=start,
            key=".".join(path),
            flowing=style != "|",
        )
        yield segment, Place(start, end, style or ("flow" if flow else "plain"))


def yaml_scalar(text: str, raw: str, style: str) -> str:
    """Write a string as one was written, or between quotes where it cannot be written so.

    Args:
        text: The string.
        raw: What stood in its place.
        style: How that was written: the sign that it began with, ``plain``, or ``flow`` for plain within brackets.
    """
    if style == '"':
        return _double(text, raw)
    if style == "'":
        return _single(text, raw)
    if style in ("|", ">"):
        return _block(text, raw, style)
    flow = style == "flow" and _FLOW_SIGNS.search(text)
    if _PLAIN.fullmatch(text) and not flow and not _OTHER_TYPE.fullmatch(text) and text == text.strip():
        return text
    return _double(text, raw) if "\\" in text or '"' not in text else _single(text, raw)


def _single(text: str, raw: str) -> str:
    if "\n" in text or not _BARE.fullmatch(text):
        return _double(text, raw)
    return "'" + text.replace("'", "''") + "'"


def _double(text: str, raw: str) -> str:
    more = r"\x80-\U0010ffff" if re.search(r"\\[uUx]", raw) else ""
    return '"' + re.sub(rf'["\\\n\t{_ODD}{more}]', _escape, text) + '"'


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    wide = f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return _DOUBLE.get(match.group()) or (f"\\x{code:02x}" if code < 0xA0 else wide)


def _block(text: str, raw: str, style: str) -> str:
    """Write a block scalar with the header, indent and last line ends that it had."""
    header = _HEADER.match(raw)
    body = raw[header.end() :] if header is not None else ""
    tail = body[len(body.rstrip("\r\n \t")) :]
    trail = tail[len(tail) - len(tail.lstrip(" \t")) :]
    first = next((line for line in body.splitlines() if line.strip()), "")
    indent = first[: len(first) - len(first.lstrip(" "))]
    # Lines that begin with blanks would be read as indented, or not as folded; an indicator counts from elsewhere.
    edges = "\n" if style == "|" else "\n \t"
    odd = re.match(r"[ \t\n]|\Z", text) or (style == ">" and re.search(r"\n[ \t]", text)) or not _BARE.fullmatch(text)
    if header is None or re.search(r"[1-9]", header.group()) or not indent or odd:
        return _double(text, "") + trail
    newline = "\r\n" if header.group().endswith("\r\n") else "\n"
    lines = text.rstrip(edges).split("\n")
    if style == ">":
        width = max(len(line.rstrip()) for line in body.splitlines() or [""])
        lines = _blank_between(_folded(line, max(width - len(indent), 20)) for line in lines)
    written = newline.join(indent + line if line.strip() else "" for line in lines)
    return header.group() + written + trail


def _blank_between(paragraphs: Iterable[list[str]]) -> list[str]:
    """Return the lines of paragraphs: a line end is written as an empty line, two as two."""
    lines: list[str] = []
    for index, paragraph in enumerate(paragraphs):
        lines += [""] if index else []
        lines += [line for line in paragraph if line]
    return lines


def _folded(line: str, width: int) -> list[str]:
    pieces, piece = [], ""
    # Of several blanks none may be at a line end: they are read as one.
    for word in re.split(r"(?<=\S) (?=\S)", line):
        if piece and len(piece) + 1 + len(word) > width:
            pieces.append(piece)
            piece = word
        else:
            piece = f"{piece} {word}" if piece else word
    return [*pieces, piece]
