"""SubRip (SRT) and WebVTT: cues with times."""

from __future__ import annotations

import re

from nlpkit.apps.documents.document import Document, Part, ReadOptions, Results, Segment, Translated, broken
from nlpkit.apps.documents.formats.markup.entities import escape_text, spellings, text_parts
from nlpkit.apps.documents.formats.spans import Place, SpanSkeleton, span_document, write_spans
from nlpkit.apps.documents.formats.subtitles.cues import cue_parts, cue_text
from nlpkit.apps.documents.source_text import decode_source

_TIME = r"(?:\d{1,3}:)?\d{1,2}:\d{2}[,.]\d{1,3}"
_TIMES = rf"[ \t]*(?P<from>{_TIME})[ \t]*-->[ \t]*(?P<to>{_TIME})"
# Where the empty line between two cues is missing, the number or the times of the second end the first.
_NEXT = rf"(?:[ \t]*\d{{1,9}}[ \t]*\r?\n)?[ \t]*{_TIME}[ \t]*-->"
_CUE = re.compile(
    rf"^{_TIMES}[^\n]*\n(?P<text>(?:(?!{_NEXT})[^\S\n]*\S[^\n]*(?:\n|\Z))*)",
    re.MULTILINE,
)


class SubRip:
    """Reads and writes SRT."""

    name = "srt"
    title = "SubRip subtitles"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read subtitles.

        Raises:
            InputError: There are no cues in it.
        """
        source = decode_source(data, options)
        self._check(source.text, options)
        segments: list[Segment] = []
        places: list[Place] = []
        for match in _CUE.finditer(source.text):
            start, end = match.span("text")
            text = source.text[start:end]
            end -= len(text) - len(text.rstrip("\r\n"))
            text = source.text[start:end]
            if not text.strip():
                continue
            newline = "\r\n" if "\r\n" in match.group() else "\n"
            segments.append(
                Segment(
                    parts=cue_parts(text, newline, self.plain),
                    kind="cue",
                    line=source.line(start),
                    offset=start,
                    key=match.group("from"),
                    seconds=max(0.0, _seconds(match.group("to")) - _seconds(match.group("from"))),
                    flowing=True,
                )
            )
            places.append(Place(start, end, newline))
        if not segments and source.text.strip() and not self._may_be_empty(source.text):
            raise broken(self.title, options, "there is no cue such as 00:00:01,000 --> 00:00:02,000 in it")
        return span_document(self.name, source, zip(segments, places, strict=True))

    def write(self, skeleton: SpanSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write subtitles."""

        def render(result: Translated, segment: Segment, place: Place) -> str:
            spelled = spellings(skeleton.source.text[place.start : place.end])
            return cue_text(result, place.style, lambda text: self.escaped(text, spelled))

        return write_spans(skeleton, results, render)

    def plain(self, raw: str) -> list[Part]:
        """Return text and codes of what stands between tags."""
        return [raw] if raw else []

    def escaped(self, text: str, spelled: dict[str, str]) -> str:
        """Return text as it stands in a cue.

        Args:
            text: What people read.
            spelled: Characters that the cue spells as references, with these.
        """
        return text

    def _check(self, text: str, options: ReadOptions) -> None:
        pass

    def _may_be_empty(self, text: str) -> bool:
        return False


class WebVtt(SubRip):
    """Reads and writes WebVTT."""

    name = "vtt"
    title = "WebVTT subtitles"

    def plain(self, raw: str) -> list[Part]:
        """Return text and codes, with references undone."""
        return text_parts(raw)

    def escaped(self, text: str, spelled: dict[str, str]) -> str:
        """Return text with references for signs; an arrow would end the cue."""
        return escape_text(text, spelled).replace("-->", "--&gt;")

    def _check(self, text: str, options: ReadOptions) -> None:
        if not re.match(r"WEBVTT(?=[ \t\r\n]|\Z)", text):
            raise broken(self.title, options, "it does not begin with WEBVTT", line=1)

    def _may_be_empty(self, text: str) -> bool:
        return True


def _seconds(time: str) -> float:
    hours, minutes, seconds = ([*["0"] * 3, *time.replace(",", ".").split(":")])[-3:]
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
