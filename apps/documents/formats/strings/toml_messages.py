"""TOML: the strings of a file of messages; keys, numbers, dates and comments stay."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from nlpkit.apps.documents.document import Document, ReadOptions, Results, Segment, Translated, broken
from nlpkit.apps.documents.formats.spans import Place, SpanSkeleton, literals, span_document, write_spans
from nlpkit.apps.documents.formats.strings.keys import is_for_people
from nlpkit.apps.documents.formats.strings.messages import message_parts
from nlpkit.apps.documents.source_text import decode_source

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TOKEN = re.compile(
    r'(?P<string>"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\')|(?P<comment>\#[^\n]*)'
    r"|(?P<bare>[A-Za-z0-9_-]+)|(?P<sign>[\[\]{}=,.])|(?P<line>\n)|(?P<other>[^\S\n]+|.)",
    re.DOTALL,
)

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class TomlMessages:
    """Reads and writes TOML."""

    name = "toml"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a file of messages.

        Raises:
            InputError: It is no TOML.
        """
        source = decode_source(data, options)
        try:
            tomllib.loads(source.text.replace("\r\n", "\n"))
        except (ValueError, RecursionError) as error:
            raise broken("TOML", options, str(error)[:200]) from error
        segments: list[Segment] = []
        places: list[Place] = []
        for key, start, end in _values(source.text):
            raw = source.text[start:end]
            text = str(tomllib.loads("x = " + raw.replace("\r\n", "\n"))["x"])
            if not is_for_people(text, key=key, settings=True):
                continue
            quote = raw[:3] if raw[:3] in ('"""', "'''") else raw[0]
            segments.append(
                Segment(
                    parts=message_parts(text),
                    kind="message",
                    line=source.line(start),
                    offset=start,
                    key=key,
                )
            )
            places.append(Place(start, end, quote))
        return span_document(self.name, source, zip(segments, places, strict=True))

    def write(self, skeleton: SpanSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a file of messages."""

        def render(result: Translated, segment: Segment, place: Place) -> str:
            raw = skeleton.source.text[place.start : place.end]
            text = literals(result, str)
            return _written(text, raw, place.style)

        return write_spans(skeleton, results, render)


def _written(text: str, raw: str, quote: str) -> str:
    newline = "\r\n" if "\r\n" in raw else "\n"
    # A line end right behind three quotes is not read.
    lead = newline if len(quote) == 3 and (raw[3:5].startswith(newline) or text.startswith("\n")) else ""
    bare = not _CONTROLS.search(text) and quote not in text and (quote == "'''" or "\n" not in text)
    if quote[0] == "'" and bare and not (quote == "'''" and text.endswith("'")):
        return f"{quote}{lead}{text.replace(chr(10), newline)}{quote}"
    if quote == '"""' and "\n" in text:
        return f'"""{lead}{newline.join(map(_escaped, text.split(chr(10))))}"""'
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    table = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f"}
    return "".join(
        table.get(char) or (f"\\u{ord(char):04x}" if char < " " or char == "\x7f" else char) for char in text
    )


def _values(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield key, begin and end (quotes counted in) of each string that is a value, in a text that is TOML."""
    key: list[str] = []
    in_value, depth = False, 0
    inline: list[bool] = []
    header = False
    for match in _TOKEN.finditer(text):
        kind, sign = match.lastgroup, match.group()
        if kind == "line":
            if depth == 0:
                key, in_value, header = [], False, False
        elif kind == "sign":
            if sign == "[" and not in_value and not key and depth == 0:
                header = True
            elif header:
                continue
            elif sign == "=":
                in_value = True
            elif sign in "[{":
                depth += 1
                inline.append(sign == "{")
                if sign == "{":
                    in_value = False
            elif sign in "]}" and inline:
                depth -= 1
                inline.pop()
                in_value = True
            elif sign == "," and inline and inline[-1]:
                in_value = False
                key = key[:-1]
        elif header:
            continue
        elif kind == "string":
            if in_value:
                yield key[-1] if key else "", match.start(), match.end()
            else:
                key.append(sign[1:-1])
        elif kind == "bare" and not in_value:
            key.append(sign)
