"""iCalendar (ICS): summaries, descriptions and places of events; folded lines are folded again."""

from __future__ import annotations

import re

from nlpkit.apps.documents.document import Document, ReadOptions, Results, Segment, Translated, broken
from nlpkit.apps.documents.formats.spans import Place, SpanSkeleton, literals, span_document, write_spans
from nlpkit.apps.documents.formats.strings.keys import is_for_people
from nlpkit.apps.documents.formats.strings.messages import message_parts
from nlpkit.apps.documents.source_text import decode_source

_LINE = re.compile(r"[^\r\n]*(?:\r?\n[ \t][^\r\n]*)*")
_PROPERTY = re.compile(r"(?P<name>[A-Za-z-]+)(?:;(?:[^:\"]|\"[^\"]*\")*)?:")
_WANTED = frozenset(["SUMMARY", "DESCRIPTION", "LOCATION", "COMMENT", "X-WR-CALNAME", "X-WR-CALDESC"])
_FOLD = re.compile(r"\r?\n[ \t]")
_OCTETS = 75
"""Most bytes of a line (RFC 5545, 3.1)."""


class Calendar:
    """Reads and writes ICS."""

    name = "ics"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a calendar.

        Raises:
            InputError: It is none.
        """
        source = decode_source(data, options)
        if not source.text.lstrip().upper().startswith("BEGIN:VCALENDAR"):
            raise broken("iCalendar", options, "it does not begin with BEGIN:VCALENDAR", line=1)
        segments: list[Segment] = []
        places: list[Place] = []
        for match in _LINE.finditer(source.text):
            found = _PROPERTY.match(match.group())
            if found is None or found.group("name").upper() not in _WANTED:
                continue
            start = match.start() + found.end()
            text = _unescaped(_FOLD.sub("", source.text[start : match.end()]))
            if is_for_people(text):
                segments.append(
                    Segment(
                        parts=message_parts(text, _escaped),
                        kind="message",
                        line=source.line(start),
                        offset=start,
                        key=found.group("name"),
                    )
                )
                places.append(Place(start, match.end(), match.group()[: found.end()]))
        return span_document(self.name, source, zip(segments, places, strict=True))

    def write(self, skeleton: SpanSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a calendar."""
        newline = skeleton.source.newline

        def render(result: Translated, segment: Segment, place: Place) -> str:
            return _folded(literals(result, _escaped), len(_FOLD.split(place.style)[-1].encode()), newline)

        return write_spans(skeleton, results, render)


def _unescaped(text: str) -> str:
    return re.sub(r"\\([nN,;\\])", lambda match: "\n" if match.group(1) in "nN" else match.group(1), text)


def _escaped(text: str) -> str:
    return re.sub(r"[\\,;]", r"\\\g<0>", text).replace("\r\n", "\n").replace("\n", "\\n")


def _folded(text: str, used: int, newline: str) -> str:
    pieces: list[str] = []
    for char in text:
        size = len(char.encode())
        if used + size > _OCTETS:
            pieces.append(newline + " ")
            used = 1
        pieces.append(char)
        used += size
    return "".join(pieces)
