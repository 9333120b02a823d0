"""Paragraphs of markup that is made of lines: reStructuredText and AsciiDoc find theirs with these."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nlpkit.apps.documents.document import Code, Kind, Part, Segment, Wrap, has_words
from nlpkit.apps.documents.formats.spans import Place
from nlpkit.apps.documents.source_text import SourceText


@dataclass(frozen=True)
class TextLine:
    """A line of a file.

    Attributes:
        start: Offset of its first character.
        text: What it says, without its line end and blanks before that.
        end: Its line end.
    """

    start: int
    text: str
    end: str

    @property
    def indent(self) -> int:
        """Columns of blanks that it begins with."""
        return len(self.text) - len(self.text.lstrip())

    @property
    def blank(self) -> bool:
        """Whether there is nothing in it."""
        return not self.text


def split_text(text: str) -> list[TextLine]:
    """Return the lines of a text."""
    return [
        TextLine(match.start(), match.group(1).rstrip(), match.group(2))
        for match in re.finditer(r"([^\r\n]*)(\r\n|\r|\n|\Z)", text)
        if match.group()
    ]


def paragraph(
    source: SourceText,
    lines: Sequence[TextLine],
    parts: Callable[[str], tuple[Part, ...]],
    *,
    kind: Kind = "paragraph",
    lead: int = 0,
) -> Iterator[tuple[Segment, Place]]:
    """Yield the segment that some lines are.

    Args:
        source: The file.
        lines: The lines.
        parts: Cuts inline markup into text and codes.
        kind: What they are.
        lead: Characters at the beginning of the first line, behind its indent, that do not belong to the text.
    """
    first = lines[0]
    start = first.start + first.indent + lead
    end = lines[-1].start + len(lines[-1].text)
    bodies = [source.text[start : first.start + len(first.text)], *(line.text.strip() for line in lines[1:])]
    found = parts(" ".join(bodies))
    if not has_words(found):
        return
    wrap = None
    if len(lines) > 1:
        width = max(len(line.text) for line in lines)
        wrap = Wrap(width, " " * lines[1].indent, first.end or "\n", start - first.start)
    segment = Segment(parts=found, kind=kind, line=source.line(start), offset=start, wrap=wrap, flowing=True)
    yield segment, Place(start, end)


def coded(text: str, pattern: re.Pattern[str], read: Callable[[re.Match[str]], Sequence[Part]]) -> list[Part]:
    """Cut text into what lies between matches and what those are.

    Args:
        text: The text.
        pattern: What is no plain text.
        read: Returns the text and codes of a match.
    """
    parts: list[Part] = []
    done = 0
    for match in pattern.finditer(text):
        if match.start() > done:
            parts.append(text[done : match.start()])
        parts += read(match)
        done = match.end()
    if done < len(text):
        parts.append(text[done:])
    return parts


def enclosed(opens: str, text: str, closes: str) -> list[Part]:
    """Return text between two codes that belong together."""
    return [Code(literal=opens, role="open"), text, Code(literal=closes, role="close")]
