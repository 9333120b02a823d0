"""An XML text with the places of its segments, and how it is written with their translations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nlpkit.apps.documents.document import Code, Segment, Translated
from nlpkit.apps.documents.formats.nested import NestedWriter
from nlpkit.apps.documents.formats.office.grammar import Grammar
from nlpkit.apps.documents.formats.office.paragraphs import Mark, Paragraph
from nlpkit.apps.documents.formats.office.xml_tokens import escaped, escaped_value
from nlpkit.apps.documents.source_text import SourceText
from nlpkit.core.errors import InputError

_LINE_END = re.compile(r"\r\n?|\n")
_BLANK_CONTROLS = re.compile(r"[\t\r\n\v\f]")


@dataclass
class XmlPlace:
    """Where a segment stands in an XML text.

    Attributes:
        segment: The segment.
        start: Offset of what is replaced.
        end: Offset behind that.
        paragraph: How it is written; None for the value of an attribute.
        twin: Index of the place that says the same in another way, whose translation this one takes; -1 for none.
    """

    segment: Segment
    start: int
    end: int
    paragraph: Paragraph | None = None
    twin: int = -1


@dataclass(frozen=True)
class XmlText:
    """An XML text and the places of its segments, in order; places lie apart or within each other.

    Attributes:
        source: The text.
        grammar: What its elements are.
        places: The places.
    """

    source: SourceText
    grammar: Grammar
    places: tuple[XmlPlace, ...]

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments, in order; what says the same twice is there once."""
        return tuple(place.segment for place in self.places if place.twin < 0)

    def write(self, results: Sequence[Translated | None]) -> bytes:
        """Write it with the translations of its `segments`."""
        return _XmlWriter(self, results).run()


class _XmlWriter(NestedWriter):
    def __init__(self, xml: XmlText, results: Sequence[Translated | None]) -> None:
        super().__init__(xml.source.text, xml.places, self._place)
        self.xml = xml
        given = iter(results)
        mine = [next(given) if place.twin < 0 else None for place in xml.places]
        self.results = [
            _in_codes_of(place, xml.places[place.twin], mine[place.twin]) if place.twin >= 0 else mine[index]
            for index, place in enumerate(xml.places)
        ]

    def run(self) -> bytes:
        """Write the whole text."""
        return self.xml.source.replaced([(0, len(self.text), self.whole())])

    def _place(self, index: int) -> str:
        place, result = self.xml.places[index], self.results[index]
        if result is None:
            return self.span(place.start, place.end)
        if place.paragraph is None:
            return escaped_value("".join(part for part in result.parts if isinstance(part, str)))
        return _ParagraphWriter(self, place.paragraph).run(result)


class _ParagraphWriter:
    """Writes a paragraph: runs begin and end where looks change."""

    def __init__(self, writer: _XmlWriter, paragraph: Paragraph) -> None:
        self.writer = writer
        self.grammar = writer.xml.grammar
        self.paragraph = paragraph
        self.marks = {key: list(marks) for key, marks in paragraph.marks.items()}
        self.pieces: list[str] = []
        self.stack = [paragraph.base]
        self.inside: int | None = None
        self.after_blank = True
        self.last_blank = -1

    def run(self, result: Translated) -> str:
        """Write it with the text and codes of a result."""
        for part in result.parts:
            if isinstance(part, str):
                self._text(part)
            else:
                self._mark(self._mark_of(part))
        self._leave()
        if self.after_blank and self.last_blank >= 0:
            # One at the end is seen no more than one at the beginning.
            prefix = self.paragraph.text_tag.rpartition(":")[0] + ":"
            self.pieces[self.last_blank] = self.pieces[self.last_blank][:-1] + _blanks(1, prefix)
        return "".join(self.pieces)

    def _mark_of(self, code: Code) -> Mark:
        marks = self.marks.get((code.literal, code.role, code.pair))
        if not marks:
            raise InputError(f"The inline code {code.literal[:200]!r} is none of this segment, or is there twice.")
        return marks.pop(0)

    def _mark(self, mark: Mark) -> None:
        if mark.step == "end" and len(self.stack) > 1:
            self.stack.pop()
        for raw in mark.raws:
            self._enter(raw.style)
            self.pieces.append(self.writer.span(raw.start, raw.end))
        if not mark.step and not all(raw.tag for raw in mark.raws):
            self.after_blank = False
        if mark.step == "begin":
            self.stack.append(mark.style)

    def _enter(self, style: int | None) -> None:
        if style == self.inside:
            return
        self._leave()
        if style is not None:
            self.pieces.append(self.paragraph.styles[style][0])
            self.inside = style

    def _leave(self) -> None:
        if self.inside is not None:
            self.pieces.append(self.paragraph.styles[self.inside][1])
            self.inside = None

    def _text(self, text: str) -> None:
        if not text:
            return
        if self.grammar.keep_lines:
            text = _LINE_END.sub("\n", text)
            text = "\n".join(_BLANK_CONTROLS.sub(" ", line) for line in text.split("\n"))
        else:
            text = _BLANK_CONTROLS.sub(" ", text)
        tag = self.paragraph.text_tag
        prefix = tag[: tag.rfind(":") + 1]
        if self.grammar.direct:
            self._leave()
            text = escaped(text)
            if self.grammar.blanks and tag:
                text = _with_blanks(text, prefix, after=self.after_blank)
                self.after_blank = text.endswith(" ")
                self.last_blank = len(self.pieces) if self.after_blank else -1
            self.pieces.append(text)
            return
        self._enter(max(self.stack[-1], 0))
        letters = {char: name.rpartition(":")[2] for name, char in self.grammar.letters.items() if char}
        pattern = f"([{re.escape(''.join(letters))}])" if letters else "(?!)"
        for index, piece in enumerate(re.split(pattern, text)):
            if index % 2:
                self.pieces.append(f"<{prefix}{letters[piece]}/>")
            elif piece:
                keep = self.grammar.keep_blanks and piece != piece.strip()
                attribute = ' xml:space="preserve"' if keep else ""
                self.pieces.append(f"<{tag}{attribute}>{escaped(piece)}</{tag}>")


def _in_codes_of(place: XmlPlace, twin: XmlPlace, result: Translated | None) -> Translated | None:
    """Return the translation of a place's twin with the codes of the place itself, which stand in the same order."""
    if result is None:
        return None
    codes = [part for part in place.segment.parts if isinstance(part, Code)]
    others = [part for part in twin.segment.parts if isinstance(part, Code)]
    own: dict[Code, list[Code]] = {}
    for code, other in zip(codes, others, strict=True):
        own.setdefault(other, []).append(code)
    return Translated(parts=tuple(part if isinstance(part, str) else own[part].pop(0) for part in result.parts))


def _with_blanks(text: str, prefix: str, *, after: bool) -> str:
    """Write blanks as OpenDocument does, which makes one of several else, and none of those at the edges.

    Args:
        text: The text.
        prefix: Prefix of the elements that stand for blanks.
        after: Whether it stands at the beginning, or behind a blank.
    """
    pattern = "(?:(?<= )|^) +" if after else "(?<= ) +"
    return re.sub(pattern, lambda match: _blanks(len(match.group()), prefix), text)


def _blanks(count: int, prefix: str) -> str:
    return f'<{prefix}s {prefix}c="{count}"/>'
