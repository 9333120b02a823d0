"""The text of a document for tasks that read and do not write: what people see, with its places in the file."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from nlpkit.apps.documents.document import Document

_LINES = frozenset(["list_item", "cell", "cue", "message"])
"""Kinds that stand below each other without a blank line."""


@dataclass(frozen=True)
class TextPlace:
    """Where a piece of the text comes from.

    Attributes:
        start: Offset of its first character in the text.
        offset: Offset in the decoded file; -1 where there is none.
        line: Line in the file; 0 where there is none.
        place: Where it stands in words, such as ``page 3``.
        exact: Whether each character of it stands in the file as it stands here.
    """

    start: int
    offset: int
    line: int
    place: str
    exact: bool


@dataclass(frozen=True)
class DocumentText:
    """What people read of a document.

    Attributes:
        text: Its segments below each other; paragraphs with a blank line between them.
        places: Where they come from, in order.
    """

    text: str
    places: tuple[TextPlace, ...]

    def find(self, offset: int) -> TextPlace | None:
        """Return the piece in which a character of the text stands."""
        index = bisect_right([place.start for place in self.places], offset) - 1
        return self.places[index] if index >= 0 else None

    def offset_in_file(self, offset: int) -> int:
        """Return where a character stands in the decoded file, or else where its piece begins; -1 for nowhere."""
        place = self.find(offset)
        if place is None or place.offset < 0:
            return -1
        return place.offset + (offset - place.start if place.exact else 0)


def document_text(document: Document) -> DocumentText:
    """Return the text of a document; attributes such as descriptions of pictures are left out.

    Args:
        document: The document.
    """
    pieces: list[str] = []
    places: list[TextPlace] = []
    length = 0
    before = ""
    source = document.source_text
    for segment in document.segments:
        text = segment.text.strip()
        if segment.kind == "attribute" or not text:
            continue
        if before:
            gap = "\n" if segment.kind in _LINES and before == segment.kind else "\n\n"
            pieces.append(gap)
            length += len(gap)
        # Escapes, quotes and tags make the file's text another one.
        lead = len(segment.text) - len(segment.text.lstrip())
        at = segment.offset + lead
        exact = segment.offset >= 0 and source is not None and source.startswith(text, at)
        offset = at if exact else segment.offset
        places.append(TextPlace(length, offset, segment.line, segment.place, exact))
        pieces.append(text)
        length += len(text)
        before = segment.kind
    return DocumentText("".join(pieces), tuple(places))
