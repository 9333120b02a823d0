r"""Files of messages by line: INI, Apple's ``.strings``, and arrays of PHP."""

from __future__ import annotations

import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

from nlpkit.apps.documents.document import Code, Document, Part, ReadOptions, Results, Segment, Translated, broken
from nlpkit.apps.documents.formats.spans import Place, SpanSkeleton, literals, span_document, write_spans
from nlpkit.apps.documents.formats.strings.keys import is_for_people
from nlpkit.apps.documents.formats.strings.messages import join_surrogates, message_pieces
from nlpkit.apps.documents.source_text import decode_source

_Found = tuple[str, int, int, str]
"""Key, begin and end of a value, and how it is written."""


class _Lines(ABC):
    """What the formats share: values found in the text, with escapes of their own."""

    name = ""
    title = ""
    settings = False

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a file of messages.

        Raises:
            InputError: It is none, or broken.
        """
        source = decode_source(data, options, encoding=self.encoding(data, options))
        segments: list[Segment] = []
        places: list[Place] = []
        for key, start, end, style in self.values(source.text, options):
            pieces = list(self.unescaped(source.text[start:end], style))
            text = "".join(piece if isinstance(piece, str) else piece.text for piece in pieces)
            if not is_for_people(text, key=key, settings=self.settings):
                continue
            parts = message_pieces(pieces, lambda part, style=style: self.escaped(part, style))  # type: ignore[misc]
            segments.append(Segment(parts=parts, kind="message", line=source.line(start), offset=start, key=key))
            places.append(Place(start, end, style))
        return span_document(self.name, source, zip(segments, places, strict=True))

    def write(self, skeleton: SpanSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a file of messages."""

        def render(result: Translated, segment: Segment, place: Place) -> str:
            return literals(result, lambda text: self.escaped(text, place.style))

        return write_spans(skeleton, results, render)

    def encoding(self, data: bytes, options: ReadOptions) -> str | None:
        """Return the encoding that a file shows to be in."""
        return None

    @abstractmethod
    def values(self, text: str, options: ReadOptions) -> Iterator[_Found]:
        """Yield the values of a file."""

    def unescaped(self, raw: str, style: str) -> Iterable[Part]:
        """Return what a raw value says; escapes that stay as they are are codes."""
        return [raw]

    def escaped(self, text: str, style: str) -> str:
        """Return text as it stands in a value."""
        return text


_INI_OTHER = re.compile(r"[ \t]*(?:\Z|[;#]|\[[^\]]*\])|[ \t]+\S")
_INI_KEY = re.compile(r"[^\s=:\[;#][^=:]*[=:]")


class Ini(_Lines):
    """INI files: values of keys; single words in small letters are settings."""

    name = "ini"
    title = "INI"
    settings = True

    def values(self, text: str, options: ReadOptions) -> Iterator[_Found]:
        """Yield the values of keys.

        Raises:
            InputError: A line is neither a section nor a key nor a comment.
        """
        for number, match in enumerate(re.finditer(r"[^\n]*\n|[^\n]+", text), start=1):
            line = match.group().removesuffix("\n").removesuffix("\r")
            if _INI_OTHER.match(line):
                continue
            key = _INI_KEY.match(line)
            if key is None or "\r" in line:
                raise broken(self.title, options, "a line is neither a section nor a key with a value", line=number)
            raw = line[key.end() :].strip(" \t")
            if not raw:
                continue
            quoted = len(raw) > 1 and raw[0] == raw[-1] and raw[0] in "\"'"
            # Where quotes stand within as they are, nothing is escaped.
            bare = re.search(rf"(?<!\\){raw[0]}", raw[1:-1]) if quoted else None
            start = match.start() + key.end() + len(line[key.end() :]) - len(line[key.end() :].lstrip(" \t"))
            style = raw[0] if quoted and not bare else ""
            yield key.group()[:-1].strip(), start + quoted, start + len(raw) - quoted, style

    def unescaped(self, raw: str, style: str) -> Iterable[Part]:
        """Undo escapes of the quotes around it."""
        return [raw.replace("\\" + style, style) if style else raw]

    def escaped(self, text: str, style: str) -> str:
        """Return text in one line."""
        return re.sub(r"[\r\n]+", " ", text.replace(style, "\\" + style) if style else text)


_STRINGS_TOKEN = re.compile(
    r"/\*.*?\*/|//[^\n]*|\s+"
    r"|(?P<key>\"(?:[^\"\\]|\\.)*\"|[\w.-]+)\s*=\s*\"(?P<value>(?:[^\"\\]|\\.)*)\"\s*;|(?P<bad>.)",
    re.DOTALL,
)
_STRINGS_ESCAPE = re.compile(r"\\(?:[uU]([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r"}


