"""Skeletons of formats that are text: the file's text, and the places of its segments in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nlpkit.apps.documents.document import Results, Segment, Translated
from nlpkit.apps.documents.source_text import SourceText


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


def literals(result: Translated, escape: Callable[[str], str]) -> str:
    """Return the parts of a result as they stand in a file: texts escaped, codes as they are."""
    return "".join(escape(part) if isinstance(part, str) else part.literal for part in result.parts)
