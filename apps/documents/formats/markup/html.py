"""HTML: the texts between tags that make blocks, and attributes that people read; everything else stays as it is."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

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
    Wrap,
    has_words,
)
from nlpkit.apps.documents.formats.markup.entities import escape_text, spellings, text_parts
from nlpkit.apps.documents.formats.markup.tags import Attribute, Token, attribute_values, attributes, tokenize
from nlpkit.apps.documents.formats.spans import Place, SpanSkeleton, flowed, span_document
from nlpkit.apps.documents.formats.strings.messages import pair_codes
from nlpkit.apps.documents.source_text import SourceText, decode_source

_INLINE_NAMES = (
    "a abbr acronym b bdi bdo big button cite data del dfn em font i img ins label mark meter nobr output progress q "
    "rp rt ruby s small span strike strong sub sup time u wbr input slot br"
)
INLINE = frozenset(_INLINE_NAMES.split())
"""Elements that stand within a text; all others begin a text of their own."""

_VOID = frozenset(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"]
)
_COPIED = frozenset(["code", "kbd", "samp", "var", "tt", "math", "svg", "object", "canvas", "video", "audio", "select"])
_SKIPPED = frozenset(["pre", "template", "listing", "textarea", "script", "style"])
_ENDED_BY = {
    "p": frozenset[str](),
    "li": frozenset(["li"]),
    **dict.fromkeys(("dt", "dd"), frozenset(["dt", "dd"])),
    **dict.fromkeys(("td", "th"), frozenset(["td", "th", "tr", "tbody", "tfoot"])),
    "tr": frozenset(["tr", "tbody", "tfoot"]),
    **dict.fromkeys(("tbody", "thead"), frozenset(["tbody", "tfoot"])),
    "option": frozenset(["option", "optgroup"]),
}
"""Elements whose closing tags may be left out, with those that end them where they begin; a block ends a ``<p>``."""

_ATTRIBUTES = frozenset(["alt", "title", "placeholder", "aria-label", "aria-description", "summary"])
_META = frozenset(
    ["description", "og:title", "og:description", "twitter:title", "twitter:description", "og:image:alt", "dc.title"]
)
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_LANGUAGE = re.compile(r"<html[^>]{0,400}?\slang\s*=\s*[\"']?([A-Za-z-]{2,20})", re.IGNORECASE)
_BLANK = re.compile(r"[ \t\r\n\f]+")
_HEADINGS: dict[str, Kind] = dict.fromkeys(["h1", "h2", "h3", "h4", "h5", "h6"], "heading")
_ITEMS: dict[str, Kind] = dict.fromkeys(["li", "dt", "dd"], "list_item")
_CELLS: dict[str, Kind] = dict.fromkeys(["td", "th"], "cell")
_KINDS: dict[str, Kind] = {**_HEADINGS, **_ITEMS, **_CELLS, "title": "title"}


class Html:
    """Reads and writes HTML."""

    name = "html"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a page.

        Raises:
            InputError: It is no text in its encoding.
        """
        charset = _CHARSET.search(data[:4096])
        named = charset.group(1).decode("ascii") if charset and options.encoding == "utf-8" else None
        source = decode_source(data, options, encoding=named)
        found = sorted(html_segments(source, 0, len(source.text)), key=lambda pair: pair[1].start)
        language = _LANGUAGE.search(source.text, 0, 4096)
        return span_document(self.name, source, found, source_lang=language.group(1) if language else None)

    def write(self, skeleton: SpanSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a page."""
        return write_markup(skeleton, results, options.target_lang)


@dataclass(frozen=True)
class AttributePlace(Place):
    """Where an attribute's value stands; `style` is its quote mark, `tag` where its tag begins and ends."""

    tag: tuple[int, int] = (0, 0)


def write_markup(skeleton: SpanSkeleton, results: Results, target_lang: str = "") -> bytes:
    """Write markup with its translated texts and attributes, also those of tags within texts.

    Args:
        skeleton: The text.
        results: One a segment.
        target_lang: The language that the page is in then.
    """
    text = skeleton.source.text
    replaced: list[tuple[int, int, str]] = []
    inner: dict[str, list[tuple[int, int, str]]] = {}
    texts = [
        place
        for place, result in zip(skeleton.places, results, strict=True)
        if result is not None and not isinstance(place, AttributePlace)
    ]
    begins = [place.start for place in texts]
    for place, segment, result in zip(skeleton.places, skeleton.segments, results, strict=True):
        if result is None or not isinstance(place, AttributePlace):
            continue
        new = html_text(result, segment, place, skeleton.source)
        around = bisect_right(begins, place.start) - 1
        if around >= 0 and place.end <= texts[around].end:
            start, end = place.tag
            inner.setdefault(text[start:end], []).append((place.start - start, place.end - start, new))
        else:
            replaced.append((place.start, place.end, new))
    for place, segment, result in zip(skeleton.places, skeleton.segments, results, strict=True):
        if result is None or isinstance(place, AttributePlace):
            continue
        parts = tuple(
            replace(part, literal=_with_attributes(part.literal, inner)) if isinstance(part, Code) else part
            for part in result.parts
        )
        replaced.append(
            (place.start, place.end, html_text(replace(result, parts=parts), segment, place, skeleton.source))
        )
    language = _LANGUAGE.search(text, 0, 4096)
    if replaced and language and target_lang:
        replaced.append((*language.span(1), target_lang))
    return skeleton.source.replaced(sorted(replaced))


def _with_attributes(literal: str, inner: Mapping[str, Sequence[tuple[int, int, str]]]) -> str:
    """Return a code with the translated attributes of its tags."""
    for tag, values in inner.items():
        if tag in literal:
            new, done = [], 0
            for start, end, value in sorted(dict.fromkeys(values)):
                if start >= done:
                    new += [tag[done:start], value]
                    done = end
            literal = literal.replace(tag, "".join(new) + tag[done:])
    return literal


def html_text(result: Translated, segment: Segment, place: Place, source: SourceText) -> str:
    """Return a translated segment as it stands in HTML."""
    spelled = spellings(source.text[place.start : place.end])
    quote = place.style if place.style in ('"', "'") else ""

    def escape(text: str) -> str:
        escaped = escape_text(text, spelled, quote=quote)
        return "".join(char if source.can_encode(char) else f"&#{ord(char)};" for char in escaped)

    return flowed(result, escape, segment.wrap)


def html_segments(source: SourceText, begin: int, end: int) -> Iterator[tuple[Segment, Place]]:
    """Yield what people read of HTML.

    Args:
        source: A text with HTML in it.
        begin: Where the HTML begins.
        end: Where it ends.
    """
    reader = _Reader(source, source.text[begin:end], begin)
    for token in tokenize(reader.text, html=True):
        yield from reader.feed(token)
    yield from reader.finish()


class _Reader:
    """Collects texts and inline tags until a tag begins or ends a block."""

    def __init__(self, source: SourceText, text: str, begin: int) -> None:
        self.source = source
        self.text = text
        self.begin = begin
        self._run: list[Token] = []
        self._holders: list[str] = []
        self._skipped: list[str] = []
        self._kept = False

    def feed(self, token: Token) -> Iterator[tuple[Segment, Place]]:
        """Take one token."""
        name = token.name.lower()
        if self._skipped and not self._is_ended(token, name):
            if self._kept:
                self._run.append(token)
            optional = self._skipped[0] in _ENDED_BY
            if token.kind == "open" and (name == self._skipped[0] or (optional and name not in _VOID)):
                self._skipped.append(name)
            elif token.kind == "close" and name in self._skipped:
                while self._skipped.pop() != name:
                    pass
            return
        self._skipped = []
        if token.kind in ("open", "empty"):
            yield from _attribute_segments(self.source, self.text, self.begin, token)
        inline = name in INLINE or name in _COPIED
        if token.kind in ("open", "close", "empty") and not inline:
            yield from self.finish()
            if token.kind == "open" and name not in _VOID:
                self._holders.append(name)
            elif token.kind == "close" and name in self._holders:
                while self._holders.pop() != name:
                    pass
        elif token.kind != "other" or self._run:
            self._run.append(token)
        if token.kind == "open" and name not in _VOID and (name in _SKIPPED | _COPIED or _is_kept(self.text, token)):
            # What is copied within a text is one code of it.
            self._skipped, self._kept = [name], inline

    def _is_ended(self, token: Token, name: str) -> bool:
        """Tell whether a tag ends the element that is left out though its closing tag is missing."""
        holder, *inner = self._skipped
        if holder not in _ENDED_BY or token.kind not in ("open", "empty", "close"):
            return False
        if token.kind == "close":
            return name not in self._skipped and name in self._holders
        if holder == "p":
            return name not in INLINE | _COPIED and INLINE.issuperset(inner)
        return name in _ENDED_BY[holder] and not {"ul", "ol", "dl", "table", "select"}.intersection(inner)

    def finish(self) -> Iterator[tuple[Segment, Place]]:
        """Yield the segment of what was collected."""
        run, self._run = self._run, []
        yield from _run_segment(self.source, self.text, self.begin, run, self._holders)


def _is_kept(text: str, token: Token) -> bool:
    values = attribute_values(text, token)
    return values.get("translate", "").lower() == "no" or "notranslate" in values.get("class", "").split()


def _attribute_segments(source: SourceText, text: str, begin: int, token: Token) -> Iterator[tuple[Segment, Place]]:
    if _is_kept(text, token):
        return
    values = attribute_values(text, token)
    name = token.name.lower()
    wanted = set(_ATTRIBUTES)
    if name == "meta" and values.get("name", values.get("property", "")).lower() in _META:
        wanted.add("content")
    if name == "input" and values.get("type", "").lower() in ("submit", "button", "reset"):
        wanted.add("value")
    if name in ("option", "optgroup", "track"):
        wanted.add("label")
    for found in attributes(text, token):
        if found.name in wanted and found.quoted and any(map(str.isalpha, text[found.start : found.end])):
            yield _attribute_segment(source, text, begin, token, found)


def _attribute_segment(
    source: SourceText, text: str, begin: int, token: Token, found: Attribute
) -> tuple[Segment, Place]:
    raw = text[found.start : found.end]
    start = begin + found.start
    segment = Segment(
        parts=tuple(text_parts(raw)), kind="attribute", line=source.line(start), offset=start, key=found.name
    )
    tag = (begin + token.start, begin + token.end)
    return segment, AttributePlace(start, begin + found.end, text[found.start - 1], tag=tag)


def _run_segment(
    source: SourceText, text: str, begin: int, run: list[Token], holders: list[str]
) -> Iterator[tuple[Segment, Place]]:
    """Yield the segment that a run of texts and inline tags is, without the blanks and tags at its edges."""
    run = _trimmed(text, run)
    if not run:
        return
    start, end = run[0].start, run[-1].end
    raw = text[start:end]
    lead, trail = len(raw) - len(raw.lstrip()), len(raw) - len(raw.rstrip())
    start, end = start + lead, end - trail
    parts = _parts(text, run, start, end)
    if not has_words(parts):
        return
    at = begin + start
    holder = holders[-1] if holders else ""
    segment = Segment(
        parts=parts,
        kind=_KINDS.get(holder, "paragraph"),
        line=source.line(at),
        offset=at,
        wrap=wrap_of(text, start, end),
        flowing=True,
    )
    yield segment, Place(at, begin + end)


def _trimmed(text: str, run: list[Token]) -> list[Token]:
    """Leave out what stands at the edges of a run and is no text; tags are kept where their other half is within."""

    def says(token: Token) -> bool:
        return token.kind == "text" and bool(text[token.start : token.end].strip())

    while run and run[0].kind == "text" and not says(run[0]):
        run = run[1:]
    while run and run[-1].kind == "text" and not says(run[-1]):
        run = run[:-1]
    return run


def _parts(text: str, run: list[Token], start: int, end: int) -> tuple[Part, ...]:
    parts: list[Part] = []
    copied: list[str] = []
    began = 0
    for token in run:
        name = token.name.lower()
        if copied:
            if token.kind == "open" and name == copied[0]:
                copied.append(name)
            elif token.kind == "close" and name == copied[0]:
                copied.pop()
                if not copied:
                    parts.append(_copied(text, began, token.end))
            continue
        if token.kind == "text":
            raw = text[max(token.start, start) : min(token.end, end)]
            parts += [_BLANK.sub(" ", part) if isinstance(part, str) else part for part in text_parts(raw)]
        elif token.kind == "open" and name not in _VOID and (name in _COPIED or _is_kept(text, token)):
            copied, began = [name], token.start
        else:
            literal = text[token.start : token.end]
            alone = token.kind not in ("open", "close") or name in _VOID
            role: Role = "close" if token.kind == "close" else "open"
            parts.append(Code(literal=literal, role="alone" if alone else role, breaks=name in ("br", "hr")))
    if copied:
        parts.append(_copied(text, began, run[-1].end))
    return tuple(pair_codes(parts))


def _copied(text: str, start: int, end: int) -> Code:
    literal = text[start:end]
    return Code(literal=literal, text=re.sub(r"<[^<>]*>", "", literal) or " ")


def wrap_of(text: str, start: int, end: int) -> Wrap | None:
    """Return how a text within markup is wrapped; None where it stands in one line."""
    lines = text[start:end].split("\n")
    if len(lines) == 1:
        return None
    line_start = text.rfind("\n", 0, start) + 1
    first = start - line_start
    indent = lines[1][: len(lines[1]) - len(lines[1].lstrip(" \t"))]
    width = max(first + len(lines[0].rstrip()), *(len(line.rstrip()) for line in lines[1:]))
    return Wrap(width, indent, "\r\n" if lines[0].endswith("\r") else "\n", first)
