"""Phrases that a text must include: dynamic beam allocation (Post and Vilar 2018, arXiv:1804.06609).

A phrase is met when the bytes of the text contain it, however it is spelled in tokens. To get there, hypotheses are
offered the tokens of its usual spellings, with and without a space in front, and the beam is shared among banks:
hypotheses that need the same number of tokens to include all that is left. So one that has begun a phrase competes
with others that have, not with those that took an easier way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nlpkit.core.errors import ConfigError
from nlpkit.core.tokenizers.stream import failure_table

if TYPE_CHECKING:
    from nlpkit.core.tokenizers.tokenizer import Tokenizer

_CONTEXTS = ("", " ", "\n", "(")
"""What may stand before a phrase; some tokenizers spell a beginning as they spell nothing else."""


@dataclass(frozen=True)
class PhraseProgress:
    """How far a hypothesis has come with all phrases.

    Attributes:
        remaining: Tokens that include all phrases not yet met, one after another.
        in_phrase: For each phrase, how many of its bytes the text ends with; -1 once it is met.
        in_spelling: For each spelling, how many of its tokens the text ends with.
    """

    remaining: int
    in_phrase: tuple[int, ...]
    in_spelling: tuple[int, ...]


@dataclass(frozen=True)
class _PhraseSpelling:
    phrase: int
    token_ids: tuple[int, ...]
    failures: tuple[int, ...]


class Lexicon:
    """The phrases that a text must include, as one tokenizer spells them."""

    def __init__(self, phrases: Sequence[str], tokenizer: Tokenizer) -> None:
        """Look the phrases up.

        Args:
            phrases: White space around them does not count.
            tokenizer: Of the model that will write.

        Raises:
            ConfigError: The tokenizer cannot spell a phrase.
        """
        self._tokenizer = tokenizer
        given = dict.fromkeys(phrase.strip() for phrase in phrases)
        # Whoever writes the longer of two writes the shorter.
        self.phrases = tuple(
            phrase for phrase in given if not any(phrase in other for other in given if other != phrase)
        )
        if not getattr(tokenizer, "is_concatenative", True):
            raise ConfigError(
                "must_include needs a tokenizer whose text is the bytes of its tokens in a row, as all GPT models "
                "have; this model's tokenizer puts text together in another way."
            )
        self._bytes = tuple(phrase.encode() for phrase in self.phrases)
        self._byte_failures = tuple(tuple(failure_table(phrase)) for phrase in self._bytes)
        self._spellings = tuple(
            _PhraseSpelling(index, token_ids, tuple(failure_table(token_ids)))
            for index, phrase in enumerate(self.phrases)
            for token_ids in spellings(phrase, tokenizer)
        )
        self._shortest = [
            min(len(spelling.token_ids) for spelling in self._spellings if spelling.phrase == index)
            for index in range(len(self.phrases))
        ]
        self.start = PhraseProgress(sum(self._shortest), (0,) * len(self.phrases), (0,) * len(self._spellings))

    def check(self, max_tokens: int) -> None:
        """Refuse phrases for which a text has no room.

        Raises:
            ConfigError: One after another they take more tokens than `max_tokens`.
        """
        if self.start.remaining > max_tokens:
            raise ConfigError(
                f"must_include takes {self.start.remaining} tokens, one phrase after another; max_tokens is "
                f"{max_tokens}. Raise it, or leave phrases out."
            )

    def advance(self, progress: PhraseProgress, token_id: int) -> PhraseProgress:
        """Return the progress after one more token."""
        data = self._tokenizer.token_bytes(token_id)
        in_phrase = tuple(
            self._after_bytes(index, state, data) if state >= 0 else -1
            for index, state in enumerate(progress.in_phrase)
        )
        in_spelling = tuple(
            advance_match(spelling.token_ids, spelling.failures, state, token_id)
            for spelling, state in zip(self._spellings, progress.in_spelling, strict=True)
        )
        saved = 0
        for spelling, state in zip(self._spellings, in_spelling, strict=True):
            if in_phrase[spelling.phrase] >= 0:
                saved = max(saved, self._shortest[spelling.phrase] - len(spelling.token_ids) + state)
        unmet = sum(length for length, state in zip(self._shortest, in_phrase, strict=True) if state >= 0)
        return PhraseProgress(unmet - saved, in_phrase, in_spelling)

    def next_tokens(self, progress: PhraseProgress) -> set[int]:
        """Return the tokens that begin or go on with a spelling of a phrase not yet met."""
        found: set[int] = set()
        for spelling, state in zip(self._spellings, progress.in_spelling, strict=True):
            if progress.in_phrase[spelling.phrase] >= 0:
                found.update((spelling.token_ids[0], spelling.token_ids[state]))
        return found

    def all_in(self, text: str) -> bool:
        """Tell whether a text includes all phrases."""
        return all(phrase in text for phrase in self.phrases)

    def _after_bytes(self, index: int, state: int, data: bytes) -> int:
        phrase, failures = self._bytes[index], self._byte_failures[index]
        for byte in data:
            state = advance_match(phrase, failures, state, byte)
            if state == len(phrase):
                return -1
        return state


def spellings(phrase: str, tokenizer: Tokenizer) -> list[tuple[int, ...]]:
    """Return the usual ways to spell a phrase in tokens: with and without a space in front.

    Args:
        phrase: A text without white space around it.
        tokenizer: Spells it.

    Raises:
        ConfigError: There is none.
    """
    wanted = phrase.encode()
    found: dict[tuple[int, ...], None] = {}
    for context in _CONTEXTS:
        ids = tokenizer.encode(context + phrase)
        data = b""
        for start in range(len(ids) - 1, -1, -1):
            if not 0 <= ids[start] < tokenizer.vocab_size:
                break
            data = tokenizer.token_bytes(ids[start]) + data
            if data in (wanted, b" " + wanted):
                found[tuple(ids[start:])] = None
    if not found:
        raise ConfigError(f"must_include holds {phrase!r}, which this model's tokenizer cannot spell. Leave it out.")
    return list(found)


def share_beam(k: int, sizes: Sequence[int]) -> list[int]:
    """Share the places of a beam among banks.

    Each bank gets the same number, the last one (hypotheses that have met all) what is left over. Places that a bank
    has no candidates for go to the next one below, and from the first one up again.

    Args:
        k: Places.
        sizes: Candidates in each bank, from the least progress to the most; at least one bank.

    Returns:
        Places of each bank, none above its size; together `k`, or fewer where there are fewer candidates.
    """
    places = [k // len(sizes)] * len(sizes)
    places[-1] += k % len(sizes)
    spare = 0
    for down in (True, False):
        for bank in sorted(range(len(sizes)), reverse=down):
            offered = places[bank] + spare
            places[bank] = min(offered, sizes[bank])
            spare = offered - places[bank]
    return places


def advance_match(pattern: Sequence[int], failures: Sequence[int], state: int, symbol: int) -> int:
    """Advance a Knuth-Morris-Pratt automaton: how much of `pattern` the sequence ends with after `symbol`."""
    if state == len(pattern):
        state = failures[state - 1]
    while state and pattern[state] != symbol:
        state = failures[state - 1]
    return state + 1 if pattern[state] == symbol else state
