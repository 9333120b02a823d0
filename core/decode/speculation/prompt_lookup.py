"""Drafters: what guesses how a text goes on, for speculation to verify."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nlpkit.core.decode.speculation.drafter import Draft, Sought

_FEW = 8
"""New tokens below which entering them one by one is quicker than all at once."""


@dataclass
class _Index:
    """The last place of each short n-gram of one sequence.

    Attributes:
        tokens: The sequence so far.
        n_prompt: Length of its prompt.
        places: For n = 1, 2, ...: where the token after the last occurrence of each n-gram is.
    """

    tokens: list[int]
    n_prompt: int
    places: list[dict[tuple[int, ...], int]]


class PromptLookup:
    """Guesses that text goes on as after the last occurrence of its end (prompt lookup, Saxena 2023).

    The occurrence may lie in the prompt or in the text itself. The longest n-gram that occurs decides; a draft's kind
    is its length. Where the occurrence reaches into the end, the guess is that the text repeats itself.
    """

    costly = False

    def __init__(self, *, longest: int = 3) -> None:
        """Set up a drafter.

        Args:
            longest: Tokens of the longest n-gram to look up.
        """
        self._longest = longest
        self._indices: dict[tuple[int, int], _Index] = {}

    def draft(self, sought: Sequence[Sought]) -> list[Draft]:
        """Guess; see `Drafter.draft`."""
        return [self._one(wanted) for wanted in sought]

    def drop(self, key: tuple[int, int]) -> None:
        """Forget a sequence."""
        self._indices.pop(key, None)

    def _one(self, wanted: Sought) -> Draft:
        index = self._indices.get(wanted.key)
        if index is None:
            index = _Index(list(wanted.prompt_ids), len(wanted.prompt_ids), [{} for _ in range(self._longest)])
            self._indices[wanted.key] = index
            self._add(index, 0)
        tokens, known = index.tokens, len(index.tokens)
        tokens.extend(wanted.token_ids[known - index.n_prompt :])
        self._add(index, known)
        end = len(tokens)
        for n in range(min(self._longest, end), 0, -1):
            place = index.places[n - 1].get(tuple(tokens[end - n :]))
            if place is not None:
                guess = tokens[place : place + wanted.most]
                while len(guess) < wanted.most:
                    guess.append(guess[len(guess) - (end - place)])
                return Draft(guess, kind=n)
        return Draft(())

    @staticmethod
    def _add(index: _Index, known: int) -> None:
        """Enter the n-grams that have a token after them since the sequence had `known` tokens."""
        tokens = index.tokens
        if len(tokens) - known < _FEW:
            for end in range(known, len(tokens)):
                for n, places in enumerate(index.places[:end], 1):
                    places[tuple(tokens[end - n : end])] = end
            return
        for n, places in enumerate(index.places, 1):
            # An n-gram that ended at the old end has only now got a token after it.
            first = max(n, known)
            if first >= len(tokens):
                continue
            starts = [tokens[first - n + i : len(tokens) - n + i] for i in range(n)]
            places.update(zip(zip(*starts, strict=True), range(first, len(tokens)), strict=True))
