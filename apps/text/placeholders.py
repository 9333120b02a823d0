"""What a translation must carry over unchanged: placeholders, tags, links, numbers."""

from __future__ import annotations

import re
from collections import Counter

_PLACEHOLDER = re.compile(
    r"(?P<url>(?:https?|ftp)://[^\s<>\"'）】」]+|www\.[^\s<>\"'）】」]+)"
    r"|(?P<mail>[\w.+-]+@[\w-]+(?:\.[\w-]+)+)"
    r"|(?P<tag></?[A-Za-z][^<>\n]{0,80}>)"
    r"|(?P<brace>\$?\{[^{}\n]{0,60}\}|\{\{[^{}\n]{0,60}\}\}|%\([\w ]{1,40}\)[sdfi])"
    r"|(?P<percent>%(?:\d+\$)?[-+ 0#]?\d*(?:\.\d+)?[sdifgxXc@](?![A-Za-z]))"
    r"|(?P<number>\d(?:[\d.,:'’\u00a0\u202f]*\d)?)"
)


def placeholders(text: str) -> Counter[str]:
    """Count the things in a text that every translation keeps.

    Links, mail addresses, tags, ``{name}``, ``${name}``, ``%s``, ``%(name)s`` are taken as they are. Numbers are
    reduced to their digits, since languages write 1,234.5 in different ways.

    Args:
        text: Source or translation.
    """
    found: Counter[str] = Counter()
    for match in _PLACEHOLDER.finditer(text):
        value = match.group()
        if match.lastgroup == "number":
            value = re.sub(r"\D", "", value)
        elif match.lastgroup == "url":
            value = value.rstrip(".,;:!?)")
        found[value] += 1
    return found


def missing_placeholders(source: str, translation: str) -> list[str]:
    """Return what the translation lacks, in the order of the source; a thing lacking twice is listed twice."""
    have = placeholders(translation)
    missing = []
    for value, count in placeholders(source).items():
        missing.extend([value] * max(0, count - have[value]))
    return missing
