"""Finds the paragraphs of an XML text, also those within others, such as text boxes and notes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from nlpkit.apps.documents.document import Kind, Segment
from nlpkit.apps.documents.formats.office.grammar import Grammar
from nlpkit.apps.documents.formats.office.paragraphs import (
    BARE,
    Box,
    Flattener,
    Paragraph,
    Piece,
    Raw,
    Styles,
    Text,
    joined_fields,
    main_style,
    simplified,
)
from nlpkit.apps.documents.formats.office.xml_tokens import Token, tokens, unescaped
from nlpkit.apps.documents.formats.office.xml_writer import XmlPlace, XmlText
from nlpkit.apps.documents.source_text import SourceText

_LAYOUT = " \t\r\n"
"""Blanks that mean nothing at the edges of a text; all others, such as no-break spaces, are part of it."""

_BLANK_RUN = re.compile(f"[{_LAYOUT}]+")

_FIELD_ENDS = ("begin", "separate", "end")


def read_paragraphs(source: SourceText, grammar: Grammar, *, place: str = "", lines: bool = False) -> XmlText:
    """Find the paragraphs of an XML text.

    Args:
        source: The text, checked by `xml_tokens.read_xml`.
        grammar: What its elements are.
        place: Where its segments stand, in words; behind ``paragraph`` comes the number of each.
        lines: Whether the lines of the text say something to people.
    """
    return XmlText(source, grammar, tuple(_XmlReader(source, grammar, place, lines).run()))


class _XmlReader:
    def __init__(self, source: SourceText, grammar: Grammar, place: str, lines: bool) -> None:
        self.source = source
        self.grammar = grammar
        self.place = place
        self.lines = lines
        self.places: list[XmlPlace] = []
        self.around: list[str] = []
        self._choices: list[int] = []
        self._tokens = tokens(source.text)
        self._again: Token | None = None
        self._text_tag = ""

    def run(self) -> list[XmlPlace]:
        """Read all of it."""
        for token in self._all():
            self._walk(token)
        order = sorted(range(len(self.places)), key=lambda index: self.places[index].start)
        new = {old: index for index, old in enumerate(order)}
        places = [self.places[index] for index in order]
        for place in places:
            place.twin = new[place.twin] if place.twin >= 0 else -1
        if self.place.endswith("paragraph"):
            for number, place in enumerate((place for place in places if place.twin < 0), start=1):
                place.segment = replace(place.segment, place=f"{self.place} {number}")
        return places

    def _all(self) -> Iterator[Token]:
        while (token := self._next()) is not None:
            yield token

    def _next(self) -> Token | None:
        token, self._again = self._again or next(self._tokens, None), None
        if token is not None and token.kind == "start":
            self.around.append(token.name)
        elif token is not None and token.kind == "end":
            self.around.pop()
        return token

    def _unread(self, token: Token) -> None:
        self._again = token
        if token.kind == "start":
            self.around.pop()
        elif token.kind == "end":
            self.around.append(token.name)

    def _walk(self, token: Token, *, hidden: bool = False) -> int:
        """Read an element that is no part of a text, or a token between elements; return its end."""
        grammar = self.grammar
        if grammar.loose and not hidden and self._begins_loose(token):
            self._unread(token)
            self._loose()
            return token.end
        if token.kind not in ("start", "empty"):
            return token.end
        hidden = hidden or token.name in grammar.hidden or grammar.keeps(token)
        if not hidden:
            self._attributes(token)
            if token.name in grammar.paragraphs:
                return self._paragraph(token)
        if token.kind == "empty":
            return token.end
        depth = len(self.around)
        first = len(self.places)
        if token.name == "mc:AlternateContent":
            self._choices.append(first)
        while (inner := self._next()) is not None:
            if inner.kind == "end" and len(self.around) < depth:
                break
            self._walk(inner, hidden=hidden)
        if token.name == "mc:AlternateContent":
            self._choices.pop()
        elif token.name == "mc:Fallback" and self._choices:
            self._find_twins(self._choices[-1], first)
        return inner.end if inner is not None else token.end

    def _find_twins(self, choice: int, fallback: int) -> None:
        one = [index for index in range(choice, fallback) if self.places[index].paragraph is not None]
        two = [index for index in range(fallback, len(self.places)) if self.places[index].paragraph is not None]
        if [_signature(self.places[index]) for index in one] != [_signature(self.places[index]) for index in two]:
            return
        for twin, index in zip(one, two, strict=True):
            while self.places[twin].twin >= 0:
                twin = self.places[twin].twin
            self.places[index].twin = twin

    def _attributes(self, token: Token) -> None:
        for name in self.grammar.attributes.get(token.name, ()):
            span = token.span(name)
            if span is None:
                continue
            text = unescaped(self.source.text[span[0] : span[1]])
            if any(map(str.isalpha, text)):
                self._add(Segment(parts=(text,), kind="attribute"), span[0], span[1], None)

    def _add(self, segment: Segment, start: int, end: int, paragraph: Paragraph | None) -> None:
        line = self.source.line(start) if self.lines else 0
        offset = start if self.lines else -1
        segment = replace(segment, line=line, offset=offset, place=self.place, flowing=self.grammar.direct)
        self.places.append(XmlPlace(segment, start, end, paragraph))

    def _begins_loose(self, token: Token) -> bool:
        if token.kind == "text":
            return bool(token.raw.strip())
        inline = token.name in self.grammar.containers or token.name in self.grammar.pieces
        return token.kind in ("start", "empty") and inline

    def _loose(self) -> None:
        """Read a text that stands between blocks."""
        styles = Styles(self.grammar.noise)
        children, start, end = self._children(styles, -1, None)
        self._paragraph_of(children, styles, start, end, self._kind(""))

    def _paragraph(self, token: Token) -> int:
        if token.kind == "empty":
            return token.end
        styles = Styles(self.grammar.noise)
        depth = len(self.around)
        kind = self._kind(token.name)
        children, start, end = self._children(styles, token.end, depth)
        if self.grammar.direct:
            # Not before: paragraphs within this one have tags of their own.
            blanks = token.name.partition(":")[0] == self.grammar.blanks.partition(":")[0]
            self._text_tag = token.raw if blanks else ""
        leading = self.source.text[token.end : start]
        kind = next((other for pattern, other in self.grammar.leading_kinds if re.search(pattern, leading)), kind)
        self._paragraph_of(children, styles, start, end, kind)
        closing = self._next()
        return closing.end if closing is not None else end

    def _kind(self, name: str) -> Kind:
        kinds = self.grammar.kinds
        return next((kinds[around] for around in [name, *reversed(self.around)] if around in kinds), "paragraph")

    def _paragraph_of(self, children: list[Piece], styles: Styles, start: int, end: int, kind: Kind) -> None:
        if self.grammar.direct:
            start, end = self._trimmed(children, start, end)
        if self.grammar.blanks:
            self._collapse(children, after=True)
            self._end_visibly(children)
        tree = simplified(joined_fields(children))
        if not any(isinstance(piece, (Text, Box)) for piece in tree):
            return
        flat = Flattener(self.source.text, styles.all)
        base = main_style(tree)
        flat.run(tree, base)
        parts = flat.parts
        if not any(isinstance(part, str) and any(map(str.isalpha, part)) for part in parts):
            return
        paragraph = Paragraph(start, end, styles.all, base, tuple(parts), flat.marks, self._text_tag)
        self._add(Segment(parts=paragraph.parts, kind=kind), start, end, paragraph)

    def _trimmed(self, children: list[Piece], start: int, end: int) -> tuple[int, int]:
        """Leave the layout of the file around a text out of it."""
        text = self.source.text
        if children and isinstance(first := children[0], Text) and first.start == start and text[start] in _LAYOUT:
            children[0] = Text(first.text.lstrip(" "), BARE, start, first.end)
            start += len(text[start : first.end]) - len(text[start : first.end].lstrip(_LAYOUT))
        if children and isinstance(last := children[-1], Text) and last.end == end and text[end - 1] in _LAYOUT:
            children[-1] = Text(last.text.rstrip(" "), BARE, last.start, end)
            end -= len(text[last.start : end]) - len(text[last.start : end].rstrip(_LAYOUT))
        children[:] = [child for child in children if not isinstance(child, Text) or child.text]
        return start, max(start, end)

    def _collapse(self, children: list[Piece], *, after: bool) -> bool:
        """Leave out blanks that nobody sees: at the beginning, and behind another; elements that say blanks count.

        Args:
            children: The pieces of a paragraph or an element.
            after: Whether they stand at the beginning or behind a blank.

        Returns:
            Whether what follows them stands behind a blank.
        """
        for child in children:
            if isinstance(child, Box):
                after = self._collapse(child.children, after=after)
            elif isinstance(child, Text) and self.source.text[child.start] == "<":
                after = False
            elif isinstance(child, Text):
                child.text = child.text.removeprefix(" ") if after else child.text
                after = child.text.endswith(" ") if child.text else after
            else:
                after = False
        children[:] = [child for child in children if not isinstance(child, Text) or child.text]
        return after

    def _end_visibly(self, children: list[Piece]) -> bool:
        """Leave out blanks at the end, which nobody sees; return whether anything stands before them."""
        seen = False
        for child in reversed(children):
            if isinstance(child, Box):
                seen = self._end_visibly(child.children)
            elif isinstance(child, Text) and self.source.text[child.start] != "<":
                child.text = child.text.rstrip(" ")
                seen = bool(child.text)
            else:
                seen = True
            if seen:
                break
        children[:] = [child for child in children if not isinstance(child, Text) or child.text]
        return seen

    def _children(self, styles: Styles, start: int, depth: int | None) -> tuple[list[Piece], int, int]:
        """Read what stands in a paragraph or in an element of it, up to its end tag, which is left unread.

        Args:
            styles: The styles of the paragraph, which grow.
            start: Offset behind the tag that opens it.
            depth: Elements around its content; None for a text between blocks, which the next block ends.

        Returns:
            The content, and the offsets of what may be replaced of it.
        """
        grammar = self.grammar
        children: list[Piece] = []
        level = len(self.around)
        end = start
        while (token := self._next()) is not None:
            ends = token.kind == "end" and len(self.around) < level
            block = (
                depth is None
                and token.kind in ("start", "empty")
                and token.name not in grammar.containers
                and token.name not in grammar.pieces
            )
            if ends or block:
                self._unread(token)
                return children, start, end
            if start < 0:
                start = token.start
            if token.name in grammar.leading and not children:
                start = end = self._skip(token)
            elif token.name in grammar.trailing:
                self._skip(token)
            else:
                end = self._piece(token, children, styles)
        return children, start, end

    def _piece(self, token: Token, children: list[Piece], styles: Styles) -> int:
        """Read one thing of a paragraph; return its end."""
        grammar = self.grammar
        if token.kind == "text":
            if grammar.direct:
                children.append(Text(_BLANK_RUN.sub(" ", token.raw), BARE, token.start, token.end))
            return token.end
        if token.kind == "other":
            children.append(Raw(token.start, token.end))
            return token.end
        if token.name in grammar.runs:
            return self._run(token, children, styles)
        if token.name in grammar.texts:
            text, end = self._text(token)
            children.append(Text(text, self._style(styles, "", ""), token.start, end))
            return end
        if token.name in grammar.containers and token.kind == "start" and not grammar.keeps(token):
            return self._box(token, children, styles)
        return self._other(token, children, None)

    def _box(self, token: Token, children: list[Piece], styles: Styles) -> int:
        if self.grammar.attributes:
            self._attributes(token)
        inner: list[Piece] = []
        level = len(self.around)
        while (piece := self._next()) is not None:
            if piece.kind == "end" and len(self.around) < level:
                break
            self._piece(piece, inner, styles)
        end = piece or token
        children.append(Box([Raw(token.start, token.end, tag=True)], inner, [Raw(end.start, end.end, tag=True)]))
        return end.end

    def _run(self, token: Token, children: list[Piece], styles: Styles) -> int:
        if token.kind == "empty":
            return token.end
        level = len(self.around)
        looks = ""
        text = self.source.text
        while (piece := self._next()) is not None:
            if piece.kind == "end" and len(self.around) < level:
                break
            if piece.name in self.grammar.looks:
                looks = text[piece.start : self._skip(piece)]
            elif piece.name in self.grammar.texts:
                said, end = self._text(piece)
                children.append(Text(said, self._style(styles, token.raw, looks), piece.start, end))
            elif piece.kind in ("start", "empty"):
                self._other(piece, children, self._style(styles, token.raw, looks))
        return piece.end if piece is not None else token.end

    def _style(self, styles: Styles, raw: str, looks: str) -> int:
        """Return the number of a style, which is new if no style of the paragraph looks like it."""
        opening, closing = (f"<{raw}>{looks}", f"</{raw}>") if raw else ("", "")
        return styles.number(opening, closing)

    def _text(self, token: Token) -> tuple[str, int]:
        """Read the text of an element that holds nothing else."""
        if token.name in self.grammar.texts:
            self._text_tag = token.raw
        if token.kind == "empty":
            return "", token.end
        level = len(self.around)
        pieces = []
        while (inner := self._next()) is not None:
            if inner.kind == "end" and len(self.around) < level:
                break
            if inner.kind == "text":
                pieces.append(inner.raw)
        text = "".join(pieces)
        if self.grammar.keep_blanks and token.get("xml:space") != "preserve":
            text = text.strip(" \t\r\n")
        return text, inner.end if inner is not None else token.end

    def _other(self, token: Token, children: list[Piece], style: int | None) -> int:
        """Read an element that is copied, or stands for a character, or says something about the old text alone."""
        grammar = self.grammar
        name = token.name
        if name in grammar.dropped:
            return self._skip(token)
        letter = grammar.letters.get(name)
        if name == grammar.blanks:
            letter = " " * min(int(token.local("c") or "1") if (token.local("c") or "1").isdecimal() else 1, 1000)
        if letter is not None:
            end = self._skip(token)
            children.append(Text(letter, BARE if style is None else style, token.start, end))
            return end
        kind = token.local("fldCharType") if name == "w:fldChar" else None
        if name == "w:instrText":
            text, end = self._text(token)
            children.append(Raw(token.start, end, style, field="command", command=text))
            return end
        if name in grammar.said:
            begin = token.start
            end = self._skip(token)
            text = _BLANK_RUN.sub(" ", "".join(t.raw for t in tokens_of(self.source.text[begin:end])))
            children.append(Raw(begin, end, style, text=text))
            return end
        end = self._walk_whole(token)
        breaks = name in grammar.breaks
        raw = Raw(token.start, end, style, breaks=breaks or (grammar.loose and name not in grammar.pieces))
        if breaks:
            raw.text = "\t" if name.endswith("tab") else "\n"
        if kind in _FIELD_ENDS:
            raw.field = kind  # type: ignore[assignment]
        children.append(raw)
        return end

    def _walk_whole(self, token: Token) -> int:
        """Read an element that is copied; paragraphs within it are found."""
        if token.kind == "empty":
            self._attributes(token)
            return token.end
        grammar = self.grammar
        if token.name in grammar.hidden or grammar.keeps(token):
            return self._skip(token)
        self._attributes(token)
        level = len(self.around)
        first = len(self.places)
        if token.name == "mc:AlternateContent":
            self._choices.append(first)
        while (inner := self._next()) is not None:
            if inner.kind == "end" and len(self.around) < level:
                break
            self._walk(inner)
        if token.name == "mc:AlternateContent":
            self._choices.pop()
        return inner.end if inner is not None else token.end

    def _skip(self, token: Token) -> int:
        """Read an element without looking into it; return its end."""
        if token.kind != "start":
            return token.end
        level = len(self.around)
        while (inner := self._next()) is not None:
            if inner.kind == "end" and len(self.around) < level:
                return inner.end
        return token.end


def tokens_of(text: str) -> Iterator[Token]:
    """Return the text tokens of a piece of XML."""
    return (token for token in tokens(text) if token.kind == "text")


def _signature(place: XmlPlace) -> tuple[object, ...]:
    parts = place.segment.parts
    return tuple(part if isinstance(part, str) else (part.role, part.pair) for part in parts)
