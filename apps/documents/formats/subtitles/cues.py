"""Cues of subtitles: lines of text with tags, joined to be translated and wrapped again."""

from __future__ import annotations

import re
from collections.abc import Callable

from nlpkit.apps.documents.document import Code, Part, Segment, Translated
from nlpkit.apps.documents.formats.strings.messages import pair_codes

LONGEST_LINE = 42
"""Characters of a line that people read at a glance (Netflix, BBC: 42 and 37)."""

_TAG = re.compile(r"<(/?)([A-Za-z][\w.]*)(?:[ .][^<>\n]{0,200})?>|\{\\[^{}\n]{0,200}\}|<\d\d:[\d:.]{5,12}>")
_SPEAKERS = re.compile(r"^(?:[-–—‐]\s?|<v )")


def cue_parts(text: str, newline: str) -> tuple[Part, ...]:
    """Cut the text of a cue into text and codes.

    Line ends between two speakers keep them apart; others are blanks.

    Args:
        text: Lines of a cue.
        newline: The line end in it.
    """
    lines = text.split(newline)
    apart = sum(bool(_SPEAKERS.match(_TAG.sub("", line))) for line in lines) > 1
    parts: list[Part] = []
    for index, line in enumerate(lines):
        if index:
            parts.append(Code(literal=newline, breaks=True) if apart or not line.strip() else " ")
        parts += _tags(line.rstrip() if not apart else line)
    return tuple(pair_codes(parts))


def _tags(line: str) -> list[Part]:
    parts: list[Part] = []
    done = 0
    for match in _TAG.finditer(line):
        parts += [line[done : match.start()]] if match.start() > done else []
        role = "alone" if not match.group(2) else "close" if match.group(1) else "open"
        parts.append(Code(literal=match.group(), role=role))  # type: ignore[arg-type]
        done = match.end()
    return [*parts, line[done:]] if line[done:] else parts


def cue_text(result: Translated, segment: Segment, newline: str, escape: Callable[[str], str] = str) -> str:
    """Write the text of a cue, in no more lines than it needs.

    Args:
        result: Its translation.
        segment: The cue.
        newline: The line end between its lines.
        escape: Writes text as it stands in the file.
    """
    text = "".join(escape(part) if isinstance(part, str) else part.literal for part in result.parts)
    return newline.join(piece for line in text.split(newline) for piece in _balanced(line))


def _balanced(line: str) -> list[str]:
    """Break a line that is too long into lines of about one length."""
    seen = len(_TAG.sub("", line))
    if seen <= LONGEST_LINE:
        return [line]
    count = -(-seen // LONGEST_LINE)
    words = re.split(r" (?![^<{]*[>}])", line)
    lines: list[str] = [words[0]]
    for word in words[1:]:
        shown = len(_TAG.sub("", lines[-1]))
        if len(lines) < count and shown + len(_TAG.sub("", word)) / 2 > seen / count:
            lines.append(word)
        else:
            lines[-1] += " " + word
    return lines
