"""Verse line by line: several tries of each line, of which those that keep the form and read best go on.

It is beam search over lines. The tries of a line are sampled under a regular expression that already holds the initial,
the length in words, a keyword, or the words that rhyme; syllables are counted afterwards. What is left is ranked by how
likely the model finds it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from nlpkit.apps.text.verse.plans import LinePlan
from nlpkit.apps.text.verse.sounds import is_certain, rhyme_parts, rhyming_words, syllables, words_of

BEAMS = 3
"""Beginnings that go on at each line."""
TRIES = 16
"""Tries of a line for each beginning and regular expression."""
ROUNDS = 3
"""How often tries are repeated, with other numbers drawn, before a beginning is given up."""
MAX_BACK = 6
"""How often the search goes back by a line where no beginning can go on."""
FEWEST_RHYMES = 5
"""Common words that must rhyme with the end of a line that others are to rhyme with."""
MOST_RHYMES = 60
LINE_TOKENS = 32
_WORD = "[A-Za-z]+(?:'[a-z]+)?"
_WEAK_WORDS = (
    "a an the of to in on at by for from with and or but nor that which who whose my your his her its our their is are "
    "was were be been am as if than then when while so very into unto upon i"
)
_WEAK = frozenset(_WEAK_WORDS.split())
"""Words that carry little, and that a line had better not end with."""
_BRIEF = frozenset({"me", "we", "he", "be", "go", "no", "so", "do", "up", "us"})
"""Words of two letters that a line may end with; the dictionary has many that are none."""
_REPEATED, _THEME, _WEAK_END, _LEAST = 0.25, 0.4, 0.6, 0.12


@dataclass(frozen=True, kw_only=True)
class LineRequest:
    """What to ask of the model.

    Attributes:
        before: The lines so far, blank ones for stanzas included.
        pattern: Regular expression of the line; it ends with a line end.
        tries: How many to sample.
        seed: Seed of the sampler.
        favoured: Words that are to come more often than the model has them: those that rhyme.
    """

    before: tuple[str, ...]
    pattern: str
    tries: int
    seed: int
    favoured: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LineTry:
    """One line that the model wrote.

    Attributes:
        text: The line, without its end.
        mean_logprob: Mean log-probability of its tokens, in nats.
        min_logprob: That of the least likely one.
    """

    text: str
    mean_logprob: float
    min_logprob: float


WriteLines = Callable[[Sequence[LineRequest]], Sequence[Sequence[LineTry]]]


@dataclass(frozen=True, kw_only=True)
class Verse:
    """Lines that keep a plan as far as they go.

    Attributes:
        lines: The lines, without blank ones.
        score: The higher the better; a sum over lines.
        words: The words that count as said, in small letters.
        ends: Last words by letter of the rhyme scheme.
        unused: Keywords that were not used yet.
    """

    lines: tuple[str, ...] = ()
    score: float = 0.0
    words: frozenset[str] = frozenset()
    ends: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unused: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class VerseSearch:
    """A search for verse of one plan.

    Attributes:
        plan: The lines.
        keywords: Words that must occur, at most one a line.
        theme: Words that had better occur.
        write: Asks the model.
        is_common: Tells whether a word is a common one, worth rhyming with.
        seed: Seed of all that is drawn.
    """

    plan: tuple[LinePlan, ...]
    keywords: tuple[str, ...] = ()
    theme: frozenset[str] = frozenset()
    write: WriteLines
    is_common: Callable[[str], bool]
    seed: int

    def run(self) -> list[Verse]:
        """Search.

        Returns:
            The verses found, the best first: with fewer lines than the plan where none was found that keeps it.
        """
        levels: list[list[Verse]] = [[Verse(unused=self.keywords)]]
        best, back, turn = levels[0], 0, 0
        while len(levels) <= len(self.plan):
            turn += 1
            grown = self._grow(levels[-1], len(levels) - 1, turn)
            if grown:
                levels.append(grown)
                best = max(best, grown, key=lambda verses: len(verses[0].lines))
                continue
            if back == MAX_BACK or len(levels) == 1:
                return best
            # No way on: another line before this one may have one.
            back += 1
            levels = levels[: max(1, len(levels) - back)]
        return levels[-1]

    def _grow(self, beginnings: Sequence[Verse], place: int, turn: int) -> list[Verse]:
        wanted = self.plan[place]
        found: dict[str, Verse] = {}
        for attempt in range(ROUNDS):
            asked = [
                (verse, LineRequest(
                    before=self._before(verse), pattern=pattern, tries=TRIES,
                    seed=(self.seed + 7919 * (100 * turn + 10 * attempt) + number) % 2**31,
                    favoured=tuple(self._partners(verse, place)),
                ))
                for verse in beginnings
                for number, pattern in enumerate(self._patterns(verse, place))
            ]  # fmt: skip
            if not asked:
                break
            for (verse, _), tries in zip(asked, self.write([request for _, request in asked]), strict=True):
                for one in tries:
                    grown = self._extend(verse, one, wanted, place)
                    if grown is not None and (
                        grown.lines[-1] not in found or found[grown.lines[-1]].score < grown.score
                    ):
                        found[grown.lines[-1]] = grown
            if len(found) >= BEAMS:
                break
        return sorted(found.values(), key=lambda verse: -verse.score)[:BEAMS]

    def _before(self, verse: Verse) -> tuple[str, ...]:
        """Return the lines so far with a blank one before each stanza."""
        shown: list[str] = []
        for plan, line in zip(self.plan, (*verse.lines, ""), strict=False):
            shown += ([""] if plan.stanza else []) + [line]
        return tuple(shown[:-1])

    def _patterns(self, verse: Verse, place: int) -> list[str]:
        """Return the regular expressions to try a line under."""
        wanted = self.plan[place]
        fewest, most = wanted.syllables
        low, high = max(1, math.ceil(fewest / 2.5) - 1), most - 1
        end = _WORD
        if verse.ends.get(wanted.rhyme):
            rhyming = self._partners(verse, place)
            if not rhyming:
                return []
            end = f"(?:{'|'.join(rhyming)})"
        first = f"[{wanted.initial}{wanted.initial.lower()}][a-z]*(?:'[a-z]+)?" if wanted.initial else _WORD
        close = "[.,;:!?]?\\n" if place + 1 < len(self.plan) else "[.!?]\\n?"
        inner = f"(?:{_WORD}[,;]? )"
        plain = f" ?{first}[,;]? {inner}{{{max(0, low - 1)},{max(0, high - 1)}}}{end}{close}"
        lines_left = len(self.plan) - place
        if not verse.unused:
            return [plain]
        keyword = re.escape(verse.unused[0])
        half = max(1, high - 1)
        if wanted.initial:
            held = f" ?{first}[,;]? {inner}{{0,{half}}}{keyword}[,;]? {inner}{{0,{half}}}{end}{close}"
        else:
            held = f" ?{inner}{{0,{half}}}{keyword}[,;]? {inner}{{0,{half}}}{end}{close}"
        return [held] if len(verse.unused) >= lines_left else [held, plain]

    def _partners(self, verse: Verse, place: int) -> list[str]:
        """Return the words that a line may end with to rhyme with those before; none where any will do."""
        ends = verse.ends.get(self.plan[place].rhyme, ())
        return self._rhymes(ends) if ends else []

    def _rhymes(self, ends: Sequence[str]) -> list[str]:
        words = [word for word in rhyming_words(ends[0]) if len(word) > 2 or word in _BRIEF]
        return [word for word in words if word not in ends and word not in _WEAK and self.is_common(word)][:MOST_RHYMES]

    def _extend(self, verse: Verse, one: LineTry, wanted: LinePlan, place: int) -> Verse | None:
        """Return a verse with one line more, or None where the line does not keep the plan."""
        line = one.text.strip()
        words = words_of(line)
        fewest, most = wanted.syllables
        asked_for = {word for keyword in self.keywords for word in words_of(keyword)}
        if not words or line in verse.lines or not all(is_certain(word) or word in asked_for for word in words):
            return None
        if not any(fewest <= count <= most for count in syllables(line)):
            return None
        ends = verse.ends
        if wanted.rhyme:
            before = ends.get(wanted.rhyme, ())
            awaited = any(plan.rhyme == wanted.rhyme for plan in self.plan[place + 1 :])
            if words[-1] in (word for others in ends.values() for word in others) or not rhyme_parts(words[-1]):
                return None
            if awaited and not before and len(self._rhymes(words[-1:])) < FEWEST_RHYMES:
                return None
            ends = {**ends, wanted.rhyme: (*before, words[-1])}
        unused = tuple(word for word in verse.unused if word.casefold() not in line.casefold())
        if len(unused) >= len(self.plan) - place:
            return None
        said = {word for word in words if word not in _WEAK}
        score = one.mean_logprob + _LEAST * one.min_logprob
        score -= _REPEATED * len(said & verse.words) + _REPEATED * (len(words) - len(set(words)))
        score += _THEME * bool(said & self.theme - verse.words)
        score -= _WEAK_END * (words[-1] in _WEAK)
        return replace(
            verse,
            lines=(*verse.lines, line),
            score=verse.score + score,
            words=verse.words | said,
            ends=ends,
            unused=unused,
        )


def layout(lines: Iterable[str], plan: Sequence[LinePlan]) -> str:
    """Return lines as text, each with a capital, and a blank one between stanzas."""
    shown = []
    for line, wanted in zip(lines, plan, strict=False):
        shown += ([""] if wanted.stanza else []) + [line[:1].upper() + line[1:]]
    return "\n".join(shown)
