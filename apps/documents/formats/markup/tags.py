"""Tags, comments and texts of HTML and XML with their places, for files that have to come back as they were."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

TokenKind = Literal["text", "open", "close", "empty", "comment", "cdata", "other"]

RAW = frozenset(["script", "style", "xmp", "iframe", "noembed", "noframes", "plaintext"])
"""Elements of HTML whose content is no markup."""

_NAME = re.compile(r"</?([^\s/>\"'=<]+)")
_STOP = re.compile(r"[\"'>]")
_ATTRIBUTE = re.compile(r"([^\s\"'<>/=]+)(?:\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'=<>`]+)))?")


_ENCLOSED: tuple[tuple[str, str, TokenKind], ...] = (
    ("<!--", "-->", "comment"),
    ("<![CDATA[", "]]>", "cdata"),
    ("<?", "?>", "other"),
)


@dataclass(frozen=True, slots=True)
class Token:
    """A tag, a text, or something else.

    Attributes:
        kind: What it is; ``other`` are declarations and instructions.
        start: Offset of its first character.
        end: Offset behind its last.
        name: Name of a tag, as it is written.
    """

    kind: TokenKind
    start: int
    end: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of a tag: its name in small letters, and where its value stands without quotes."""

    name: str
    start: int
    end: int
    quoted: bool


def tokenize(text: str, *, html: bool = False) -> Iterator[Token]:
    """Cut markup into tokens that together are the text.

    Args:
        text: The markup.
        html: Whether it is HTML, where scripts hold no tags and stray ``<`` are text.
    """
    at, begun = 0, 0
    ends = _Ends(text)
    while (place := text.find("<", at)) >= 0:
        token = _token(text, place, ends)
        if token is None:
            at = place + 1
            continue
        if place > begun:
            yield Token("text", begun, place)
        yield token
        at = begun = token.end
        if html and token.kind == "open" and token.name.lower() in RAW:
            match = re.compile(rf"</{re.escape(token.name)}(?=[\s/>])", re.IGNORECASE).search(text, at)
            stop = match.start() if match else len(text)
            if stop > at:
                yield Token("other", at, stop)
            at = begun = stop
    if begun < len(text):
        yield Token("text", begun, len(text))


def _token(text: str, place: int, ends: _Ends) -> Token | None:
    for opens, closes, kind in _ENCLOSED:
        if text.startswith(opens, place):
            end = text.find(closes, place + len(opens))
            return Token(kind, place, end + len(closes) if end >= 0 else len(text))
    if text.startswith("<!", place):
        declared = ends.of_declaration(place)
        return Token("other", place, declared) if declared is not None else None
    following = text[place + 1 : place + 3]
    letter = following[1:2] if following.startswith("/") else following[:1]
    if not (letter.isalpha() or letter in ("_", ":")) or not letter:
        return None
    stop = ends.of_tag(place)
    match = _NAME.match(text, place)
    if stop is None or match is None:
        return None
    name = match.group(1)
    if following.startswith("/"):
        return Token("close", place, stop, name)
    return Token("empty" if text[stop - 2] == "/" else "open", place, stop, name)


class _Ends:
    """Finds where tags and declarations of a text end, in time that grows with the text, whatever stands in it."""

    def __init__(self, text: str) -> None:
        self.text = text
        # The end of a tag that goes on, outside of quotes, at a place; None where it has none.
        self._known: dict[int, int | None] = {}
        self._last = text.rfind(">")
        self._last_subset = max((match.start() for match in re.finditer(r"\]\s*>", text)), default=-1)

    def of_tag(self, at: int) -> int | None:
        """Return the offset behind a tag, quotes minded."""
        passed: list[int] = []
        end: int | None = None
        while at <= self._last and (match := _STOP.search(self.text, at)) is not None:
            if match.start() in self._known:
                end = self._known[match.start()]
                break
            passed.append(match.start())
            if match.group() == ">":
                end = match.end()
                break
            close = self.text.find(match.group(), match.end())
            if close < 0:
                break
            at = close + 1
        # What stands before the end of a tag is not looked at again.
        self._known = {} if end is not None else self._known
        self._known.update(dict.fromkeys(passed, end) if end is None else {})
        return end

    def of_declaration(self, place: int) -> int | None:
        """Return the offset behind a declaration, which may hold others between brackets."""
        end = self.text.find(">", place) if place <= self._last else -1
        if end < 0:
            return None
        inner = self.text.find("[", place, end)
        if inner < 0:
            return end + 1
        close = re.compile(r"\]\s*>").search(self.text, inner) if inner <= self._last_subset else None
        return close.end() if close else None


def attributes(text: str, token: Token) -> Iterator[Attribute]:
    """Yield the attributes of a tag that have a value."""
    begin = token.start + 1 + len(token.name)
    end = token.end - (2 if token.kind == "empty" else 1)
    for match in _ATTRIBUTE.finditer(text, begin, end):
        for group in (2, 3, 4):
            if match.group(group) is not None:
                yield Attribute(match.group(1).lower(), match.start(group), match.end(group), group != 4)


def attribute_values(text: str, token: Token) -> dict[str, str]:
    """Return the attributes of a tag, as they are written."""
    return {found.name: text[found.start : found.end] for found in attributes(text, token)}
