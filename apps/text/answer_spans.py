"""Finding an answer's words in the text they came from, with exact offsets."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from nlpkit.apps.text.chunking import split_sentences

# Words without spaces between them (Han, kana) count character by character.
_TOKEN = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+"
)

_COMMON = """the a an of and or to in on at by for from with as is are was were be been it its that this these those he
she they his her their which who whom what when where how why did do does has have had not no yes there"""

COMMON_WORDS: frozenset[str] = frozenset(_COMMON.split())
"""English words that are no answer on their own."""

_ARTICLES = frozenset({"a", "an", "the"})

STEM = 4
"""Words that begin with another of at least this length count as forms of it: occur, occurred."""


@dataclass(frozen=True)
class Span:
    """A piece of a text: ``text[start:end]``.

    Attributes:
        start: First character.
        end: One past the last character.
        exact: Whether it holds all of the answer's words, not only the longest run of them.
    """

    start: int
    end: int
    exact: bool = True


@dataclass(frozen=True)
class _Token:
    text: str
    start: int
    end: int


def tokenize(text: str) -> list[_Token]:
    """Return words, case-folded and NFKC-normalised, with their places."""
    return [
        _Token(unicodedata.normalize("NFKC", match.group()).casefold(), match.start(), match.end())
        for match in _TOKEN.finditer(text)
    ]


def find_span(text: str, answer: str, *, question: str = "") -> Span | None:
    """Find an answer in a text, whatever its case, white space and punctuation.

    Of several occurrences the one whose sentence shares most words with the question is taken; of those in one sentence
    the one nearest to these words; of equals the first. If the answer as a whole does not occur, the longest run of its
    words that does is taken, provided that it holds a word that is neither common nor in the question (so that "It
    happened in 2008." finds "in 2008").

    Args:
        text: Where to look.
        answer: What to look for.
        question: Decides between occurrences.

    Returns:
        The span, or None.
    """
    words, sought = tokenize(text), tokenize(answer)
    if not words or not sought:
        return None
    places = _occurrences([word.text for word in words], [word.text for word in sought])
    if places:
        spans = [_widen(text, words[at].start, words[at + len(sought) - 1].end, answer, sought) for at in places]
        return _best(text, spans, question)
    return _longest_run(text, words, sought, question)


def sentence_around(text: str, start: int, end: int) -> str:
    """Return the sentence or sentences that hold ``text[start:end]``, stripped."""
    return " ".join(text[begin:stop].strip() for begin, stop in _sentences(text) if begin < end and stop > start)


def _sentences(text: str) -> list[tuple[int, int]]:
    edges = [0]
    for sentence in split_sentences(text):
        edges.append(edges[-1] + len(sentence))
    return list(pairwise(edges))


def _occurrences(words: Sequence[str], sought: Sequence[str]) -> list[int]:
    first, length = sought[0], len(sought)
    return [
        at
        for at in range(len(words) - length + 1)
        if words[at] == first and list(words[at : at + length]) == list(sought)
    ]


def _widen(text: str, start: int, end: int, answer: str, sought: Sequence[_Token]) -> Span:
    """Take in the signs around the words that the answer has as well, as in ``$3`` and ``90%``."""
    lead = answer[: sought[0].start].strip()
    trail = answer[sought[-1].end :].strip().rstrip(".,;:!?")
    if lead and text[:start].endswith(lead):
        start -= len(lead)
    if trail and text.startswith(trail, end):
        end += len(trail)
    return Span(start, end)


def _best(text: str, spans: Sequence[Span], question: str) -> Span:
    if len(spans) == 1 or not question:
        return spans[0]
    asked = {token.text for token in tokenize(question)} - COMMON_WORDS
    scored: dict[Span, tuple[int, float]] = dict.fromkeys(spans, (0, 0.0))
    for begin, end in _sentences(text):
        inside = [span for span in spans if begin <= span.start < end]
        if not inside:
            continue
        words = tokenize(text[begin:end])
        places = {word: [at for at, token in enumerate(words) if _asked(token.text, {word})] for word in asked}
        shared = [found for found in places.values() if found]
        for span in inside:
            here = sum(token.end <= span.start - begin for token in words)
            near = sum(1.0 / (1 + min(abs(at - here) for at in found)) for found in shared)
            scored[span] = (len(shared), near)
    return max(spans, key=scored.__getitem__)


def _longest_run(text: str, words: Sequence[_Token], sought: Sequence[_Token], question: str) -> Span | None:
    asked = {token.text for token in tokenize(question)}
    plain = COMMON_WORDS | {word.text for word in words if _asked(word.text, asked)}
    places: dict[str, list[int]] = {}
    for at, word in enumerate(words):
        places.setdefault(word.text, []).append(at)
    best = (0, 0)
    runs: list[Span] = []
    for begin, token in enumerate(sought):
        for at in places.get(token.text, ()):
            length = 0
            while (
                begin + length < len(sought)
                and at + length < len(words)
                and sought[begin + length].text == words[at + length].text
            ):
                length += 1
            content = sum(words[at + i].text not in plain for i in range(length))
            if not content or (content, length) < best:
                continue
            if (content, length) > best:
                best, runs = (content, length), []
            run = _trim(words[at : at + length], plain)
            runs.append(Span(run[0].start, run[-1].end, exact=False))
    return _best(text, runs, question) if runs else None


def _asked(word: str, asked: Collection[str]) -> bool:
    return word in asked or any(
        min(len(word), len(other)) >= STEM and (word.startswith(other) or other.startswith(word)) for other in asked
    )


def _trim(run: Sequence[_Token], plain: Collection[str]) -> Sequence[_Token]:
    """Drop words at the ends that say nothing new."""
    begin, end = 0, len(run)
    while begin < end - 1 and run[begin].text in plain:
        begin += 1
    while end - 1 > begin and run[end - 1].text in plain:
        end -= 1
    return run[begin:end]


def overlap(a: str, b: str) -> float:
    """Return the harmonic mean of the shares of words that two answers have in common, from 0 to 1.

    Case, punctuation and articles do not count (as in Rajpurkar et al. 2016); two empty answers agree.
    """
    words, others = (Counter(token.text for token in tokenize(text) if token.text not in _ARTICLES) for text in (a, b))
    if not words or not others:
        return float(words == others)
    return 2 * (words & others).total() / (words.total() + others.total())
