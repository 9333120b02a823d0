"""Sentences of a segment: what is translated of it, and what stands around that and comes back as it was."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nlpkit.apps.documents.document import Code, Part, Segment
from nlpkit.apps.documents.formats.spans import matched_end
from nlpkit.apps.documents.translation.masks import MASK, MaskedText, mask_parts
from nlpkit.apps.text.translation.layout import TextLayout, copies_as_is, read_layout, write_layout

_LOOSE = re.compile(r"(?:[ \t]*[:;,.)\]!?–—-]+(?=\s)\s+)?")


@dataclass(frozen=True)
class Unit:
    """A sentence.

    Attributes:
        lead: Codes and blanks before it.
        text: What is translated, with masks for the codes in it.
        trail: Codes and blanks behind it.
        copied: Whether there is nothing to translate in it.
        line: Lines of the segment before it.
    """

    lead: str
    text: str
    trail: str
    copied: bool
    line: int = 0


@dataclass(frozen=True)
class PlannedSegment:
    """A segment, cut into sentences.

    Attributes:
        segment: The segment.
        masked: Its text with masks.
        runs: Pieces of that text between codes that break it, and these codes.
        layouts: The layout of each run; None for a code.
        units: The sentences of all runs, in order.
    """

    segment: Segment
    masked: MaskedText
    runs: tuple[str, ...]
    layouts: tuple[TextLayout | None, ...]
    units: tuple[Unit, ...]

    def parts(self, translations: Sequence[str]) -> tuple[Part, ...]:
        """Put the sentences together again.

        Args:
            translations: One for each of `units`, with masks, without its lead and trail.

        Returns:
            Text and codes of the segment, wrapped as it was.
        """
        whole = [f"{unit.lead}{text}{unit.trail}" for unit, text in zip(self.units, translations, strict=True)]
        pieces, done = [], 0
        for run, layout in zip(self.runs, self.layouts, strict=True):
            if layout is None:
                pieces.append(run)
                continue
            count = len(layout.segments)
            pieces.append(write_layout(layout, whole[done : done + count]))
            done += count
        return self.masked.parts("".join(pieces))


def plan_segment(segment: Segment) -> PlannedSegment:
    """Cut a segment into sentences.

    A sentence that begins or ends with codes is translated without them: they cannot be lost.

    Args:
        segment: The segment.
    """
    masked = mask_parts(segment.parts)
    runs = _runs(masked)
    layouts: list[TextLayout | None] = []
    units: list[Unit] = []
    before = 0
    for index, run in enumerate(runs):
        if index % 2:
            layouts.append(None)
            continue
        layout = read_layout(run, lines=False)
        layouts.append(layout)
        line = before
        for block in layout.blocks:
            units += [_unit(sentence, masked, line) for sentence in block.segments]
            line += block.source.count("\n")
        before += run.count("\n")
    return PlannedSegment(segment, masked, tuple(runs), tuple(layouts), tuple(units))


def _runs(masked: MaskedText) -> list[str]:
    """Cut at the codes that break a text: texts at even places, codes at odd ones."""
    runs, done = [], 0
    for match in MASK.finditer(masked.text):
        code = masked.code(match.group(1))
        if isinstance(code, Code) and code.breaks:
            runs += [masked.text[done : match.start()], match.group()]
            done = match.end()
    return [*runs, masked.text[done:]]


def _unit(sentence: str, masked: MaskedText, line: int) -> Unit:
    begin, end = _inner(sentence, masked)
    if begin:
        # What a sentence cannot begin with belongs to the code before it, such as the colon of a label.
        begin = matched_end(_LOOSE, sentence, begin, end)
    text = sentence[begin:end]
    # What a code says, such as the words of a code span, is nothing to translate.
    words = MASK.sub("", text)
    copied = not any(map(str.isalpha, words)) or copies_as_is(words)
    return Unit(sentence[:begin], text, sentence[end:], copied, line)


def _inner(sentence: str, masked: MaskedText) -> tuple[int, int]:
    """Return where a sentence begins and ends without the codes at its edges.

    A code that stands alone and says something, such as a name, belongs to the sentence; so does half a pair whose
    other half stands within it.
    """
    matches = list(MASK.finditer(sentence))
    codes = [masked.code(match.group(1)) for match in matches]
    begin, end, first, last = 0, len(sentence), 0, len(matches)
    changed = True
    while changed:
        changed = False
        begin += len(sentence[begin:end]) - len(sentence[begin:end].lstrip())
        end -= len(sentence[begin:end]) - len(sentence[begin:end].rstrip())
        if first < last and matches[first].start() == begin and _at_edge(codes, first, first, last, begins=True):
            begin, first, changed = matches[first].end(), first + 1, True
            continue
        if first < last and matches[last - 1].end() == end and _at_edge(codes, last - 1, first, last, begins=False):
            end, last, changed = matches[last - 1].start(), last - 1, True
            continue
        if (
            first + 1 < last
            and matches[first].start() == begin
            and matches[last - 1].end() == end
            and _encloses(codes, first, last - 1)
        ):
            begin, end, first, last, changed = (
                matches[first].end(),
                matches[last - 1].start(),
                first + 1,
                last - 1,
                True,
            )
    return begin, end


def _at_edge(codes: Sequence[Part], index: int, first: int, last: int, *, begins: bool) -> bool:
    code = codes[index]
    if isinstance(code, str):
        return False
    if code.role == "alone":
        return not code.text
    others = [other for place, other in enumerate(codes[first:last], start=first) if place != index]
    paired = any(isinstance(other, Code) and other.pair == code.pair for other in others)
    return not paired


def _encloses(codes: Sequence[Part], first: int, last: int) -> bool:
    one, two = codes[first], codes[last]
    return (
        isinstance(one, Code)
        and isinstance(two, Code)
        and one.role == "open"
        and two.role == "close"
        and one.pair == two.pair
    )
