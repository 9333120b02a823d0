"""Markdown: headings, paragraphs, list items and cells; code, links and everything else stay as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nlpkit.apps.documents.document import Document, Kind, ReadOptions, Results, Segment, Translated, Wrap, has_words
from nlpkit.apps.documents.formats.markup.html import AttributePlace, html_segments, html_text
from nlpkit.apps.documents.formats.prose.markdown_inline import escaped, inline_parts
from nlpkit.apps.documents.formats.spans import Place, SpanSkeleton, flowed, literals, span_document, write_spans
from nlpkit.apps.documents.formats.strings.yaml_messages import yaml_scalar, yaml_segments
from nlpkit.apps.documents.source_text import SourceText, decode_source

if TYPE_CHECKING:
    from markdown_it.token import Token

_FRONT = re.compile(
    r"\A---[ \t]*\r?\n(?P<body>.*?\r?\n)?(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)"
    r"|\A\+\+\+[ \t]*\r?\n.*?\r?\n\+\+\+[ \t]*(?:\r?\n|\Z)",
    re.DOTALL,
)
_FRONT_KEYS = frozenset(["title", "subtitle", "description", "summary", "abstract", "excerpt", "caption", "tagline"])
"""Keys of a front matter whose strings are for people."""

_BEGINS_BADLY = re.compile(r"(?:[-+*]|\d{1,9}[.)]|#{1,6}|>.*|=+|-+|~~~.*|```.*|\|.*|:.*|<.*)(?: |$)")
_DEFINITION = re.compile(r"^ {0,3}\[([^\]\n]{1,200})\]:", re.MULTILINE)
_KINDS: dict[str, Kind] = {
    "paragraph_open": "paragraph",
    "heading_open": "heading",
    "th_open": "cell",
    "td_open": "cell",
}


class Markdown:
    """Reads and writes Markdown."""

    name = "markdown"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a page.

        Raises:
            InputError: It is no text.
        """
        source = decode_source(data, options)
        front = _FRONT.match(source.text)
        begin = front.end() if front else 0
        found = [*(_front_matter(source, front) if front else ()), *_blocks(source, begin)]
        found.sort(key=lambda pair: pair[1].start)
        return span_document(self.name, source, found)

    def write(self, skeleton: SpanSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a page."""

        def render(result: Translated, segment: Segment, place: Place) -> str:
            if isinstance(place, FrontPlace):
                text = literals(result, str)
                return yaml_scalar(text, skeleton.source.text[place.start : place.end], place.style)
            if place.style == "html":
                return html_text(result, segment, place, skeleton.source)
            before = skeleton.source.text[place.start : place.end]
            return flowed(
                result,
                lambda text: escaped(text, before, cell=place.style == "cell"),
                segment.wrap,
                begins_badly=_BEGINS_BADLY,
            )

        return write_spans(skeleton, results, render)


@dataclass(frozen=True)
class FrontPlace(Place):
    """Where a string of the front matter stands; `style` is how YAML writes it."""


def _front_matter(source: SourceText, front: re.Match[str]) -> Iterator[tuple[Segment, Place]]:
    """Yield the strings for people of a front matter; one that is no YAML stays as it is."""
    import yaml

    if not front.group("body"):
        return
    try:
        root = yaml.compose(front.group("body"), Loader=yaml.SafeLoader)  # type: ignore[no-untyped-call]
        found = list(yaml_segments(source, root, front.start("body")))
    except (yaml.YAMLError, RecursionError):
        return
    for segment, place in found:
        if segment.key.lower() in _FRONT_KEYS:
            yield replace(segment, kind="title"), FrontPlace(place.start, place.end, place.style)


def _blocks(source: SourceText, begin: int) -> Iterator[tuple[Segment, Place]]:
    from markdown_it import MarkdownIt

    text = source.text[begin:]
    # As the parser splits: it makes line feeds of carriage returns.
    starts = [0, *(match.end() for match in re.finditer(r"\r\n|\r|\n", text)), len(text)]
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    references = frozenset(match.group(1) for match in _DEFINITION.finditer(text))
    kinds: list[str] = []
    cells: dict[int, int] = {}
    for token in tokens:
        if token.nesting == 1:
            kinds.append(token.type)
        elif token.nesting == -1:
            kinds.pop()
        elif token.type == "html_block" and token.map is not None:
            start, end = (begin + starts[min(line, len(starts) - 1)] for line in token.map)
            # Attributes stay: their tags may stand within a text.
            yield from (
                (segment, Place(place.start, place.end, "html"))
                for segment, place in html_segments(source, start, end)
                if not isinstance(place, AttributePlace)
            )
        elif token.type == "inline" and token.map is not None and kinds:
            found = _segment(source, text, begin, starts, token, kinds, cells, references)
            if found is not None:
                yield found


def _segment(
    source: SourceText,
    text: str,
    begin: int,
    starts: list[int],
    token: Token,
    kinds: list[str],
    cells: dict[int, int],
    references: frozenset[str],
) -> tuple[Segment, Place] | None:
    first, last = token.map or (0, 0)
    holder = kinds[-1]
    if holder in ("th_open", "td_open"):
        place = _cell(text, starts, first, token.content, cells)
        if place is None:
            return None
        start, end = place
        parts = inline_parts(text[start:end], references)
        kind: Kind = "cell"
        wrap, style = None, "cell"
    else:
        lines = token.content.split("\n")
        spans = _line_spans(text, starts, first, last, lines)
        if spans is None:
            return None
        start, end = spans[0][0], spans[-1][1]
        parts = inline_parts("\n".join(text[a:b] for a, b in spans), references)
        indent = text[starts[first + 1] : spans[1][0]] if len(spans) > 1 else ""
        line_end = text[spans[0][1] : starts[first + 1]].lstrip(" \t") if len(spans) > 1 else "\n"
        lead = start - starts[first]
        width = max(b - starts[first + index] for index, (_, b) in enumerate(spans))
        wrap = Wrap(width, indent, line_end or "\n", lead) if len(spans) > 1 else None
        kind, style = _KINDS.get(holder, "paragraph"), ""
        if kind == "paragraph" and "list_item_open" in kinds:
            kind = "list_item"
    if not has_words(parts):
        return None
    segment = Segment(
        parts=parts,
        kind=kind,
        line=source.line(begin + start),
        offset=begin + start,
        wrap=wrap,
        flowing=True,
    )
    return segment, Place(begin + start, begin + end, style)


def _line_spans(text: str, starts: list[int], first: int, last: int, lines: list[str]) -> list[tuple[int, int]] | None:
    """Return where the lines of a block's content stand in the text; None if they cannot be told for certain."""
    if len(lines) > last - first:
        return None
    spans = []
    for index, line in enumerate(lines):
        begin, end = starts[first + index], starts[first + index + 1]
        whole = text[begin:end].rstrip("\r\n")
        line = line.replace("\0", "").strip() if index == len(lines) - 1 else line.lstrip()
        at = whole.rfind(line)
        if at < 0:
            return None
        rest = whole[at + len(line) :]
        if rest.strip(" \t#"):
            return None
        spans.append((begin + at, begin + at + len(line)))
    return spans


def _cell(text: str, starts: list[int], row: int, content: str, cells: dict[int, int]) -> tuple[int, int] | None:
    """Return where the next cell of a row stands, by what the row's pipes leave."""
    begin, end = starts[row], starts[row + 1]
    at = cells.get(row, begin)
    for match in re.finditer(r"(?:[^|\\\r\n]|\\.)+", text[at:end]):
        cell = match.group()
        body = cell.strip()
        if body.replace("\\|", "|") == content.strip():
            start = at + match.start() + len(cell) - len(cell.lstrip())
            cells[row] = at + match.end()
            return start, start + len(body)
    return None
