"""Gettext PO and POT: entries that have no translation get one; everything else stays as it stands in the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from nlpkit.apps.documents.document import Document, Part, ReadOptions, Results, Segment, broken
from nlpkit.apps.documents.formats.spans import literals
from nlpkit.apps.documents.formats.strings.messages import message_parts
from nlpkit.apps.documents.source_text import SourceText, decode_source
from nlpkit.apps.text.translation.layout import copies_as_is

_KEYWORD = re.compile(r'(?P<word>msgctxt|msgid_plural|msgid|msgstr(?:\[(?P<index>\d+)\])?)\s*(?P<string>".*)\Z')
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"\s*\Z')
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|(.))", re.DOTALL)
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a"}
_WRITTEN = {
    "\\": "\\\\",
    '"': '\\"',
    "\n": "\\n",
    "\t": "\\t",
    "\r": "\\r",
    "\b": "\\b",
    "\f": "\\f",
    "\v": "\\v",
    "\a": "\\a",
}
_WIDTH = 77
_TWO_FORMS = ("de", "en", "nl", "sv", "da", "nb", "no", "fi", "et", "es", "it", "pt", "el", "hu", "he", "eu", "ca")
_SLAVIC = "n%10>=2 && n%10<=4 && (n%100<10 || n%100>=20) ? 1 : 2"
PLURALS = {
    **dict.fromkeys(("ja", "ko", "zh", "th", "vi", "id"), "nplurals=1; plural=0;"),
    **dict.fromkeys(_TWO_FORMS, "nplurals=2; plural=(n != 1);"),
    "fr": "nplurals=2; plural=(n > 1);",
    "pl": f"nplurals=3; plural=(n==1 ? 0 : {_SLAVIC});",
    **dict.fromkeys(("ru", "uk"), f"nplurals=3; plural=(n%10==1 && n%100!=11 ? 0 : {_SLAVIC});"),
    "cs": "nplurals=3; plural=(n==1) ? 0 : (n>=2 && n<=4) ? 1 : 2;",
}
"""How languages count, in the words of gettext's manual, for templates that do not say."""


@dataclass
class _Field:
    """A string of an entry: where its lines stand, and what they say."""

    start: int
    end: int
    lines: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return _unescaped("".join(self.lines))


@dataclass
class _Entry:
    line: int
    start: int
    fields: dict[str, _Field] = field(default_factory=dict)
    flags: tuple[int, int, str] | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Slot:
    """Where the translation of a segment goes: the entry, and the msgstr fields."""

    entry: _Entry
    names: tuple[str, ...]


@dataclass(frozen=True)
class PoSkeleton:
    """A PO file: its text, its header's changes, and where translations go.

    Attributes:
        source: The text.
        slots: One a segment.
        header: Spans of the header to replace, if anything is written.
    """

    source: SourceText
    slots: tuple[_Slot, ...]
    header: tuple[tuple[int, int, str], ...] = ()


class Gettext:
    """Reads and writes PO."""

    name = "po"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a PO file.

        Raises:
            InputError: It is none, or broken.
        """
        source = decode_source(data, options, encoding=_charset(data, options))
        entries = list(_entries(source, options))
        if not entries and source.text.strip():
            raise broken("gettext PO", options, "there is no msgid in it")
        header = next((entry.fields["msgstr"] for entry in entries if _is_header(entry)), None)
        count = _plural_count(header.text if header else "", options.target_lang)
        segments: list[Segment] = []
        slots: list[_Slot] = []
        for entry in entries:
            if _is_header(entry):
                continue
            for slot, text in _wanted(entry, count):
                segments.append(_segment(entry, text, source))
                slots.append(slot)
        changes = () if header is None else tuple(_header_changes(source, header, options.target_lang))
        return Document(
            format=self.name,
            segments=tuple(segments),
            skeleton=PoSkeleton(source, tuple(slots), changes),
            bilingual=True,
            source_text=source.text,
        )

    def write(self, skeleton: PoSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a PO file; doubtful translations are marked as fuzzy."""
        newline = skeleton.source.newline
        new: list[tuple[int, int, str]] = []
        doubtful: dict[int, _Entry] = {}
        for slot, result in zip(skeleton.slots, results, strict=True):
            if result is None:
                continue
            text = literals(result, str)
            source = slot.entry.fields[
                "msgid_plural" if slot.names[-1] not in ("msgstr", "msgstr[0]") else "msgid"
            ].text
            text = _edges_of(source, text)
            for name in slot.names:
                place = slot.entry.fields.get(name)
                if place is None:
                    last = slot.entry.fields[_last_plural(slot.entry)]
                    new.append((last.end, last.end, _written(name, text, newline)))
                else:
                    new.append((place.start, place.end, _written(name, text, newline)))
            if not result.sure:
                doubtful[slot.entry.start] = slot.entry
        if new:
            new += skeleton.header
        new += [
            _fuzzy(entry, newline)
            for entry in doubtful.values()
            if entry.flags is None or "fuzzy" not in entry.flags[2]
        ]
        return skeleton.source.replaced(sorted(new, key=lambda change: change[:2]))


