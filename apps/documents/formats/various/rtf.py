"""RTF: paragraphs, cells, headers and notes are translated; pictures, commands of fields and styles are copied."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from nlpkit.apps.documents.document import Code, Document, Part, ReadOptions, Results, Segment, broken
from nlpkit.apps.documents.formats.nested import NestedWriter
from nlpkit.apps.documents.formats.various.rtf_tokens import Item, RtfError, flows
from nlpkit.apps.documents.source_text import SourceText
from nlpkit.core.errors import InputError

_TITLE = "RTF"
_NOISE = re.compile(
    r"(?:insrsid|charrsid|delrsid|sectrsid|pararsid|rsid|lang|langfe|langnp|langfenp|noproof|rtlch|ltrch|fcs|af|afs|"
    r"loch|hich|dbch|cgrid|alang)$"
)
_TOGGLES = frozenset(
    ("b", "i", "ul", "strike", "scaps", "caps", "outl", "shad", "super", "sub", "v", "ulw", "uld", "uldb")
)
_LONGEST = 45
_ENDS_WORD = re.compile(r"\\[a-zA-Z]{1,32}(?:-?\d{1,10})?\Z")
_BREAKS = {"line": "\n", "tab": "\t"}
_CLOSES = {"ulnone": ("ul", "ulw", "uld", "uldb"), "nosupersub": ("super", "sub")}


@dataclass
class _Mark:
    """What is written for an inline code: pieces of the file."""

    spans: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class RtfPlace:
    """Where a segment stands, and what is written for its codes, by literal, role and pair."""

    start: int
    end: int
    marks: dict[tuple[str, str, int], list[_Mark]]


@dataclass(frozen=True)
class RtfSkeleton:
    """A file, each byte a character, and its segments' places in order; places lie apart or within each other."""

    text: str
    places: tuple[RtfPlace, ...]


class Rtf:
    """Reads and writes RTF."""

    name = "rtf"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a file.

        Raises:
            InputError: It is no RTF, or broken.
        """
        text = data.decode("latin-1")
        if not text.startswith("{\\rtf"):
            raise broken(_TITLE, options, "it does not begin as one")
        source = SourceText(text, "latin-1")
        found: list[tuple[Segment, RtfPlace]] = []
        try:
            for items in flows(text):
                for paragraph in _paragraphs(items):
                    made = _segment(source, paragraph)
                    if made is not None:
                        found.append(made)
        except RtfError as error:
            raise broken(_TITLE, options, str(error), line=source.line(error.offset)) from error
        found.sort(key=lambda pair: pair[1].start)
        return Document(
            format=self.name,
            segments=tuple(segment for segment, _ in found),
            skeleton=RtfSkeleton(text, tuple(place for _, place in found)),
        )

    def write(self, skeleton: RtfSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a file."""
        return _Writer(skeleton, results).whole().encode("latin-1")


def _paragraphs(items: Sequence[Item]) -> Iterator[list[Item]]:
    paragraph: list[Item] = []
    for item in items:
        if item.kind == "end":
            yield paragraph
            paragraph = []
        else:
            paragraph.append(item)
    yield paragraph


def _segment(source: SourceText, items: list[Item]) -> tuple[Segment, RtfPlace] | None:
    text = source.text
    said = [index for index, item in enumerate(items) if item.kind == "text" and item.text.strip()]
    if not said:
        return None
    items = _without_textless(items[_first(items, said[0]) : _last(items, said[-1]) + 1])
    items[0], items[-1] = _without_blanks(items[0], text, front=True), _without_blanks(items[-1], text, front=False)
    parts: list[Part] = []
    marks: dict[tuple[str, str, int], list[_Mark]] = {}
    for kind, pair, pieces in _joined(_codes(_with_fields(items, text))):
        if kind == "text":
            # Two halves of a character beyond U+FFFF are two items.
            parts.append(_whole("".join(item.text for item in pieces)))
            continue
        literal = "".join(text[item.start : item.end] for item in pieces)
        shown = _whole("".join(item.text or _BREAKS.get(item.word, "") for item in pieces))
        role = "open" if kind == "open" else "close" if kind == "close" else "alone"
        code = Code(literal=literal, role=role, pair=pair, breaks=kind == "break", text=shown)  # type: ignore[arg-type]
        marks.setdefault((literal, role, pair), []).append(_Mark([(item.start, item.end) for item in pieces]))
        parts.append(code)
    if not any(isinstance(part, str) and any(map(str.isalpha, part)) for part in parts):
        return None
    place = RtfPlace(items[0].start, items[-1].end, marks)
    return Segment(parts=tuple(parts), line=source.line(place.start)), place


