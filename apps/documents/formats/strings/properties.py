r"""Java's ``.properties``: keys and values with ``\u00e4`` escapes, lines that go on, and ``{0}`` of MessageFormat."""

from __future__ import annotations

import re

from nlpkit.apps.documents.document import Code, Document, Part, ReadOptions, Results, Segment, Translated, broken
from nlpkit.apps.documents.formats.spans import Place, SpanSkeleton, literals, span_document, write_spans
from nlpkit.apps.documents.formats.strings.messages import join_surrogates, message_pieces
from nlpkit.apps.documents.source_text import SourceText, decode_source
from nlpkit.apps.text.translation.layout import copies_as_is
from nlpkit.core.errors import InputError

_LINE = re.compile(r"(?P<indent>[ \t\f]*)(?P<body>(?:\\(?:\r\n|.|\n)|[^\\\r\n]|\\\Z)*)(?:\r\n|\r|\n|\Z)", re.DOTALL)
_PAIR = re.compile(r"(?P<key>(?:\\(?:\r\n|.|\n)|[^\\\s=:])*)(?P<sep>[ \t\f]*[=:]?[ \t\f]*)(?P<value>.*)", re.DOTALL)
_CONTINUED = re.compile(r"\\(?:\r\n|\r|\n)[ \t\f]*")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f"}
_ARGUMENT = re.compile(r"\{\d{1,3}(?:,[^{}]*)?\}")


class Properties:
    """Reads and writes properties."""

    name = "properties"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read properties.

        Raises:
            InputError: It is no text.
        """
        source = _decoded(data, options)
        segments: list[Segment] = []
        places: list[Place] = []
        for match in _LINE.finditer(source.text):
            body = match.group("body")
            if not body.strip() or body[0] in "#!":
                continue
            pair = _PAIR.match(body)
            if pair is None:
                raise broken("properties", options, "a line has no key", line=source.line(match.start()))
            written = pair.group("value")
            style = "q" if _ARGUMENT.search(written) else ""
            pieces = _quoted(_unescaped(written)) if style else [_unescaped(written)]
            text = "".join(piece if isinstance(piece, str) else piece.text for piece in pieces)
            if not text.strip() or copies_as_is(text):
                continue
            start = match.start("body") + pair.start("value")
            segments.append(
                Segment(
                    parts=message_pieces(pieces, lambda part, style=style: _escaped(part, style, source)),  # type: ignore[misc]
                    kind="message",
                    line=source.line(start),
                    offset=start,
                    key=_unescaped(pair.group("key")),
                )
            )
            places.append(Place(start, start + len(written), style))
        return span_document(self.name, source, zip(segments, places, strict=True))

    def write(self, skeleton: SpanSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write properties."""

        def render(result: Translated, segment: Segment, place: Place) -> str:
            text = literals(result, lambda text: _escaped(text, place.style, skeleton.source))
            # White space before a value belongs to the separator.
            text = re.sub(r"\A ", r"\\ ", text)
            return _wrapped(text, skeleton.source.text[place.start : place.end])

        return write_spans(skeleton, results, render)


def _decoded(data: bytes, options: ReadOptions) -> SourceText:
    try:
        return decode_source(data, options)
    except InputError:
        if options.encoding != "utf-8":
            raise
        # Until Java 9 these files were in Latin-1.
        return decode_source(data, options, encoding="latin-1")


def _unescaped(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        if match.group(1):
            return chr(int(match.group(1), 16))
        return _CONTROLS.get(match.group(2), match.group(2))

    return join_surrogates(_ESCAPE.sub(plain, _CONTINUED.sub("", text)))


def _quoted(text: str) -> list[Part]:
    """Cut the pattern of a MessageFormat: two quotes are one sign, and one alone begins or ends what is no argument."""
    pieces = re.split(r"(''?)", text)
    return [Code(literal="'") if piece == "'" else "'" if piece == "''" else piece for piece in pieces if piece]


def _escaped(text: str, style: str, source: SourceText) -> str:
    if "q" in style:
        text = text.replace("'", "''")
    text = (
        text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r").replace("\f", "\\f")
    )
    # A file without any other letters is read by programs that take it for Latin-1.
    raw = not source.text.isascii()
    return "".join(char if char < "\x80" or (raw and source.can_encode(char)) else _escape(char) for char in text)


def _escape(char: str) -> str:
    data = char.encode("utf-16-be")
    return "".join(f"\\u{data[i] << 8 | data[i + 1]:04x}" for i in range(0, len(data), 2))


def _wrapped(text: str, before: str) -> str:
    """Let a value go on over lines again where it did so, at about the same width."""
    breaks = list(_CONTINUED.finditer(before))
    if not breaks:
        return text
    width = max(len(line) for line in _CONTINUED.split(before))
    lines, line = [], ""
    for word in re.split(r"(?<= )", text):
        if line and len(line) + len(word) > max(width, 20):
            lines.append(line)
            line = ""
        line += word
    return breaks[0].group().join([*lines, line])
