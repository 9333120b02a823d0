"""The content of a paragraph as a tree, and as text and inline codes for a segment."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nlpkit.apps.documents.document import Code, Part

BARE = -1
"""The style of text that stands in no run."""

MAX_LINKS = 50
"""Most links within each other whose text is translated."""


@dataclass
class Text:
    """Text with one look.

    Attributes:
        text: The text, as people read it.
        style: Number of the look among the paragraph's styles.
        start: Offset of what is written for it, with the element that it stands in.
        end: Offset behind that.
    """

    text: str
    style: int = BARE
    start: int = 0
    end: int = 0


@dataclass
class Raw:
    """What is copied.

    Attributes:
        start: Offset of its first character.
        end: Offset behind its last.
        style: The style of the run that it stands in; None if it stands in no run.
        text: What it says to readers.
        breaks: Whether text before and behind it is read apart.
        field: What it does in a field of several pieces.
        command: The instruction of such a field.
        several: What it was put together from.
        tag: Whether it is the tag of an element that encloses text.
    """

    start: int
    end: int
    style: int | None = None
    text: str = ""
    breaks: bool = False
    field: Literal["", "begin", "command", "separate", "end"] = ""
    command: str = ""
    several: tuple[Raw, ...] = ()
    tag: bool = False

    @property
    def all(self) -> tuple[Raw, ...]:
        """What is copied, one after the other."""
        return self.several or (self,)


@dataclass
class Box:
    """An element that encloses text; its tags are copied.

    Attributes:
        opening: What stands before its text.
        children: What it encloses.
        closing: What stands behind.
    """

    opening: list[Raw]
    children: list[Text | Raw | Box] = field(default_factory=list)
    closing: list[Raw] = field(default_factory=list)


Piece = Text | Raw | Box


@dataclass(frozen=True)
class Mark:
    """What is written for an inline code.

    Attributes:
        raws: What is copied.
        style: The style that counts from here on, for a code that opens one.
        step: Whether a style begins or ends here.
    """

    raws: tuple[Raw, ...] = ()
    style: int = BARE
    step: Literal["", "begin", "end"] = ""


@dataclass
class Paragraph:
    """A paragraph: what it consists of, and how that is written again.

    Attributes:
        start: Offset of what is replaced by a translation.
        end: Offset behind that.
        styles: Opening and closing XML of its runs, by number.
        base: The style of most of its text.
        parts: Text and codes.
        marks: What is written for each code, by literal, role and pair, in the order of the paragraph.
        text_tag: Name of the element that text is written in, or of one with the same prefix.
    """

    start: int
    end: int
    styles: list[tuple[str, str]]
    base: int = BARE
    parts: tuple[Part, ...] = ()
    marks: dict[tuple[str, str, int], list[Mark]] = field(default_factory=dict)
    text_tag: str = ""


def simplified(children: Sequence[Piece]) -> list[Piece]:
    """Make elements without text things to copy, and one of elements that enclose nothing but each other."""
    done: list[Piece] = []
    for child in children:
        if not isinstance(child, Box):
            done.append(child)
            continue
        inner = simplified(child.children)
        boxes = [index for index, piece in enumerate(inner) if isinstance(piece, Box)]
        if not any(isinstance(piece, (Text, Box)) for piece in inner):
            done.append(_whole([*child.opening, *inner, *child.closing]))
        elif len(boxes) == 1 and not any(isinstance(piece, Text) for piece in inner):
            (at,) = boxes
            box = inner[at]
            if not isinstance(box, Box) or any(isinstance(p, Raw) and (p.breaks or p.text) for p in inner):
                done.append(Box(child.opening, inner, child.closing))
                continue
            before = [piece for piece in inner[:at] if isinstance(piece, Raw)]
            behind = [piece for piece in inner[at + 1 :] if isinstance(piece, Raw)]
            done.append(
                Box([*child.opening, *before, *box.opening], box.children, [*box.closing, *behind, *child.closing])
            )
        else:
            done.append(Box(child.opening, inner, child.closing))
    return done


def main_style(children: Sequence[Piece]) -> int:
    """Return the style of most of the text that stands in a paragraph or an element itself."""
    weights: Counter[int] = Counter()
    for child in children:
        if isinstance(child, Text):
            weights[child.style] += len(child.text.strip())
    return max(weights, key=lambda style: weights[style], default=BARE)


class Styles:
    """The looks of a paragraph's runs, each once.

    Args:
        noise: What makes no difference to how a run looks; as `Grammar.noise`.
    """

    def __init__(self, noise: str = "") -> None:
        self.all: list[tuple[str, str]] = []
        self._noise = re.compile(noise) if noise else None
        self._numbers: dict[str, int] = {}

    def number(self, opening: str, closing: str) -> int:
        """Return the number of a look, which is new if none of the paragraph is like it.

        Args:
            opening: What opens a run of it.
            closing: What closes that.
        """
        key = self._noise.sub("", opening) if self._noise is not None else opening
        if key not in self._numbers:
            self._numbers[key] = len(self.all)
            self.all.append((opening, closing))
        return self._numbers[key]


class Flattener:
    """Makes text and codes of a paragraph's tree.

    Args:
        source: The text of the XML.
        styles: Opening and closing XML of runs.
    """

    def __init__(self, source: str, styles: Sequence[tuple[str, str]]) -> None:
        self.source = source
        self.styles = styles
        self.parts: list[Part] = []
        self.marks: dict[tuple[str, str, int], list[Mark]] = {}
        self._pair = 0
        self._texts: list[str] = []
        self._raws: list[Raw] = []

    def run(self, children: Sequence[Piece], base: int) -> None:
        """Append what the pieces of a paragraph or an element say.

        Args:
            children: The pieces.
            base: The style that needs no code here.
        """
        opened: tuple[int, int] | None = None
        following = _following_styles(children)
        for index, child in enumerate(children):
            if isinstance(child, Text):
                style = child.style
                if not child.text.strip() and (opened is not None or style != base):
                    # Blanks have hardly a look of their own.
                    style = opened[0] if opened is not None else base
                if opened is not None and opened[0] != style:
                    self._close(opened)
                    opened = None
                if opened is None and style != base:
                    opened = self._open(style)
                self._text(child.text)
                continue
            if opened is not None and (isinstance(child, Box) or following[index] != opened[0]):
                self._close(opened)
                opened = None
            if isinstance(child, Raw):
                self._raw(child)
            else:
                self._box(child)
        if opened is not None:
            self._close(opened)
        self._flush()

    def _flush(self) -> None:
        """Make one text of those that stand beside each other, and one code of things that are copied."""
        text = "".join(self._texts)
        if text:
            self.parts.append(text)
        if self._raws:
            raws, self._raws = self._raws, []
            literal = "".join(self.source[raw.start : raw.end] for raw in raws)
            code = Code(literal=literal, text="".join(raw.text for raw in raws), breaks=raws[-1].breaks)
            self._add(code, Mark(tuple(each for raw in raws for each in raw.all)))
        self._texts.clear()

    def _text(self, text: str) -> None:
        if text:
            if self._raws:
                self._flush()
            self._texts.append(text)

    def _add(self, code: Code, mark: Mark) -> None:
        self.parts.append(code)
        self.marks.setdefault((code.literal, code.role, code.pair), []).append(mark)

    def _code(self, code: Code, mark: Mark) -> None:
        self._flush()
        self._add(code, mark)

    def _open(self, style: int) -> tuple[int, int]:
        self._pair += 1
        self._code(Code(literal=self.styles[style][0], role="open", pair=self._pair), Mark(style=style, step="begin"))
        return style, self._pair

    def _close(self, opened: tuple[int, int]) -> None:
        style, pair = opened
        self._code(Code(literal=self.styles[style][1], role="close", pair=pair), Mark(step="end"))

    def _raw(self, raw: Raw) -> None:
        if self._texts or (self._raws and (raw.breaks or self._raws[-1].breaks)):
            self._flush()
        self._raws.append(raw)

    def _box(self, box: Box) -> None:
        self._pair += 1
        pair = self._pair
        base = main_style(box.children)
        opening = "".join(self.source[raw.start : raw.end] for raw in box.opening)
        closing = "".join(self.source[raw.start : raw.end] for raw in box.closing)
        self._code(Code(literal=opening, role="open", pair=pair), Mark(tuple(box.opening), base, "begin"))
        self.run(box.children, base)
        self._code(Code(literal=closing, role="close", pair=pair), Mark(tuple(box.closing), step="end"))


def _following_styles(children: Sequence[Piece]) -> list[int | None]:
    """Return for each piece the style of the next text behind it; None where an element comes first, or none does."""
    styles: list[int | None] = []
    style: int | None = None
    for child in reversed(children):
        styles.append(style)
        if isinstance(child, Box):
            style = None
        elif isinstance(child, Text) and child.text.strip():
            style = child.style
    return styles[::-1]


def joined_fields(children: Sequence[Piece], *, depth: int = 0) -> list[Piece]:
    """Put fields together: a link's text stays text, what a program computes is copied as a whole.

    Args:
        children: The pieces of a paragraph or an element.
        depth: Links around them; what is deeper than `MAX_LINKS` is copied.
    """
    done: list[Piece] = []
    index = 0
    fields = _fields(children)
    while index < len(children):
        child = children[index]
        if not isinstance(child, Raw) or child.field != "begin":
            if isinstance(child, Box):
                child = Box(child.opening, joined_fields(child.children, depth=depth), child.closing)
            done.append(child)
            index += 1
            continue
        end, separate = fields[index]
        if end is None:
            # It goes on in another paragraph: what it shows here is text, such as a line of a table of contents.
            stop = index if separate is None else separate
            done.append(_whole(children[index : stop + 1]))
            index = stop + 1
            continue
        commands = "".join(piece.command for piece in children[index:end] if isinstance(piece, Raw))
        if separate is not None and commands.split()[:1] == ["HYPERLINK"] and depth < MAX_LINKS:
            opening = list(_raws(children[index : separate + 1]))
            inner = joined_fields(children[separate + 1 : end], depth=depth + 1)
            done.append(Box(opening, inner, list(_raws(children[end : end + 1]))))
        else:
            done.append(_whole(children[index : end + 1]))
        index = end + 1
    return done


def _fields(children: Sequence[Piece]) -> dict[int, tuple[int | None, int | None]]:
    """Return by the beginnings of fields where they end, and where their results begin; None for what is not there."""
    ends: dict[int, tuple[int | None, int | None]] = {}
    separates: dict[int, int] = {}
    opened: list[int] = []
    for index, child in enumerate(children):
        if not isinstance(child, Raw):
            continue
        if child.field == "begin":
            opened.append(index)
        elif child.field == "separate" and opened:
            separates.setdefault(opened[-1], index)
        elif child.field == "end" and opened:
            begin = opened.pop()
            ends[begin] = index, separates.get(begin)
    return {**ends, **{begin: (None, separates.get(begin)) for begin in opened}}


def _whole(children: Sequence[Piece]) -> Raw:
    """Return pieces as one that is copied."""
    raws = tuple(_raws(children))
    text = "".join(raw.text for raw in raws)
    return Raw(raws[0].start, raws[-1].end, text=text, breaks=any(raw.breaks for raw in raws), several=raws)


def _raws(children: Sequence[Piece]) -> Iterator[Raw]:
    for child in children:
        if isinstance(child, Raw):
            yield from child.all
        elif isinstance(child, Box):
            yield from child.opening
            yield from _raws(child.children)
            yield from child.closing
        else:
            yield Raw(child.start, child.end, None if child.style == BARE else child.style, child.text)
