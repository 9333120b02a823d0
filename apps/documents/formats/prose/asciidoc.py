"""AsciiDoc: titles, paragraphs, list items and captions; listings, attributes, macros and tables' marks stay."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from nlpkit.apps.documents.document import Code, Document, Part, ReadOptions, Results, Segment, Translated
from nlpkit.apps.documents.formats.prose.text_blocks import TextLine, coded, enclosed, paragraph, split_text
from nlpkit.apps.documents.formats.spans import Place, SpanSkeleton, flowed, span_document, write_spans
from nlpkit.apps.documents.formats.strings.messages import pair_codes
from nlpkit.apps.documents.source_text import SourceText, decode_source

_FENCE = re.compile(r"(?:-{4,}|\.{4,}|\+{4,}|/{4,}|`{3,}\w*|~{4,})\Z")
_TRANSPARENT = re.compile(r"(?:={4,}|\*{4,}|_{4,}|--)\Z")
_TABLE = re.compile(r"[|,:!]={3,}\Z")
_HEADING = re.compile(r"={1,6}\s+(?=\S)|#{1,6}\s+(?=\S)")
_CAPTION = re.compile(r"\.(?=[^\s.])")
_BULLET = re.compile(r"(?:[*-]{1,5}|\.{1,5}|\d{1,3}\.|[a-zA-Z]\.|<\d{1,3}>)\s+(?:\[[ x*]\]\s+)?(?=\S)")
_TERM = re.compile(r"(?P<term>[^\n]*?\S)(?P<mark>:{2,4}|;;)(?P<blank>\s+|\Z)")
_LABEL = re.compile(r"(?:NOTE|TIP|IMPORTANT|WARNING|CAUTION):\s+(?=\S)")
_SKIPPED = re.compile(
    r":!?[\w-]+!?:(?:\s|\Z)|//(?!/)|\[[^\]]*\]\Z|(?:include|image|video|audio|toc|ifdef|ifndef|endif|ifeval|icon)::|'''\Z|<<<\Z"
    r"|\+\Z|\[\[[^\]]*\]\]\Z"
)
_INLINE = re.compile(
    r"(?P<pass>\+\+\+.{1,4000}?\+\+\+|pass:\w{0,40}\[[^\]]{0,4000}\]|`\+.{1,4000}?\+`)|(?P<code>(?<![\w`])`[^`]+`(?![\w`])|``[^`]+``)"
    r"|(?P<xref><<[^<>,]+(?:,(?P<says>[^<>]+))?>>)"
    r"|(?P<link>(?P<target>(?:link:|xref:|mailto:|https?://|ftp://)[^\s\[\]]{1,500}\[)(?P<label>[^\[\],]*)(?P<rest>(?:,[^\[\]]*)?\]))"
    r"|(?P<foot>footnote:\w*\[(?P<note>[^\[\]]*)\])"
    r"|(?P<macro>[a-z]\w{0,40}:[^\s\[\]]{0,500}\[[^\[\]]*\])|(?P<attribute>\{[\w:-]+\})|(?P<anchor>\[\[[^\]]*\]\]|\[#[^\]]*\])"
    r"|(?P<role>\[[.\w-]+\](?=[#*_`]))"
    r"|(?P<strong>(?<![\w*])\*(?P<s>[^*\s](?:[^*]*[^*\s])?)\*(?![\w*]))"
    r"|(?P<em>(?<![\w_])_(?P<e>[^_\s](?:[^_]*[^_\s])?)_(?![\w_]))"
    r"|(?P<mark>(?<![\w#])#(?P<m>[^#\s](?:[^#]*[^#\s])?)#(?![\w#]))|(?P<hard>\s\+\Z)|(?P<entity>&#?\w{1,10};)"
)


class AsciiDoc:
    """Reads and writes AsciiDoc."""

    name = "asciidoc"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a page.

        Raises:
            InputError: It is no text.
        """
        source = decode_source(data, options)
        found = list(_blocks(source, split_text(source.text)))
        return span_document(self.name, source, found)

    def write(self, skeleton: SpanSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a page."""

        def render(result: Translated, segment: Segment, place: Place) -> str:
            before = skeleton.source.text[place.start : place.end]
            signs = "".join(sign for sign in "*`#" if sign not in before)

            def escape(text: str) -> str:
                text = (
                    re.sub(r"[\r\n]+", " ", text).replace("|", "\\|")
                    if place.style == "cell"
                    else re.sub(r"[\r\n]+", " ", text)
                )
                return re.sub(rf"(?<!\w)[{signs}](?=\w)", r"\\\g<0>", text) if signs else text

            return flowed(result, escape, segment.wrap, begins_badly=_BADLY)

        return write_spans(skeleton, results, render)


_BADLY = re.compile(r"(?:[*-]{1,5}|\.{1,5}|\d{1,3}\.|[a-zA-Z]\.|={1,6}|\+|//.*|:\w+:) |\.\S")


def inline_parts(text: str) -> tuple[Part, ...]:
    """Cut inline markup into text and codes."""

    def read(match: re.Match[str]) -> Sequence[Part]:
        literal = match.group()
        if match.group("link") and match.group("label").strip():
            return enclosed(match.group("target"), match.group("label"), match.group("rest"))
        if match.group("foot"):
            note = match.group("note")
            lead = literal.index("[") + 1
            return [Code(literal=literal[:lead], breaks=True), note, Code(literal="]", breaks=True)]
        for group, mark in (("s", "*"), ("e", "_"), ("m", "#")):
            if match.group(group):
                return enclosed(mark, match.group(group), mark)
        said = match.group("says") or literal.strip("`+{}<>")
        return [Code(literal=literal, text="" if match.group("anchor") or match.group("hard") else said)]

    parts = coded(text, _INLINE, read)
    return tuple(pair_codes(parts, lambda literal: literal if len(literal) == 1 and literal != "]" else "link"))


def _blocks(source: SourceText, lines: Sequence[TextLine]) -> Iterator[tuple[Segment, Place]]:
    at = 0
    table = False
    style = ""
    while at < len(lines):
        line = lines[at]
        body = line.text.strip()
        if not body:
            style = ""
            at += 1
        elif _FENCE.match(line.text):
            at = _fence_end(lines, at)
        elif _TABLE.match(line.text):
            table = not table
            at += 1
        elif table:
            yield from _cells(source, line)
            at += 1
        elif _TRANSPARENT.match(line.text) or _SKIPPED.match(body):
            style = body if body.startswith("[") else style
            # An open block that is said to be a listing.
            if _TRANSPARENT.match(line.text) and re.match(r"\[(?:source|listing|literal|stem|latexmath|verse)", style):
                at = _fence_end(lines, at)
                style = ""
            else:
                at += 1
        elif line.indent and not _BULLET.match(body):
            # Indented text is shown as it stands.
            at = _literal_end(lines, at)
        elif match := _HEADING.match(body):
            yield from paragraph(source, [line], inline_parts, kind="heading", lead=match.end())
            at = _header_end(lines, at + 1) if at == 0 else at + 1
        elif match := _CAPTION.match(body):
            yield from paragraph(source, [line], inline_parts, kind="title", lead=1)
            at += 1
        else:
            listing = re.match(r"\[(?:source|listing|literal|stem|latexmath)", style)
            first, at = at, _paragraph_end(lines, at)
            style = ""
            if not listing:
                yield from _texts(source, lines[first:at])


def _texts(source: SourceText, run: Sequence[TextLine]) -> Iterator[tuple[Segment, Place]]:
    body = run[0].text.strip()
    term = _TERM.match(body)
    if term is not None and not re.search(r"https?::?//", body):
        line = run[0]
        short = TextLine(line.start, line.text[: line.indent + term.end("term")], line.end)
        yield from paragraph(source, [short], inline_parts, kind="list_item")
        if term.end() < len(body):
            yield from paragraph(source, run, inline_parts, kind="list_item", lead=term.end())
        elif len(run) > 1:
            yield from paragraph(source, run[1:], inline_parts, kind="list_item")
        return
    bullet = _BULLET.match(body)
    mark = bullet or _LABEL.match(body)
    yield from paragraph(
        source, run, inline_parts, kind="list_item" if bullet else "paragraph", lead=mark.end() if mark else 0
    )


def _cell_parts(text: str) -> tuple[Part, ...]:
    """Cut the markup of a cell, where pipes are escaped, into text and codes."""
    return tuple(part.replace("\\|", "|") if isinstance(part, str) else part for part in inline_parts(text))


def _cells(source: SourceText, line: TextLine) -> Iterator[tuple[Segment, Place]]:
    for match in re.finditer(r"(?<!\\)\|((?:[^|\\]|\\.)*)", line.text):
        cell = match.group(1)
        if not cell.strip():
            continue
        start = line.start + match.start(1) + len(cell) - len(cell.lstrip())
        part = TextLine(start, cell.strip(), line.end)
        # What stands before the next pipe may say how that cell is laid out.
        yield from (
            (segment, Place(place.start, place.end, "cell"))
            for segment, place in paragraph(source, [part], _cell_parts, kind="cell")
        )


def _fence_end(lines: Sequence[TextLine], at: int) -> int:
    """Return where a block between two equal lines ends; a fence of backquotes may name a language at first."""
    opened = lines[at].text
    fence = opened[: len(opened) - len(opened.lstrip("`"))] if opened.startswith("`") else opened
    at += 1
    while at < len(lines) and lines[at].text != fence:
        at += 1
    return at + 1


def _literal_end(lines: Sequence[TextLine], at: int) -> int:
    while at < len(lines) and not lines[at].blank:
        at += 1
    return at


def _header_end(lines: Sequence[TextLine], at: int) -> int:
    """Return where the head of a page ends: authors and revision stand below its title."""
    while at < len(lines) and not lines[at].blank:
        at += 1
    return at


def _paragraph_end(lines: Sequence[TextLine], at: int) -> int:
    at += 1
    while at < len(lines):
        line = lines[at]
        body = line.text.strip()
        starts = _FENCE.match(line.text) or _TRANSPARENT.match(line.text) or _TABLE.match(line.text)
        if line.blank or starts or _BULLET.match(body) or _SKIPPED.match(body) or _TERM.match(body):
            break
        at += 1
    return at
