"""SubStation Alpha (ASS, SSA) and lyrics (LRC): the text of dialogues and lines; styles and times stay."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nlpkit.apps.documents.document import (
    Code,
    Document,
    Part,
    ReadOptions,
    Results,
    Segment,
    Translated,
    broken,
    has_words,
)
from nlpkit.apps.documents.formats.spans import Place, SpanSkeleton, literals, span_document, write_spans
from nlpkit.apps.documents.source_text import decode_source

_SECTION = re.compile(r"^\[(?P<name>[^\]\n]+)\][ \t]*\r?$", re.MULTILINE)
_DIALOGUE = re.compile(r"^Dialogue:[ \t]*(?P<fields>[^\r\n]*)", re.MULTILINE)
_FORMAT = re.compile(r"^Format:[ \t]*(?P<fields>[^\r\n]*)", re.MULTILINE)
_CODE = re.compile(r"\{[^{}]*\}|\\[Nnh]")
_DRAWING = re.compile(r"\{[^{}]*\\p[1-9]")
_FIELDS = 10


class SubStation:
    """Reads and writes ASS."""

    name = "ass"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read subtitles.

        Raises:
            InputError: There are no events in it.
        """
        source = decode_source(data, options)
        text = source.text
        sections = {match.group("name").lower(): match.end() for match in _SECTION.finditer(text)}
        if "events" not in sections:
            raise broken("ASS subtitles", options, "it has no [Events]")
        said = _FORMAT.search(text, sections["events"])
        names = [name.strip().lower() for name in said.group("fields").split(",")] if said else []
        count = len(names) or _FIELDS
        segments: list[Segment] = []
        places: list[Place] = []
        for match in _DIALOGUE.finditer(text, sections["events"]):
            fields = match.group("fields").split(",", count - 1)
            if len(fields) < count or _DRAWING.search(fields[-1]):
                continue
            start = match.end() - len(fields[-1])
            times = dict(zip(names, fields, strict=False))
            parts = tuple(_parts(fields[-1]))
            if has_words(parts):
                seconds = _seconds(times.get("end", "")) - _seconds(times.get("start", ""))
                segments.append(
                    Segment(
                        parts=parts,
                        kind="cue",
                        line=source.line(start),
                        offset=start,
                        key=times.get("start", "").strip(),
                        seconds=max(0.0, seconds),
                    )
                )
                places.append(Place(start, match.end()))
        return span_document(self.name, source, zip(segments, places, strict=True))

    def write(self, skeleton: SpanSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write subtitles."""

        def render(result: Translated, segment: Segment, place: Place) -> str:
            # Braces would begin a code, which is not shown.
            return literals(result, lambda text: re.sub(r"[\r\n]+", " ", text).replace("{", "(").replace("}", ")"))

        return write_spans(skeleton, results, render)


def _parts(text: str) -> Iterator[Part]:
    done = 0
    for match in _CODE.finditer(text):
        if match.start() > done:
            yield text[done : match.start()]
        yield Code(
            literal=match.group(), breaks=match.group() in ("\\N", "\\n"), text=" " if match.group() == "\\h" else ""
        )
        done = match.end()
    if done < len(text):
        yield text[done:]


def _seconds(time: str) -> float:
    try:
        hours, minutes, seconds = time.strip().split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return 0.0


_LYRIC = re.compile(r"^(?P<lead>[ \t]*(?:\[\d{1,3}:\d{2}(?:[.:]\d{1,3})?\][ \t]*)+)(?P<text>[^\r\n]*\S)", re.MULTILINE)
_TAG = re.compile(r"^\[(?P<name>ti):[ \t]*(?P<text>[^\]\r\n]+)\]", re.MULTILINE)
_WORD_TIME = re.compile(r"<\d{1,3}:\d{2}(?:[.:]\d{1,3})?>[ \t]*")


class Lyrics:
    """Reads and writes LRC."""

    name = "lrc"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read lyrics.

        Raises:
            InputError: There are no times in it.
        """
        source = decode_source(data, options)
        found = sorted([*_LYRIC.finditer(source.text), *_TAG.finditer(source.text)], key=lambda match: match.start())
        if not found and source.text.strip():
            raise broken("lyrics (LRC)", options, "there is no line such as [00:12.00]text in it")
        segments: list[Segment] = []
        places: list[Place] = []
        for match in found:
            start, end = match.span("text")
            raw = source.text[start:end]
            parts = tuple(_timed(raw))
            if has_words(parts):
                segments.append(
                    Segment(parts=parts, kind="cue", line=source.line(start), offset=start, key=match.group(1))
                )
                places.append(Place(start, end))
        return span_document(self.name, source, zip(segments, places, strict=True))

    def write(self, skeleton: SpanSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write lyrics."""
        return write_spans(
            skeleton,
            results,
            lambda result, segment, place: literals(result, lambda text: re.sub(r"[\r\n]+", " ", text)),
        )


def _timed(text: str) -> Iterator[Part]:
    """Yield the words of a line; the times of single words are codes."""
    done = 0
    for match in _WORD_TIME.finditer(text):
        if match.start() > done:
            yield text[done : match.start()]
        yield Code(literal=match.group())
        done = match.end()
    if done < len(text):
        yield text[done:]
