"""Character references of HTML and XML: read as the characters that people see, written as the file writes them."""

from __future__ import annotations

import re
from html import unescape

from nlpkit.apps.documents.document import Code, Part

_REFERENCE = re.compile(r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{0,31});")
_PLAIN = frozenset("&<>\"'’‘“”„«»–—…¿¡")


def text_parts(raw: str) -> list[Part]:
    """Cut raw text into what people read and codes.

    References to letters, quotes and dashes are read as these; others, such as ``&nbsp;``, are codes.

    Args:
        raw: Text between tags.
    """
    parts: list[Part] = []
    done = 0
    for match in _REFERENCE.finditer(raw):
        char = unescape(match.group())
        if match.start() > done:
            parts.append(raw[done : match.start()])
        done = match.end()
        if len(char) == 1 and (char.isalpha() or char in _PLAIN):
            parts.append(char)
        else:
            parts.append(Code(literal=match.group(), text=char if len(char) == 1 and char.isprintable() else " "))
    if done < len(raw):
        parts.append(raw[done:])
    return parts


def spellings(raw: str) -> dict[str, str]:
    """Return the characters that a text spells as references, with these."""
    found = {unescape(match.group()): match.group() for match in _REFERENCE.finditer(raw)}
    return {char: reference for char, reference in found.items() if len(char) == 1}


def escape_text(text: str, spelled: dict[str, str], *, quote: str = "") -> str:
    """Escape text for markup.

    Args:
        text: What people read.
        spelled: Characters that the file spells as references.
        quote: The quote mark around an attribute's value.
    """
    table = {"&": "&amp;", "<": "&lt;", **({quote: "&quot;" if quote == '"' else "&#39;"} if quote else {})}
    if ">" in spelled:
        table[">"] = spelled[">"]
    table |= {char: reference for char, reference in spelled.items() if char not in table or char in "&<"}
    # The end of a CDATA section must not stand in XML, wherever it is.
    return "".join(table.get(char, char) for char in text).replace("]]>", "]]&gt;")