def _joined(codes: Iterable[tuple[str, int, list[Item]]]) -> Iterator[tuple[str, int, list[Item]]]:
    """Join texts that stand beside each other, and codes that stand alone; the latter are apart where they break."""
    last: tuple[str, int, list[Item]] | None = None
    for kind, pair, pieces in codes:
        if kind == "text" and not pieces[0].text:
            continue
        name = "break" if kind == "alone" and pieces[0].word in _BREAKS else kind
        if last is not None and last[0] == name and name in ("text", "alone"):
            last[2].extend(pieces)
            continue
        if last is not None:
            yield last
        last = name, pair, pieces
    if last is not None:
        yield last


def _without_textless(items: Sequence[Item]) -> list[Item]:
    """Make one of each group in which something is copied and nothing is read."""
    done: list[Item] = []
    opened: list[tuple[int, int, int]] = []
    read = copied = 0
    for item in items:
        if item.kind == "open":
            opened.append((len(done), read, copied))
        read += item.kind == "text" or item.word in _BREAKS
        copied += item.kind == "whole"
        done.append(item)
        if item.kind == "close" and opened:
            begin, read_before, copied_before = opened.pop()
            if read == read_before and copied > copied_before:
                done[begin:] = [Item("whole", done[begin].start, item.end, depth=done[begin].depth)]
    return done


def _first(items: Sequence[Item], index: int) -> int:
    """Return where the groups begin that a text stands in; what a paragraph looks like stands before them."""
    begin = index
    while begin and items[begin - 1].kind in ("open", "word"):
        begin -= 1
    return next((at for at in range(begin, index) if items[at].kind == "open"), index)


def _without_blanks(item: Item, text: str, *, front: bool) -> Item:
    """Leave the blanks at an end of a paragraph where they stand, whatever groups are around the rest of it."""
    blanks = len(item.text) - len(item.text.lstrip(" ") if front else item.text.rstrip(" "))
    literal = text[item.start : item.start + blanks] if front else text[item.end - blanks : item.end]
    if item.kind != "text" or not blanks or literal != " " * blanks:
        return item
    if front:
        return replace(item, start=item.start + blanks, text=item.text[blanks:])
    return replace(item, end=item.end - blanks, text=item.text[: len(item.text) - blanks])


def _last(items: Sequence[Item], index: int) -> int:
    while index + 1 < len(items) and items[index + 1].kind == "close":
        index += 1
    return index


