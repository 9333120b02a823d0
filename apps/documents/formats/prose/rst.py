"""reStructuredText: titles, paragraphs, list items and notes; code, directives, targets and tables stay."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from nlpkit.apps.documents.document import Code, Document, Kind, Part, ReadOptions, Results, Segment
from nlpkit.apps.documents.formats.prose.text_blocks import TextLine, coded, enclosed, paragraph, split_text
from nlpkit.apps.documents.formats.spans import Place, SpanSkeleton, flowed, span_document
from nlpkit.apps.documents.formats.strings.messages import pair_codes
from nlpkit.apps.documents.source_text import SourceText, decode_source

_LINE = re.compile(r"([!-/:-@\[-`{-~])\1{1,}\Z")
_BULLET = re.compile(r"(?:[-*+•‣⁃]|(?:\d{1,3}|[A-Za-z#]|[ivxlIVXL]{1,5})[.)]|\((?:\d{1,3}|[A-Za-z#])\))\s+(?=\S)")
_FIELD = re.compile(r":(?:[^:\s`]|\\:)(?:[^:`\n]|\\:)*:(?:\s+|\Z)")
_DIRECTIVE = re.compile(r"\.\.\s+(?:\|[^|]+\|\s+)?(?P<name>[\w:+.-]+)::(?:\s+(?P<rest>.*))?\Z")
_OPTION = re.compile(r":[\w-]+:(?:\s|\Z)")
_PROSE_NAMES = (
    "note warning tip hint important caution danger attention error admonition seealso versionadded versionchanged "
    "deprecated epigraph topic sidebar centered rubric container compound figure todo rst-class only class list-table "
    "pull-quote highlights parsed-note"
)
_PROSE = frozenset(_PROSE_NAMES.split())
"""Directives whose content is prose."""

_TITLED = frozenset(
    ["admonition", "topic", "sidebar", "rubric", "centered", "note", "warning", "tip", "hint", "important"]
)
_INLINE = re.compile(
    r"(?P<code>``.+?``)|(?P<role>:[\w:+.-]{1,80}:`[^`]+`|`[^`<>]+`:[\w:+.-]+:)"
    r"|(?P<link>`(?P<label>[^`<>]+?)(?P<target>\s*<[^`<>]+>`__?))|(?P<phrase>`[^`]+`__?|`[^`]+`)"
    r"|(?P<sub>\|[^|\s][^|]*\|_{0,2})|(?P<note>\[(?:\#?[\w.-]*|\*)\]_)|(?P<ref>\b[A-Za-z0-9][\w.-]{0,200}__?(?![\w]))"
    r"|(?P<strong>(?<![\w*])\*\*(?P<s>[^*\s](?:[^*]*[^*\s])?)\*\*(?![\w*]))"
    r"|(?P<em>(?<![\w*])\*(?P<e>[^*\s](?:[^*]*[^*\s])?)\*(?![\w*]))|(?P<escape>\\.)|(?P<literal>::\Z)"
)


class ReStructuredText:
    """Reads and writes reStructuredText."""

    name = "rst"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a page.

        Raises:
            InputError: It is no text.
        """
        source = decode_source(data, options)
        found = list(_blocks(source, split_text(source.text)))
        return span_document(self.name, source, found)

    def write(self, skeleton: SpanSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a page; the lines above and below titles grow with them."""
        source = skeleton.source
        new: list[tuple[int, int, str]] = []
        for place, segment, result in zip(skeleton.places, skeleton.segments, results, strict=True):
            if result is None:
                continue
            before = source.text[place.start : place.end]
            text = flowed(result, lambda text, before=before: _escaped(text, before), segment.wrap, begins_badly=_BADLY)  # type: ignore[misc]
            new.append((place.start, place.end, text))
            for start, end in _rules(place.style):
                new.append((start, end, _grown(source.text[start:end], text)))
        return source.replaced(sorted(new))


_BADLY = re.compile(r"(?:[-*+•]|\d{1,3}[.)]|[A-Za-z#][.)]|\.\.|::|\|.*|:\w+:) ")


def _rules(style: str) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in (pair.split(":") for pair in style.split())]


def _grown(rule: str, title: str) -> str:
    width = sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in title)
    return rule if len(rule) >= width else rule[0] * width


def _escaped(text: str, before: str) -> str:
    signs = "".join(sign for sign in "*`|" if sign not in before)
    text = re.sub(r"[\r\n]+", " ", text)
    text = re.sub(f"[{signs}]", r"\\\g<0>", text) if signs else text

    # A word that ends in an underscore would be a link.
    def sign(match: re.Match[str]) -> str:
        return match.group() if match.group() in before else match.group()[:-1] + "\\_"

    return re.sub(r"(?<!\w)\w+_(?!\w)", sign, text)


def inline_parts(text: str) -> tuple[Part, ...]:
    """Cut inline markup into text and codes."""

    def read(match: re.Match[str]) -> Sequence[Part]:
        literal = match.group()
        if match.group("link"):
            return enclosed("`", match.group("label"), match.group("target"))
        if match.group("strong"):
            return enclosed("**", match.group("s"), "**")
        if match.group("em"):
            return enclosed("*", match.group("e"), "*")
        said = "" if match.group("note") or match.group("literal") else re.sub(r":[\w:+.-]+:|[`|_]", "", literal)
        return [Code(literal=literal, text=said)]

    return tuple(pair_codes(coded(text, _INLINE, read), lambda literal: literal[:2] if literal[:1] == "*" else "`"))


def _blocks(source: SourceText, lines: Sequence[TextLine]) -> Iterator[tuple[Segment, Place]]:
    at = 0
    literal: int | None = None
    while at < len(lines):
        line = lines[at]
        if line.blank:
            at += 1
            continue
        if literal is not None:
            if line.indent > literal or (
                line.indent == literal
                and line.text.strip()[:1] in tuple("!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~")
                and _quoted(lines, at)
            ):
                at = _block_end(lines, at, line.indent if line.indent <= literal else literal + 1)
                continue
            literal = None
        body = line.text.strip()
        title = _title(lines, at)
        if title is not None:
            text_line, rules, at = title
            for segment, place in paragraph(source, [text_line], inline_parts, kind="heading"):
                yield (
                    segment,
                    Place(
                        place.start,
                        place.end,
                        " ".join(f"{rule.start}:{rule.start + len(rule.text)}" for rule in rules),
                    ),
                )
            continue
        if (
            body.startswith((">>>", "+-", "+=", "|"))
            or _LINE.match(body)
            or re.match(r"=+(?:\s+=+)+\Z|-+(?:\s+-+)+\Z", body)
        ):
            at = _table_end(lines, at)
            continue
        if body.startswith("..") and (len(body) == 2 or body[2].isspace()):
            directive = _DIRECTIVE.match(body)
            if directive is None or directive.group("name").lower() not in _PROSE:
                at = _block_end(lines, at + 1, line.indent + 1)
                continue
            rest, name = directive.group("rest"), directive.group("name").lower()
            at += 1
            if rest and name in _TITLED:
                run, at = _run(lines, at - 1, more_indent=True)
                options = (index for index, one in enumerate(run) if index and _OPTION.match(one.text.strip()))
                yield from paragraph(source, run[: next(options, len(run))], inline_parts, lead=body.index(rest))
            while at < len(lines) and _OPTION.match(lines[at].text.strip()):
                at += 1
            continue
        bullet = _BULLET.match(body) or _FIELD.match(body)
        if bullet is not None and body[bullet.end() :].startswith(("| ", "+-", "==", ">>>")):
            # A table or a block of lines hangs in an item.
            at = _table_end(lines, at)
            continue
        run, at = _run(lines, at, more_indent=bullet is not None)
        if bullet is not None and _FIELD.match(body) and _is_settings(body):
            continue
        text = " ".join(one.text.strip() for one in run)
        if text.endswith("::"):
            literal = line.indent
            if text == "::":
                continue
        kind: Kind = "list_item" if bullet is not None else "paragraph"
        yield from paragraph(source, run, inline_parts, kind=kind, lead=bullet.end() if bullet else 0)


def _is_settings(body: str) -> bool:
    """Tell whether a field is one for programs, as those of a page's head are."""
    name = body.split(":", 2)[1].split(" ")[0].lower()
    return name not in (
        "param",
        "parameter",
        "arg",
        "raises",
        "return",
        "returns",
        "abstract",
        "summary",
        "description",
    )


def _quoted(lines: Sequence[TextLine], at: int) -> bool:
    return at > 1 and lines[at - 1].blank


def _title(lines: Sequence[TextLine], at: int) -> tuple[TextLine, list[TextLine], int] | None:
    """Return a title, the lines above and below it, and what follows; None where there is none."""
    line = lines[at]
    below = lines[at + 1] if at + 1 < len(lines) else None
    if _LINE.match(line.text) and below is not None and not below.blank and at + 2 < len(lines):
        under = lines[at + 2]
        if _LINE.match(under.text) and under.text[0] == line.text[0] and len(line.text) >= len(below.text.rstrip()):
            return below, [line, under], at + 3
    if below is not None and line.indent == 0 and _LINE.match(below.text) and not _LINE.match(line.text):
        alone = at == 0 or lines[at - 1].blank or not lines[at - 1].text.strip()
        if alone and len(below.text) + 2 >= len(line.text) and not line.text.startswith(".. "):
            return line, [below], at + 2
    return None


def _run(lines: Sequence[TextLine], at: int, *, more_indent: bool) -> tuple[list[TextLine], int]:
    """Return the lines of a paragraph: those below with the same indent, or for an item all with one more indent."""
    first = lines[at]
    run = [first]
    indent: int | None = None if more_indent else first.indent
    at += 1
    while at < len(lines) and not lines[at].blank:
        line = lines[at]
        if indent is None and line.indent > first.indent:
            indent = line.indent
        if line.indent != indent or (more_indent and indent is None):
            break
        if not more_indent and run == [first] and line.indent > first.indent:
            break
        if _BULLET.match(line.text.strip()) and _BULLET.match(first.text.strip()) and line.indent == first.indent:
            break
        run.append(line)
        at += 1
    return run, at


def _block_end(lines: Sequence[TextLine], at: int, indent: int) -> int:
    """Return where lines end that are indented at least so far."""
    while at < len(lines) and (lines[at].blank or lines[at].indent >= indent):
        at += 1
    return at


def _table_end(lines: Sequence[TextLine], at: int) -> int:
    """Return where a table, a line of its own, or a prompt of Python ends."""
    ruled = bool(re.match(r"=+(?:\s+=+)+\Z", lines[at].text.strip()))
    seen = 0
    while at < len(lines):
        if ruled and re.match(r"=+(?:\s+=+)*\Z", lines[at].text.strip()):
            seen += 1
        if lines[at].blank and (not ruled or seen >= 2):
            break
        at += 1
    return at
