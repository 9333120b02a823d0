"""JSON and ARB: the strings of a file of messages, found in its text; keys, numbers and order stay as they are."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator

from nlpkit.apps.documents.document import Document, ReadOptions, Results, Segment, Translated, broken
from nlpkit.apps.documents.formats.spans import Place, SpanSkeleton, literals, span_document, write_spans
from nlpkit.apps.documents.formats.strings.keys import is_for_people
from nlpkit.apps.documents.formats.strings.messages import message_parts
from nlpkit.apps.documents.source_text import decode_source

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)
MAX_DEPTH = 200
"""Deepest nesting that is read."""


class JsonMessages:
    """Reads and writes JSON."""

    name = "json"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a file of messages.

        Raises:
            InputError: It is no JSON.
        """
        source = decode_source(data, options)
        try:
            value = json.loads(source.text, object_pairs_hook=_object)
        except json.JSONDecodeError as error:
            raise broken("JSON", options, error.msg, line=error.lineno) from error
        except (ValueError, RecursionError) as error:
            why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
            raise broken("JSON", options, why) from error
        if isinstance(value, (int, float)) or value is None:
            raise broken("JSON messages", options, "it holds no strings")
        said = value.get("@@locale") if isinstance(value, dict) else None
        locale = said if isinstance(said, str) else None
        segments: list[Segment] = []
        places: list[Place] = []
        for path, start, end in json_strings(source.text, options):
            raw = source.text[start:end]
            text = json.loads(raw)
            key = path[-1] if path else ""
            # What ARB says about a message, and JSON-LD about itself.
            if any(name.startswith("@") for name in path) or not _is_wanted(value, path):
                continue
            if not is_for_people(text, key=key):
                continue
            style = _style(raw)
            parts = message_parts(text, lambda part, style=style: _escaped(part, style))  # type: ignore[misc]
            segments.append(
                Segment(parts=parts, kind="message", line=source.line(start), offset=start + 1, key=".".join(path))
            )
            places.append(Place(start + 1, end - 1, style))
        return span_document(
            self.name,
            source,
            zip(segments, places, strict=True),
            source_lang=locale,
        )

    def write(self, skeleton: SpanSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a file of messages."""

        def render(result: Translated, segment: Segment, place: Place) -> str:
            return literals(result, lambda text: _escaped(text, place.style))

        return write_spans(skeleton, results, render)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make an object of its pairs; of two with one key readers would take one each."""
    done = dict(pairs)
    if len(done) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"an object has the key {twice[:60]!r} twice")
    return done


def _style(raw: str) -> str:
    r"""Say how a string is escaped: ``u`` for letters as ``\u00e4``, ``/`` for slashes as ``\/``."""
    return ("u" if re.search(r"\\u(?!00[01])", raw) else "") + ("/" if "\\/" in raw else "")


def _escaped(text: str, style: str) -> str:
    escaped = json.dumps(text, ensure_ascii="u" in style)[1:-1]
    return escaped.replace("/", "\\/") if "/" in style else escaped


def json_strings(text: str, options: ReadOptions) -> Iterator[tuple[tuple[str, ...], int, int]]:
    """Yield path, begin and end (quotes counted in) of each string that is a value, in a text that is JSON."""
    path: list[str] = []
    counts: list[int] = []
    key: str | None = None
    tokens = list(_TOKEN.finditer(text))
    for index, match in enumerate(tokens):
        sign = match.group()
        if sign in "{[":
            if len(path) >= MAX_DEPTH:
                raise broken("JSON", options, f"it is nested more than {MAX_DEPTH} deep")
            path.append("" if sign == "{" else "0")
            counts.append(-1 if sign == "{" else 0)
        elif sign in "}]":
            path.pop()
            counts.pop()
        elif sign == ",":
            if counts and counts[-1] >= 0:
                counts[-1] += 1
                path[-1] = str(counts[-1])
        elif sign[0] == '"':
            following = tokens[index + 1].group() if index + 1 < len(tokens) else ""
            if following == ":" and counts and counts[-1] < 0:
                key = json.loads(sign)
                path[-1] = str(key)
            else:
                yield tuple(path), match.start(), match.end()


def _is_wanted(value: object, path: tuple[str, ...]) -> bool:
    """Leave out what describes a message for its translators, beside the message."""
    holder = value
    for key in path[:-1]:
        if isinstance(holder, dict):
            holder = holder.get(key)
        elif isinstance(holder, list):
            holder = holder[int(key)]
    if not isinstance(holder, dict):
        return not any(key == "placeholders" for key in path[:-1])
    if "message" in holder and ("description" in holder or "placeholders" in holder):
        return path[-1] == "message"
    if "defaultMessage" in holder:
        return path[-1] == "defaultMessage"
    return not (len(path) > 2 and path[-1] in ("content", "example") and "placeholders" in path)