def _whole(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _with_fields(items: list[Item], text: str) -> list[Item]:
    """Put fields together: of a link, what is before its text and behind it; of others, all that they are."""
    partner = _partners(items)
    done: list[Item] = []
    index = 0
    closing: dict[int, int] = {}
    while index < len(items):
        item = items[index]
        head = [other.kind for other in items[index : index + 5]]
        if head == ["open", "word", "whole", "open", "word"] and items[index + 1].word == "field":
            inner, outer = partner.get(index + 3, -1), partner.get(index, -1)
            if outer >= 0 and "HYPERLINK" not in text[items[index + 2].start : items[index + 2].end]:
                said = "".join(other.text for other in items[index:outer])
                done.append(Item("whole", item.start, items[outer].end, said, depth=item.depth))
                index = outer + 1
                continue
            if inner >= 0 and outer == inner + 1:
                done.append(Item("open", item.start, items[index + 4].end, depth=item.depth, word="field"))
                closing[inner] = outer
                index += 5
                continue
        if index in closing:
            done.append(Item("close", item.start, items[closing[index]].end, depth=item.depth, word="field"))
            index = closing[index] + 1
            continue
        done.append(item)
        index += 1
    return done


def _codes(items: Sequence[Item]) -> Iterator[tuple[str, int, list[Item]]]:
    """Yield texts, and codes with the number of their pair; what makes no difference to looks is left out."""
    partner = _partners(items)
    index = 0
    pairs: dict[int, int] = {}
    dropped: set[int] = set()
    while index < len(items):
        item = items[index]
        if item.kind == "text":
            yield "text", 0, [item]
        elif item.kind == "open" or (index in partner and partner[index] > index):
            pieces = [item]
            first = index
            while item.kind == "open" and index + 1 < len(items) and items[index + 1].kind == "word":
                following = items[index + 1]
                if following.word in _BREAKS or index + 1 in partner:
                    break
                index += 1
                if not _NOISE.match(following.word):
                    pieces.append(following)
            other = partner.get(first)
            if item.kind == "open" and not item.word and len(pieces) == 1 and other is not None:
                dropped.add(other)
            else:
                pairs[first] = pairs[-1 if other is None else other] = len(pairs) + 1
                yield "open", pairs[first], pieces
        elif index in dropped or (item.kind == "word" and _NOISE.match(item.word)):
            pass
        elif item.kind == "close" or index in partner:
            if index not in pairs:
                pairs[index] = len(pairs) + 1
            yield "close", pairs[index], [item]
        else:
            yield "alone", 0, [item]
        index += 1


def _partners(items: Sequence[Item]) -> dict[int, int]:
    """Return the other half of each group that lies within, and of looks that are switched on and off."""
    partner: dict[int, int] = {}
    opened: list[int] = []
    toggles: dict[tuple[str, int], int] = {}
    for index, item in enumerate(items):
        if item.kind == "open":
            opened.append(index)
        elif item.kind == "close" and opened:
            other = opened.pop()
            partner[other], partner[index] = index, other
            toggles.clear()
        elif item.kind == "word" and item.word in _TOGGLES and item.number is None:
            toggles.clear()
            toggles[item.word, item.depth] = index
        elif item.kind == "word" and (item.word in _CLOSES or (item.word in _TOGGLES and item.number == 0)):
            for name in _CLOSES.get(item.word, (item.word,)):
                begin = toggles.pop((name, item.depth), None)
                if begin is not None and not any(items[i].kind in ("open", "close") for i in range(begin, index)):
                    partner[begin], partner[index] = index, begin
    return partner


class _Writer(NestedWriter):
    def __init__(self, skeleton: RtfSkeleton, results: Results) -> None:
        super().__init__(skeleton.text, skeleton.places, self._place)
        self.marks = [place.marks for place in skeleton.places]
        self.results = list(results)

    def _place(self, index: int) -> str:
        place, result = self.places[index], self.results[index]
        if result is None:
            return self.span(place.start, place.end)
        marks = {key: list(there) for key, there in self.marks[index].items()}
        pieces: list[str] = []
        # What a text would run into: a control word, also one before the paragraph.
        before = self.text[max(0, place.start - _LONGEST) : place.start]
        for part in result.parts:
            if isinstance(part, str):
                pieces.append(_apart(before, _escaped(part)))
                before = "" if part else before
                continue
            there = marks.get((part.literal, part.role, part.pair))
            if not there:
                raise InputError(f"The inline code {part.literal[:200]!r} is none of this segment, or is there twice.")
            pieces += [self.span(start, end) for start, end in there.pop(0).spans]
            before = pieces[-1]
        return "".join(pieces)


def _apart(before: str, text: str) -> str:
    """Return a text with a blank that ends the control word before it; without, the text would become part of that."""
    return f" {text}" if text and _ENDS_WORD.search(before[-_LONGEST:]) else text


def _escaped(text: str) -> str:
    text = re.sub(r"[\r\n]", " ", text)
    text = re.sub(r"[\\{}]", lambda match: "\\" + match.group(), text).replace("\t", "\\tab ")
    text = text.replace("\u00a0", "\\~").replace("\u2011", "\\_")
    return re.sub(r"[^\x20-\x7e]+", lambda match: "{\\uc1" + _units(match.group()) + "}", text)


def _units(text: str) -> str:
    data = text.encode("utf-16-le", "surrogatepass")
    units = (int.from_bytes(data[i : i + 2], "little", signed=True) for i in range(0, len(data), 2))
    return "".join(f"\\u{unit}?" for unit in units)
