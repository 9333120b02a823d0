"""Skeletons of formats that are text: the file's text, and the places of its segments in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nlpkit.apps.documents.document import Document, Results, Segment, Translated, Wrap
from nlpkit.apps.documents.source_text import SourceText

_STAY = "\ufdd0"
"""Stands for a blank that is no place to break a line at: a character that Unicode keeps for such uses."""

_ITSELF = "\ufdd1"
"""Stands for that character where a text has it all the same."""


@dataclass(frozen=True)
class Place:
    """Where a segment stands.

    Attributes:
        start: Offset of its first character in the text.
        end: Offset behind its last.
        style: How it is written there, in the format's own words.
    """

    start: int
    end: int
    style: str = ""


@dataclass(frozen=True)
class SpanSkeleton:
    """A text and its segments.

    Attributes:
        source: The text.
        places: One a segment, in order.
        segments: The segments.
    """

    source: SourceText
    places: tuple[Place, ...]
    segments: tuple[Segment, ...]


def span_document(
    name: str, source: SourceText, found: Iterable[tuple[Segment, Place]], *, source_lang: str | None = None
) -> Document:
    """Return a document that is a text with segments in it.

    Args:
        name: Name of the format.
        source: The file.
        found: Segments and their places, in the order of the file.
        source_lang: The language that the file says it is in, if it says so.
    """
    pairs = list(found)
    segments = tuple(segment for segment, _ in pairs)
    return Document(
        format=name,
        segments=segments,
        skeleton=SpanSkeleton(source, tuple(place for _, place in pairs), segments),
        source_lang=source_lang,
        source_text=source.text,
    )


def write_spans(skeleton: SpanSkeleton, results: Results, render: Callable[[Translated, Segment, Place], str]) -> bytes:
    """Write a text with the translated segments in their places.

    Args:
        skeleton: The text.
        results: One a segment.
        render: Writes a segment as the format does.
    """
    return skeleton.source.replaced(
        (place.start, place.end, render(result, segment, place))
        for place, segment, result in zip(skeleton.places, skeleton.segments, results, strict=True)
        if result is not None
    )


def matched_end(pattern: re.Pattern[str], text: str, start: int, end: int) -> int:
    """Return where a match that begins at a place ends: there where nothing matches.

    Args:
        pattern: The pattern.
        text: The text.
        start: Where the match begins.
        end: Where the text is taken to end.
    """
    match = pattern.match(text, start, end)
    return start if match is None else match.end()


def literals(result: Translated, escape: Callable[[str], str]) -> str:
    """Return the parts of a result as they stand in a file: texts escaped, codes as they are."""
    return "".join(escape(part) if isinstance(part, str) else part.literal for part in result.parts)


def flowed(
    result: Translated,
    escape: Callable[[str], str],
    wrap: Wrap | None,
    *,
    begins_badly: re.Pattern[str] | None = None,
) -> str:
    """Return the parts of a result as they stand in a file, wrapped; blanks within codes are no places to break at.

    Args:
        result: The result.
        escape: Escapes text.
        wrap: How the source was wrapped; None for one line.
        begins_badly: As `wrapped`.
    """
    if wrap is None:
        return literals(result, escape)
    text = "".join(
        _kept(escape(part)) if isinstance(part, str) else _kept(part.literal).replace(" ", _STAY)
        for part in result.parts
    )
    lines = wrapped(text, wrap, begins_badly=begins_badly).replace(_STAY, " ")
    return lines.replace(_ITSELF + "0", _STAY).replace(_ITSELF + "1", _ITSELF)


def _kept(text: str) -> str:
    """Spell the characters with a meaning of their own here, which hardly any text has."""
    return text.replace(_ITSELF, _ITSELF + "1").replace(_STAY, _ITSELF + "0")


def wrapped(text: str, wrap: Wrap, *, begins_badly: re.Pattern[str] | None = None) -> str:
    """Wrap a paragraph.

    Args:
        text: One line, as it is written to the file.
        wrap: How.
        begins_badly: What a line must not begin with, as it would mean something else there.
    """
    lines: list[str] = []
    line: list[str] = []
    used = wrap.first
    for word in text.split(" "):
        bad = begins_badly is not None and begins_badly.match(word + " ") is not None
        if line and used + len(word) > wrap.width and not bad:
            lines.append(" ".join(line))
            line, used = [], len(wrap.indent)
        line.append(word)
        used += len(word) + 1
    return (wrap.line_end + wrap.indent).join([*lines, " ".join(line)])
