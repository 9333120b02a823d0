"""The sentences of a text that a summary may be made of, each with its place."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from nlpkit.apps.text.chunking import split_lines, split_paragraphs, split_sentences
from nlpkit.apps.text.language_words import COMMON_WORDS

LONG_LINE = 40
"""Characters from which on a line that goes on in the next one was wrapped."""

WORDS_LOOKED_AT = 4000
"""Words from the beginning of a text that tell its language."""

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_]+(?:[-'’.][^\W_]+)*")
_ITEM = re.compile(r"\s*(?:[-*•–]|\d{1,3}[.)])\s+")
_SPEAKER = re.compile(r"\s*(?P<name>#?[^\W_][\w .'’#-]{0,30}?#?):\s+(?=\S)")
_SIGNS = "|#>"
"""What begins a line that stands for itself: of a table, a heading, a quotation."""
_MARKS = re.compile(r"^[>#*=~\s]+|[*=~\s]+$")


@dataclass(frozen=True)
class Sentence:
    """One sentence.

    Attributes:
        text: It, in one line, without the sign of a list item in front.
        start: Where it begins in the text, in characters.
        end: Where it ends.
        paragraph: Number of its paragraph.
        first: Whether it begins its paragraph.
        speaker: Who says it, in a conversation; else empty.
        words: Its words, lower-cased.
        complete: Whether it ends as sentences end.
    """

    text: str
    start: int
    end: int
    paragraph: int
    first: bool
    speaker: str
    words: tuple[str, ...]
    complete: bool

    @property
    def n_words(self) -> int:
        """Words of it where it is shown: with the name of who says it."""
        return len(self.words) + len(self.speaker.split())


def find_sentences(text: str) -> list[Sentence]:
    """Return the sentences of a text: those of its paragraphs, list items and turns of conversations.

    Args:
        text: Any text.

    Returns:
        Those with at least one word, in order.
    """
    found: list[Sentence] = []
    at = 0
    for number, paragraph in enumerate(split_paragraphs(text)):
        first = True
        for start, end, speaker in _pieces(paragraph):
            sentence = _sentence(text, at + start, at + end, number, first, speaker)
            if sentence is not None:
                found.append(sentence)
                first = False
        at += len(paragraph)
    return found


def _pieces(paragraph: str) -> Iterator[tuple[int, int, str]]:
    """Yield where sentences begin and end, and who says them."""
    speaker = ""
    lines = split_lines(paragraph)
    spoken = sum(_SPEAKER.match(line) is not None for line in lines) > len(lines) / 2
    at = 0
    starts: list[tuple[int, str]] = []
    for index, line in enumerate(lines):
        found = _SPEAKER.match(line) if spoken else None
        if found is not None:
            speaker = found["name"]
            starts.append((at + found.end(), speaker))
        elif index == 0 or _ITEM.match(line) or not _goes_on(lines[index - 1], line):
            starts.append((at, speaker))
        at += len(line)
    for (begin, speaker), (stop, _) in zip(starts, [*starts[1:], (len(paragraph), "")], strict=True):
        piece = paragraph[begin:stop]
        if spoken and stop < len(paragraph):
            # The name of the next one who speaks.
            piece = piece[: piece.rfind("\n") + 1] or piece
        offset = begin
        for sentence in split_sentences(piece):
            yield offset, offset + len(sentence), speaker
            offset += len(sentence)


def _goes_on(line: str, following: str) -> bool:
    """Tell whether a line was wrapped, and goes on in the next one."""
    text, after = line.rstrip(), following.lstrip()
    if not after or not text or after[0] in _SIGNS or text.lstrip()[0] in _SIGNS:
        return False
    return after[:1].islower() or text[-1:] in ",;–-" or (len(text) >= LONG_LINE and text[-1] not in ":")


def _sentence(text: str, start: int, end: int, paragraph: int, first: bool, speaker: str) -> Sentence | None:
    raw = text[start:end]
    item = _ITEM.match(raw)
    if item is not None:
        start += item.end()
        raw = text[start:end]
    start += len(raw) - len(raw.lstrip())
    end -= len(raw) - len(raw.rstrip())
    if start >= end:
        return None
    shown = _MARKS.sub("", " ".join(text[start:end].split()))
    words = tuple(word.lower() for word in _WORD.findall(shown))
    if not words:
        return None
    complete = shown.rstrip("\"'”’»)]*_")[-1:] in tuple(".!?…。！？")
    return Sentence(shown, start, end, paragraph, first, speaker, words, complete)


def common_words(sentences: list[Sentence]) -> frozenset[str]:
    """Return the words that every text of this one's language has.

    Args:
        sentences: Of one text.
    """
    counts: Counter[str] = Counter()
    for sentence in sentences:
        counts.update(sentence.words)
        if counts.total() > WORDS_LOOKED_AT:
            break
    shares = {code: sum(counts[word] for word in words) for code, words in COMMON_WORDS.items()}
    best = max(shares, key=lambda code: shares[code])
    return COMMON_WORDS[best] if shares[best] else frozenset()
