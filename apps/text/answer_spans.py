"""Finding an answer's words in the text they came from, with exact offsets."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
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

_DASHES = str.maketrans("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-------")
_BREAKS_OFF = re.compile(r"[\s(\[{<>:=~/\"'“„‘«»≈±]|^$")
# What belongs to the picture before it: variation selectors, skin tones, joiners with what they join, keycaps.
_PICTURE_TAIL = re.compile(r"(?:[\ufe0e\ufe0f\u20e3\U0001f3fb-\U0001f3ff]|\u200d\S)+")

STEM = 4
"""Words that begin with another of at least this length count as forms of it: occur, occurred."""


@dataclass(frozen=True)
class Span:
    """A piece of a text: ``text[start:end]``.

    Attributes:
        start: First character.
        end: One past the last character.
        exact: Whether it holds all of the answer's words and signs, not only the longest run of them.
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

    Of several occurrences those are taken whose signs are the answer's, so that ``C#`` is not found in ``C++``, nor 5
    in 1.5. Of these the one whose sentence shares most words with the question is taken; of those in one sentence the
    one nearest to these words; of equals the first. A sign, a minus or a currency before a number belongs to it. An
    answer may consist of signs alone, such as an emoji. If the answer as a whole does not occur, the longest run of its
    words that does is taken, provided that it holds a word that is neither common nor in the question (so that "It
    happened in 2008." finds "in 2008"); else its signs.

    Args:
        text: Where to look.
        answer: What to look for.
        question: Decides between occurrences.

    Returns:
        The span, or None.
    """
    words, sought = tokenize(text), tokenize(answer)
    if not sought:
        return _find_signs(text, answer, question)
    places = _occurrences([word.text for word in words], [word.text for word in sought])
    if places:
        found = [_widen(text, words[at].start, words[at + len(sought) - 1].end, answer, sought) for at in places]
        best = max(fit for _, fit in found)
        return _best(text, [span for span, fit in found if fit == best], question)
    return (_longest_run(text, words, sought, question) if words else None) or _find_signs(
        text, answer, question, exact=False
    )


def _find_signs(text: str, answer: str, question: str, *, exact: bool = True) -> Span | None:
    """Find the signs of an answer as they stand there; punctuation alone is no answer."""
    for piece in sorted((piece.strip(_PUNCTUATION) for piece in _SIGNS.findall(answer)), key=len, reverse=True):
        if not any(map(_means_something, piece)) or (not exact and piece in question):
            continue
        for form in dict.fromkeys((piece, piece.replace("\ufe0f", ""))):
            spans = []
            for match in re.finditer(re.escape(form), text):
                tail = _PICTURE_TAIL.match(text, match.end())
                spans.append(Span(match.start(), tail.end() if tail else match.end(), exact))
            # A sign among its like, such as one + of C++, is another one.
            alone = [
                span
                for span in spans
                if text[span.start - 1 : span.start] != form[0] and text[span.end : span.end + 1] != form[-1]
            ]
            if spans:
                return _best(text, alone or spans, question)
    return None


_PUNCTUATION = ".,;:!?…\"'“”„‘’«»()[]{}"
_SIGNS = re.compile(r"[^\w\s]+(?:\w\ufe0f?\u20e3)?|\w\ufe0f?\u20e3")


def _means_something(char: str) -> bool:
    """Return whether a sign is more than punctuation: money, mathematics, a picture, ``#`` and the like."""
    return unicodedata.category(char)[0] == "S" or char in "#%&@*/\\§†‡‰\u20e3"


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


def _widen(text: str, start: int, end: int, answer: str, sought: Sequence[_Token]) -> tuple[Span, int]:
    """Take in the signs around the words that the answer has as well, as in ``$3`` and ``90%``, and a number's own.

    Returns:
        The span, and how well its signs are the answer's: 2 if all are, 1 if it is whole at least.
    """
    lead = answer[: sought[0].start].strip()
    trail = answer[sought[-1].end :].strip().rstrip(".,;:!?")
    between = _signs(text[start:end]) == _signs(answer[sought[0].start : sought[-1].end])
    # Pieces as long as need be: a long text may hold a word many times.
    before = text[max(0, start - len(lead) - 4) : start].translate(_DASHES)
    after = text[end : end + len(trail) + 4]
    gap = len(after) - len(after.lstrip(" \u00a0"))
    taken_lead = next((lead[at:] for at in range(len(lead)) if _ends_with(before, lead[at:])), "")
    if taken_lead:
        start -= len(before) - len(before.rstrip(" \u00a0")) + len(taken_lead)
    taken_trail = next((trail[:at] for at in range(len(trail), 0, -1) if after.startswith(trail[:at], gap)), "")
    if taken_trail:
        end += gap + len(taken_trail)
        tail = _PICTURE_TAIL.match(text, end)
        end = tail.end() if tail else end
    # Stars and grave accents are Markdown. A minus counts where it touches a number: elsewhere it begins a list's item.
    minus = sought[0].text[:1].isdigit() and answer[: sought[0].start].translate(_DASHES).endswith("-")
    lost = [
        char
        for char in lead.removesuffix(taken_lead) + trail.removeprefix(taken_trail)
        if (_means_something(char) and char not in "*`") or (minus and char in "-−–")
    ]
    if not taken_lead:
        start = _with_sign(text, start)
    whole = not _is_cut(text, start, end)
    fit = 2 if whole and between and not lost else int(whole)
    return Span(start, end, exact=whole and not lost), fit


def _ends_with(before: str, lead: str) -> bool:
    """Return whether signs stand before a word; spaces may be between, but not behind a minus."""
    lead = lead.translate(_DASHES)
    return before.endswith(lead) or (not lead.endswith("-") and before.rstrip(" \u00a0").endswith(lead))


def _signs(text: str) -> str:
    return "".join(char for char in text.translate(_DASHES) if not char.isalnum() and not char.isspace())


def _with_sign(text: str, start: int) -> int:
    """Return where a word begins if its sign counts: ``-5``, ``$5``, ``#5``, ``+49``."""
    if start == 0:
        return start
    sign = text[start - 1]
    if unicodedata.category(sign) == "Sc" and text[start : start + 1].isdigit():
        start -= 1
        sign = text[start - 1 : start]
    free = _BREAKS_OFF.match(text[start - 2 : start - 1] if start > 1 else "") is not None
    numeric = text[start : start + 1].isdigit() or unicodedata.category(text[start]) == "Sc"
    if free and ((sign.translate(_DASHES) in ("-", "+") and numeric) or sign == "#"):
        return start - 1
    return start


def _is_cut(text: str, start: int, end: int) -> bool:
    """Return whether a span is part of a longer number, or of a name such as ``C++``."""
    if re.match(r"[.,]\d", text[end : end + 2]) and text[end - 1].isdigit():
        return True
    if re.match(r"\d[.,]", text[max(0, start - 2) : start]) and text[start].isdigit():
        return True
    return text[end - 1].isalpha() and re.match(r"[+#]+(?!\w)", text[end : end + 8]) is not None


def _best(text: str, spans: Sequence[Span], question: str) -> Span:
    if len(spans) == 1 or not question:
        return spans[0]
    # In order: sums of fractions must not depend on that of a set.
    asked = [word for word in dict.fromkeys(token.text for token in tokenize(question)) if word not in COMMON_WORDS]
    scored: dict[Span, tuple[int, float]] = dict.fromkeys(spans, (0, 0.0))
    in_order = sorted(spans, key=lambda span: span.start)
    starts = [span.start for span in in_order]
    for begin, end in _sentences(text):
        inside = in_order[bisect_left(starts, begin) : bisect_left(starts, end)]
        if not inside:
            continue
        words = tokenize(text[begin:end])
        places = {word: [at for at, token in enumerate(words) if _asked(token.text, {word})] for word in asked}
        shared = [found for found in places.values() if found]
        ends = [token.end for token in words]
        for span in inside:
            here = bisect_right(ends, span.start - begin)
            near = sum(1.0 / (1 + _distance(found, here)) for found in shared)
            scored[span] = (len(shared), near)
    return max(spans, key=scored.__getitem__)


def _distance(places: Sequence[int], here: int) -> int:
    """Return how far the nearest of some places is; they are in order."""
    at = bisect_left(places, here)
    return min(abs(place - here) for place in places[max(0, at - 1) : at + 1])


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
            runs.append(_uncut(text, run[0].start, run[-1].end))
    return _best(text, runs, question) if runs else None


def _uncut(text: str, start: int, end: int) -> Span:
    """Take in what makes a name or number of which a run is but a part: the signs of ``C++``, the decimals of 1.5."""
    if text[start].isdigit() and (before := re.search(r"(?:\d{1,20}[.,]){1,9}$", text[max(0, start - 200) : start])):
        start -= len(before.group())
    if text[end - 1].isdigit() and (after := re.match(r"(?:[.,]\d{1,20}){1,9}", text[end : end + 200])):
        end += len(after.group())
    if text[end - 1].isalpha() and (signs := re.match(r"[+#]{1,9}(?!\w)", text[end : end + 10])):
        end += len(signs.group())
    return Span(_with_sign(text, start), end, exact=False)


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

    Case, punctuation and articles do not count (as in Rajpurkar et al. 2016), but for answers that are signs alone; two
    empty answers agree.
    """
    words, others = (
        Counter([token.text for token in tokenize(text) if token.text not in _ARTICLES] or _signs(text))
        for text in (a, b)
    )
    if not words or not others:
        return float(words == others)
    return 2 * (words & others).total() / (words.total() + others.total())