def _segment(entry: _Entry, text: str, source: SourceText) -> Segment:
    context = entry.fields.get("msgctxt")
    parts: tuple[Part, ...] = message_parts(text)
    return Segment(
        parts=parts,
        kind="message",
        line=entry.line,
        offset=entry.fields["msgid"].start,
        key=context.text if context else "",
        note="\n".join(entry.notes),
    )


def _wanted(entry: _Entry, count: int) -> Iterator[tuple[_Slot, str]]:
    """Yield what is to be translated of an entry, and where it goes."""
    text = entry.fields["msgid"].text
    plural = entry.fields.get("msgid_plural")
    fuzzy = entry.flags is not None and "fuzzy" in entry.flags[2]
    if fuzzy:
        return
    if plural is None:
        place = entry.fields.get("msgstr")
        if place is not None and not place.text and not copies_as_is(text):
            yield _Slot(entry, ("msgstr",)), text
        return
    names = [f"msgstr[{index}]" for index in range(count)]
    empty = [name for name in names if name not in entry.fields or not entry.fields[name].text]
    if len(empty) < len(names):
        return
    if count > 1:
        yield _Slot(entry, ("msgstr[0]",)), text
        yield _Slot(entry, tuple(names[1:])), plural.text
    else:
        yield _Slot(entry, ("msgstr[0]",)), plural.text


def _last_plural(entry: _Entry) -> str:
    return max((name for name in entry.fields if name.startswith("msgstr[")), key=lambda name: int(name[7:-1]))


def _edges_of(source: str, text: str) -> str:
    """Give a translation the line ends at its edges that its source has: gettext demands it."""
    lead = source[: len(source) - len(source.lstrip("\n"))]
    trail = source[len(source.rstrip("\n")) :]
    return lead + text.strip("\n") + trail


def _written(name: str, text: str, newline: str) -> str:
    lines = re.findall(r"[^\n]*\n|[^\n]+", text) or [""]
    escaped = ["".join(_WRITTEN.get(char, char) for char in line) for line in lines]
    if len(escaped) == 1 and len(name) + len(escaped[0]) + 3 <= _WIDTH:
        return f'{name} "{escaped[0]}"{newline}'
    wrapped = [piece for line in escaped for piece in _wrapped(line)]
    return f'{name} ""{newline}' + "".join(f'"{piece}"{newline}' for piece in wrapped)


def _wrapped(line: str) -> list[str]:
    pieces, piece = [], ""
    for word in re.findall(r"[^ ]* *", line):
        if piece and len(piece) + len(word.rstrip()) > _WIDTH - 2:
            pieces.append(piece)
            piece = ""
        piece += word
    return [*pieces, piece] if piece else pieces or [""]


def _fuzzy(entry: _Entry, newline: str) -> tuple[int, int, str]:
    if entry.flags is not None:
        return entry.flags[1], entry.flags[1], ", fuzzy"
    # Comments of an entry stand before its flags, and what was its source before behind them.
    first = min(place.start for place in entry.fields.values())
    return first, first, f"#, fuzzy{newline}"


def _is_header(entry: _Entry) -> bool:
    return not entry.fields["msgid"].text and "msgctxt" not in entry.fields and "msgstr" in entry.fields


