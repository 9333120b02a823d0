"""Stop strings of hypotheses: found as each token comes, however many hypotheses go on from the same beginning.

What is kept of a text is how much of each stop string it ends with, so a hypothesis costs no more than its newest
token. Tokens are matched by their bytes: no character of UTF-8 begins inside another, so that is the same as matching
the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from nlpkit.core.decode.strategies.lexical import advance_match
from nlpkit.core.tokenizers.stream import decode_behind, failure_table
from nlpkit.core.tokenizers.tokenizer import begins_anew, drops_space

if TYPE_CHECKING:
    from nlpkit.core.tokenizers.tokenizer import Tokenizer

StopState: TypeAlias = tuple[int, ...]
"""For each stop string, with how many of its bytes a text ends; None stands for a text without bytes yet. Of tokenizers
whose text is not the joined bytes of its tokens: all ids."""


class StopStates:
    """Looks for the stop strings of one request in any number of texts."""

    def __init__(self, stops: Sequence[str], tokenizer: Tokenizer, *, prompt_ids: Sequence[int] = ()) -> None:
        """Set up the search.

        Args:
            stops: None of them empty.
            tokenizer: Turns ids into bytes.
            prompt_ids: What the texts continue.
        """
        self._tokenizer = tokenizer
        self._prompt_ids = prompt_ids
        self._stops = tuple(dict.fromkeys(stops))
        self._patterns = tuple(stop.encode() for stop in self._stops)
        self._failures = tuple(tuple(failure_table(pattern)) for pattern in self._patterns)
        self._joins = bool(getattr(tokenizer, "is_concatenative", True))
        self._known: dict[tuple[StopState | None, int], tuple[StopState | None, bool]] = {}

    def after(self, state: StopState | None, token_id: int) -> tuple[StopState | None, bool]:
        """Take one more token.

        Args:
            state: Of the text so far; None at its beginning.
            token_id: The token.

        Returns:
            The state behind it, and whether a stop string ends within the token.
        """
        known = self._known.get((state, token_id))
        if known is None:
            known = self._known[state, token_id] = self._after(state, token_id)
        return known

    def _after(self, state: StopState | None, token_id: int) -> tuple[StopState | None, bool]:
        if not self._joins:
            ids = (*(state or ()), token_id)
            text = decode_behind(self._tokenizer, self._prompt_ids, ids)
            return ids, any(stop in text for stop in self._stops)
        data = self._tokenizer.token_bytes(token_id)
        if state is None:
            if not data:
                return None, False
            if drops_space(self._tokenizer, token_id) and begins_anew(self._tokenizer, self._prompt_ids):
                data = data[1:]
            state = (0,) * len(self._patterns)
        found = False
        after = []
        for pattern, failures, matched in zip(self._patterns, self._failures, state, strict=True):
            for byte in data:
                matched = advance_match(pattern, failures, matched, byte)
                found |= matched == len(pattern)
            after.append(matched)
        return tuple(after), found
