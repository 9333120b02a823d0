"""Cues of subtitles: lines of text with tags, joined to be translated and wrapped again."""

from __future__ import annotations

import re
from collections.abc import Callable

from nlpkit.apps.documents.document import Code, Part, Role, Translated, joined
from nlpkit.apps.documents.formats.spans import literals
from nlpkit.apps.documents.formats.strings.messages import pair_codes

LONGEST_LINE = 42
"""Characters of a line that people read at a glance (Netflix, BBC: 42 and 37)."""

_TAG = re.compile(r"<(/?)([A-Za-z][\w.]*)(?:[ .][^<>\n]{0,200})?>|\{\\[^{}\n]{0,200}\}|<\d\d:[\d:.]{5,12}>")
_SPEAKERS = re.compile(r"^(?:[-–—‐]\s?|<v )")


def _as_it_is(text: str) -> list[Part]:
    return [text] if text else []


def cue_parts(text: str, newline: str, read: Callable[[str], list[Part]] = _as_it_is) -> tuple[Part, ...]:
    """Cut the text of a cue into text and codes.

    Line ends between two speakers keep them apart; others are blanks.

    Args:
        text: Lines of a cue.
        newline: The line end in it.
        read: Cuts what stands between tags into text and codes.
    """
    lines = text.split(newline)
    apart = sum(bool(_SPEAKERS.match(_TAG.sub("", line))) for line in lines) > 1
    parts: list[Part] = []
    for index, line in enumerate(lines):
        if index:
            parts.append(Code(literal=newline, breaks=True) if apart or not line.strip() else " ")
        parts += _tags(line.rstrip() if not apart else line, read)
    return joined(pair_codes(parts))


def _tags(line: str, read: Callable[[str], list[Part]]) -> list[Part]:
    parts: list[Part] = []
    done = 0
    for match in _TAG.finditer(line):
        parts += read(line[done : match.start()])
        role: Role = "alone" if not match.group(2) else "close" if match.group(1) else "open"
        parts.append(Code(literal=match.group(), role=role))
        done = match.end()
    return [*parts, *read(line[done:])]


def cue_text(result: Translated, newline: str, escape: Callable[[str], str] = str) -> str:
    """Write the text of a cue, in no more lines than it needs.

    Args:
        result: Its translation.
        newline: The line end between its lines.
        escape: Writes text as it stands in the file.
    """
    text = literals(result, escape)
    # An empty line would end the cue.
    text = re.sub(r"\n(?:[ \t]*\r?\n)+", "\n", text).strip("\r\n")
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