def _charset(data: bytes, options: ReadOptions) -> str | None:
    match = re.search(rb"Content-Type:[^\n\"]*charset=([\w.:-]+)", data[:20000])
    name = match.group(1).decode("ascii", "replace") if match else ""
    return None if not name or name == "CHARSET" or options.encoding != "utf-8" else name


def _plural_count(header: str, target: str) -> int:
    match = re.search(r"nplurals\s*=\s*(\d{1,2})", header)
    if match:
        return max(1, min(int(match.group(1)), 6))
    match = re.search(r"nplurals=(\d)", PLURALS.get(target, ""))
    return int(match.group(1)) if match else 2


def _header_changes(source: SourceText, header: _Field, target: str) -> Iterator[tuple[int, int, str]]:
    """Yield what a template's header leaves to be filled in."""
    text = source.text[header.start : header.end]
    for pattern, new in (
        (r'"Language: *(?=\\n")', f'"Language: {target}'),
        (r'"Plural-Forms: *nplurals=INTEGER[^"]*?(?=\\n")', f'"Plural-Forms: {PLURALS.get(target, "")}'),
        (r"(?<=charset=)CHARSET", "UTF-8"),
    ):
        match = re.search(pattern, text)
        if match and target and not new.endswith(": "):
            yield header.start + match.start(), header.start + match.end(), new


def _entries(source: SourceText, options: ReadOptions) -> Iterator[_Entry]:
    entry: _Entry | None = None
    current: _Field | None = None
    offset = 0
    flags: tuple[int, int, str] | None = None
    notes: list[str] = []

    def fail(why: str, number: int) -> Exception:
        return broken("gettext PO", options, why, line=number)

    def whole_entry(entry: _Entry, number: int, otherwise: str) -> _Entry:
        if not any(name.startswith("msgstr") for name in entry.fields):
            raise fail(otherwise, number)
        if "msgid_plural" in entry.fields and "msgstr" in entry.fields:
            raise fail("an entry with msgid_plural has a msgstr without a number", entry.line)
        return entry

    # Not str.splitlines: a string may hold U+2028 and others that it takes for line ends.
    for number, whole in enumerate(re.findall(r"[^\n]*\n|[^\n]+", source.text), start=1):
        start, offset = offset, offset + len(whole)
        line = whole.strip()
        if line.startswith("#"):
            if entry is not None and not line.startswith("#~"):
                yield whole_entry(entry, number, "a comment stands within an entry")
                entry, current = None, None
            if line.startswith("#,"):
                stop = start + len(whole.rstrip())
                flags = (start, stop, line)
            elif line.startswith("#."):
                notes.append(line[2:].strip())
            continue
        if not line:
            current = None
            continue
        keyword = _KEYWORD.match(line)
        if keyword is None:
            string = _STRING.match(line)
            if string is None or current is None:
                raise fail(f"{line[:40]!r} is neither a keyword with a string nor a string", number)
            current.lines.append(string.group(1))
            current.end = offset
            continue
        word = keyword.group("word")
        string = _STRING.match(keyword.group("string"))
        if string is None:
            raise fail("a string does not end", number)
        if word in ("msgctxt", "msgid") and entry is not None and (word == "msgctxt" or "msgid" in entry.fields):
            yield whole_entry(entry, number, "an entry has no msgstr")
            entry = None
        if entry is None:
            if word not in ("msgctxt", "msgid"):
                raise fail(f"{word} has no msgid before it", number)
            entry = _Entry(number, start, flags=flags, notes=notes)
            flags, notes = None, []
        if word in entry.fields:
            raise fail(f"an entry has two {word}", number)
        if word.startswith("msgstr") and "msgid" not in entry.fields:
            raise fail(f"{word} has no msgid before it", number)
        current = entry.fields[word] = _Field(start, offset, [string.group(1)])
    if entry is not None:
        yield whole_entry(entry, source.text.count("\n") + 1, "the last entry has no msgstr")


def _unescaped(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        if match.group(1):
            return chr(int(match.group(1), 8))
        if match.group(2):
            return chr(int(match.group(2), 16))
        return _CONTROLS.get(match.group(3), match.group(3))

    return _ESCAPE.sub(plain, text)
