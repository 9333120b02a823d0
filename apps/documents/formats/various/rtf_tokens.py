"""RTF as items with places: texts, control words, groups; destinations that nobody reads are one item."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

TOKEN = re.compile(
    r"(?P<open>\{)|(?P<close>\})|\\(?P<word>[a-zA-Z]{1,32})(?P<number>-?\d{1,10})? ?|\\'(?P<hex>[0-9a-fA-F]{2})"
    r"|\\(?P<sign>[^a-zA-Z'])|(?P<newline>[\r\n]+)|(?P<text>[^\\{}\r\n]+)|(?P<wrong>\\)",
    re.DOTALL,
)
_BEGINNING = re.compile(
    r"[\r\n]*\\(?:(?P<star>\*)[ \r\n]*(?:\\(?P<name>[a-zA-Z]{1,32}))?|(?P<plain>[a-zA-Z]{1,32})(?P<off>0(?!\d))?)"
)
MAX_DEPTH = 1000
"""Most groups within each other."""

MAX_FLOWS = 50
"""Most notes and the like within each other."""

_HIDDEN = (
    "fonttbl colortbl stylesheet info pict object fldinst listtable listoverridetable rsidtbl generator themedata "
    "colorschememapping datastore latentstyles xmlnstbl bkmkstart bkmkend pntext listtext nonshppict filetbl revtbl "
    "tc tcn xe rxe pn pnseclvl template deleted private1 operator nextfile txfieldtext do stylerestrictions sp"
)
HIDDEN = frozenset(_HIDDEN.split())
"""Destinations that hold nothing for readers; so do all others that begin with ``\\*``."""

_FLOWS = "header headerl headerr headerf footer footerl footerr footerf footnote annotation shpinst shptxt shprslt"
FLOWS = frozenset(_FLOWS.split())
"""Destinations with paragraphs of their own, also where they begin with ``\\*``."""

_ENDS = "par cell row nestcell nestrow sect page column"
ENDS = frozenset(_ENDS.split())
"""Control words that end a paragraph."""

LETTERS = {
    **{"emdash": "—", "endash": "–", "lquote": "‘", "rquote": "’", "ldblquote": "“", "rdblquote": "”", "bullet": "•"},
    **{"emspace": "\u2003", "enspace": "\u2002", "qmspace": "\u2005"},
}
SIGNS = {"~": "\u00a0", "_": "\u2011", "\\": "\\", "{": "{", "}": "}", "-": ""}
CHARSETS = {
    **{128: "cp932", 129: "cp949", 134: "gbk", 136: "big5", 161: "cp1253", 162: "cp1254", 163: "cp1258"},
    **{177: "cp1255", 178: "cp1256", 186: "cp1257", 204: "cp1251", 222: "cp874", 238: "cp1250"},
}
"""Character sets of fonts, and their code pages."""

Kind = Literal["text", "word", "open", "close", "whole", "end"]


@dataclass
class Item:
    """A piece of RTF.

    Attributes:
        kind: What it is; ``whole`` is a group that is copied, ``end`` ends a paragraph.
        start: Offset of its first character.
        end: Offset behind its last.
        text: Of a text, what people read.
        word: Of a control word, its name.
        number: Its number, or None.
        depth: Groups around it.
        half: Of a text that ends within a character, the bytes that are there of it.
    """

    kind: Kind
    start: int
    end: int
    text: str = ""
    word: str = ""
    number: int | None = None
    depth: int = 0
    half: bytes = b""


class RtfError(Exception):
    """What is wrong with a file, and where."""

    def __init__(self, why: str, offset: int) -> None:
        super().__init__(why)
        self.offset = offset


@dataclass
class _Group:
    start: int
    uc: int
    codec: str
    flow: bool = False
    deleted: bool = False


def flows(text: str) -> Iterator[list[Item]]:
    """Yield the items of each flow of paragraphs: the page itself, headers, notes; inner ones come first.

    Args:
        text: The file, each byte a character.

    Raises:
        RtfError: Groups are not closed, or too deep, or something is cut off.
    """
    default = "cp1252"
    fonts: dict[int, str] = {}
    font: int | None = None
    groups: list[_Group] = []
    lists: list[list[Item]] = [[]]
    skip = 0
    at = 0
    table = _hidden_end(text, "fonttbl")
    if table is not None:
        fonts = _fonts(text[table[0] : table[1]])
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None or match.group("wrong"):
            raise RtfError("it is cut off behind a backslash", at)
        start, at = match.span()
        kind = match.lastgroup
        if kind == "open":
            if start and not groups:
                raise RtfError("something stands outside of its outer group", start)
            if len(groups) >= MAX_DEPTH:
                raise RtfError(f"more than {MAX_DEPTH} groups are within each other", start)
            last = groups[-1] if groups else _Group(start, 1, default)
            hidden = _destination(text, at)
            if hidden == "hidden":
                at = _group_end(text, start)
                lists[-1].append(Item("whole", start, at, depth=len(groups)))
                continue
            groups.append(_Group(start, last.uc, last.codec, hidden == "flow", last.deleted))
            if hidden == "flow":
                if len(lists) > MAX_FLOWS:
                    raise RtfError(f"more than {MAX_FLOWS} notes are within each other", start)
                lists.append([])
            else:
                lists[-1].append(Item("open", start, at, depth=len(groups)))
            continue
        if not groups:
            if kind == "newline" or (kind == "text" and not match.group().strip(" \t\x00")):
                continue
            raise RtfError("something stands outside of its outer group", start)
        group = groups[-1]
        if kind == "close":
            groups.pop()
            skip = 0
            if group.flow:
                yield lists.pop()
                lists[-1].append(Item("whole", group.start, at, depth=len(groups)))
            else:
                lists[-1].append(Item("close", start, at, depth=len(groups) + 1))
            continue
        if kind == "newline":
            continue
        number = int(match.group("number")) if match.group("number") else None
        word = match.group("word") or ""
        said: str | None = None
        if kind in ("word", "number"):
            if word == "bin" and number is not None and number > 0:
                at = min(at + number, len(text))
            elif word == "uc":
                group.uc = min(max(number if number is not None else 1, 0), 32)
            elif word == "ansicpg" and number is not None:
                group.codec = default = _codec(f"cp{number}", default)
            elif word in ("f", "plain"):
                font = number if word == "f" else None
                group.codec = fonts.get(font, default) if font is not None else default
                group.deleted = group.deleted and word == "f"
            elif word == "deleted":
                group.deleted = number != 0
            elif word == "u" and number is not None:
                said, skip = chr(number % 65536), group.uc
                lists[-1].append(_text(start, at, said, group, len(groups)))
                continue
            said = LETTERS.get(word)
        elif kind == "sign":
            said = SIGNS.get(match.group("sign"))
            if match.group("sign") in "\r\n":
                word = "par"
        elif kind == "hex":
            said = chr(int(match.group("hex"), 16))
        else:
            said = match.group("text")
        if skip and said is not None:
            # What stands behind a character of Unicode is for programs that know none.
            taken = min(skip, len(said)) if kind == "text" else 1
            skip -= taken
            lists[-1][-1].end = start + taken if kind == "text" else at
            if kind != "text" or taken == len(said):
                continue
            start, said = start + taken, said[taken:]
        if said is None:
            ends = word in ENDS
            lists[-1].append(Item("end" if ends else "word", start, at, word=word, number=number, depth=len(groups)))
        else:
            item = _text(start, at, said, group, len(groups))
            lists[-1].append(_decoded(lists[-1], item, group.codec) if kind in ("text", "hex") else item)
    if groups:
        raise RtfError("its groups are not closed: it is cut off", len(text))
    yield lists.pop()


def _text(start: int, end: int, said: str, group: _Group, depth: int) -> Item:
    """Return a text; one that was deleted is there, but nobody reads it."""
    return Item("whole" if group.deleted else "text", start, end, "" if group.deleted else said, depth=depth)


def _decoded(items: list[Item], item: Item, codec: str) -> Item:
    r"""Decode a text whose characters are bytes, with what the text before it has of its first character.

    Args:
        items: What stands before it; the text whose character it ends is taken away.
        item: The text.
        codec: Its encoding; in those of East Asia ``\'83\'65`` is one character, and so is ``\'83e``.
    """
    data = item.text.encode("latin-1")
    if items and items[-1].half and item.kind == "text":
        last = items.pop()
        data, item.start, item.text = last.half + data, last.start, last.text[:-1]
    elif item.text.isascii():
        return item
    else:
        item.text = ""
    decoder = codecs.getincrementaldecoder(codec)("replace")
    item.text += decoder.decode(data)
    item.half = decoder.getstate()[0]
    item.text += "\ufffd" if item.half else ""
    return item


def _codec(name: str, otherwise: str) -> str:
    try:
        "".encode(name)
        b"".decode(name)
    except LookupError:
        return otherwise
    return {"cp65001": "utf-8", "cp10000": "mac-roman"}.get(name, name)


def _destination(text: str, at: int) -> str:
    match = _BEGINNING.match(text, at)
    if match is None:
        return ""
    name = match.group("name") or match.group("plain")
    if name == "deleted" and match.group("off"):
        return ""
    if name in FLOWS:
        return "flow"
    return "hidden" if match.group("star") or name in HIDDEN else ""


def _group_end(text: str, start: int) -> int:
    depth, at = 0, start
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            break
        at = match.end()
        if match.lastgroup == "open":
            depth += 1
        elif match.lastgroup == "close":
            depth -= 1
            if depth == 0:
                return at
        elif match.group("word") == "bin" and match.group("number"):
            at += max(int(match.group("number")), 0)
    raise RtfError("its groups are not closed: it is cut off", start)


def _hidden_end(text: str, name: str) -> tuple[int, int] | None:
    start = text.find("{\\" + name)
    return None if start < 0 else (start, _group_end(text, start))


def _fonts(table: str) -> dict[int, str]:
    fonts: dict[int, str] = {}
    font: int | None = None
    for number, charset in re.findall(r"\\f(\d{1,6})|\\fcharset(\d{1,3})|;", table):
        if charset and font is not None and int(charset) in CHARSETS:
            fonts[font] = CHARSETS[int(charset)]
        font = int(number) if number else None
    return fonts