class AppleStrings(_Lines):
    r"""Apple's ``.strings``: ``"key" = "value";``, often in UTF-16."""

    name = "strings"
    title = "Apple strings"

    def encoding(self, data: bytes, options: ReadOptions) -> str | None:
        """Return UTF-16 where every other byte of the beginning is zero."""
        head = data[:200]
        if head.count(b"\0") * 3 > len(head) and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
            return "utf-16-le" if head[1:2] == b"\0" else "utf-16-be"
        return None

    def values(self, text: str, options: ReadOptions) -> Iterator[_Found]:
        """Yield the values of keys.

        Raises:
            InputError: Something is neither a comment nor a pair.
        """
        for match in _STRINGS_TOKEN.finditer(text):
            if match.group("bad"):
                raise broken(
                    self.title, options, 'a line is no "key" = "value";', line=text.count("\n", 0, match.start()) + 1
                )
            if match.group("key"):
                yield match.group("key").strip('"'), *match.span("value"), ""

    def unescaped(self, raw: str, style: str) -> Iterable[Part]:
        """Undo escapes."""

        def plain(match: re.Match[str]) -> str:
            return chr(int(match.group(1), 16)) if match.group(1) else _CONTROLS.get(match.group(2), match.group(2))

        return [join_surrogates(_STRINGS_ESCAPE.sub(plain, raw))]

    def escaped(self, text: str, style: str) -> str:
        """Escape quotes, backslashes and line ends."""
        text = text.replace("\\", "\\\\").replace('"', '\\"')
        return text.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")


_PHP_TOKEN = re.compile(
    r"(?P<comment>/\*.*?\*/|(?://|\#(?!\[))[^\n]*)|(?P<string>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
    r"|(?P<here><<<[ \t]*(?P<q>[\"']?)(?P<label>\w+)(?P=q)\n.*?\n[ \t]*(?P=label)\b)"
    r"|(?P<arrow>=>)|(?P<name>\$?\w+)|(?P<sign>[\[\](),;.=?:+&|!<>*/%@~^{}-])|\s+|(?P<other>.)",
    re.DOTALL,
)


_PHP_PIECE = re.compile(
    r"(?P<code>\\(?:x[0-9A-Fa-f]{1,2}|u\{[0-9A-Fa-f]+\}|[0-7]{1,3}|[evf$])|\{\$[^{}]*\}|\$\{[^{}]*\}"
    r"|\$[A-Za-z_]\w*(?:\[[^\[\]]*\]|->[A-Za-z_]\w*)?)|(?P<escape>\\[nrt\\\"])|[^\\${]+|.",
    re.DOTALL,
)


_PHP_PROGRAM = frozenset({"class", "interface", "trait", "enum", "namespace", "function"})
"""Words that begin something that is no array of messages, if a name follows."""


class PhpArrays(_Lines):
    """Arrays of PHP: strings that are values in an array, or are assigned to one."""

    name = "php"
    title = "PHP arrays"

    def values(self, text: str, options: ReadOptions) -> Iterator[_Found]:
        """Yield strings that stand alone behind ``=>``, ``=`` or in a list.

        Raises:
            InputError: There is no PHP in it, or more than arrays.
        """
        begin = text.find("<?php")
        if begin < 0:
            raise broken(self.title, options, "there is no <?php in it", line=1)
        end = text.find("?>", begin)
        tokens = [
            match
            for match in _PHP_TOKEN.finditer(text, begin + 5, end if end >= 0 else len(text))
            if match.lastgroup is not None and match.group("comment") is None
        ]
        for match, following in itertools.pairwise(tokens):
            if match.group() in _PHP_PROGRAM and re.fullmatch(r"[A-Za-z_]\w*", following.group()):
                line = text.count("\n", 0, match.start()) + 1
                raise broken(self.title, options, "it is a program, whose strings are no messages", line=line)
        calls: list[bool] = []
        key = ""
        for index, match in enumerate(tokens):
            sign = match.group()
            before = tokens[index - 1].group() if index else ""
            after = tokens[index + 1].group() if index + 1 < len(tokens) else ""
            if match.group("string") is not None:
                if after == "=>" or (before == "[" and after == "]" and calls and index > 1):
                    key = sign[1:-1]
                listed = before in ("[", "(", ",") and after in (",", "]", ")") and bool(calls)
                alone = before in ("=>", "=") and after in (",", "]", ")", ";")
                if (alone or listed) and not any(calls) and not (before == "[" and _indexes(tokens, index)):
                    yield key if alone else "", match.start() + 1, match.end() - 1, sign[0]
            elif sign in ("(", "["):
                calls.append(sign == "(" and before != "array" and bool(re.fullmatch(r"\$?\w+|\)", before)))
            elif sign in (")", "]") and calls:
                calls.pop()

    def unescaped(self, raw: str, style: str) -> Iterator[Part]:
        """Undo escapes; numbers of characters and variables, which stand between double quotes, are codes."""
        if style == "'":
            yield re.sub(r"\\([\\'])", r"\1", raw)
            return
        for match in _PHP_PIECE.finditer(raw):
            sign = match.group()
            if match.lastgroup == "code":
                yield Code(literal=sign, text="$" if sign == "\\$" else "")
            elif match.lastgroup == "escape":
                yield _CONTROLS.get(sign[1], sign[1])
            else:
                yield sign

    def escaped(self, text: str, style: str) -> str:
        """Escape quotes, backslashes and, between double quotes, line ends and what would be a variable."""
        text = text.replace("\\", "\\\\").replace(style, "\\" + style)
        if style == "'":
            return text
        text = text.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
        return re.sub(r"\$(?=[A-Za-z_{]|[^\x00-\x7f])|(?<=\{)\$", r"\\$", text)


def _indexes(tokens: list[re.Match[str]], index: int) -> bool:
    """Tell whether a string between brackets is the key of a variable, as in ``$lang['title']``."""
    return (
        index >= 2
        and re.fullmatch(r"\$?\w+|\]|\)", tokens[index - 2].group()) is not None
        and tokens[index - 2].group()
        not in (
            "return",
            "array",
        )
    )
