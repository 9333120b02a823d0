"""Streaming: text as soon as it is final, never earlier.

A token is bytes, not characters: an emoji can be spread over four tokens. `StreamDecoder` holds back what is
no whole character yet, `StopMatcher` what may turn out to be the beginning of a stop string.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from nlpkit.core.errors import ConfigError
from nlpkit.core.tokenizers.tokenizer import Tokenizer, begins_anew, drops_space


class StreamDecoder:
    """Decodes one completion token by token.

    All texts that `feed` and `flush` return, joined, are exactly what the ids add to the text of the prompt; without
    a prompt, ``tokenizer.decode(all ids)``. U+FFFD appears only for bytes that no later token can complete. Tokenizers
    whose text is not the joined bytes of the tokens (WordPiece) are decoded in `flush` at one go.

    Args:
        tokenizer: Decides the text.
        prompt_ids: Ids that come before the first one fed, whose text is not wanted: a completion that continues
            a text keeps its first space then (SentencePiece drops it only at the very start).
    """

    def __init__(self, tokenizer: Tokenizer, *, prompt_ids: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._concatenative = bool(getattr(tokenizer, "is_concatenative", True))
        self._prompt_ids = tuple(prompt_ids)
        self._ids: list[int] = []
        self._at_start = True

    def feed(self, token_id: int) -> str:
        """Take one token.

        Args:
            token_id: The next id of the completion.

        Returns:
            The text that is final now; often empty, sometimes more than this token's own.
        """
        if not self._concatenative:
            self._ids.append(token_id)
            return ""
        data = self._tokenizer.token_bytes(token_id)
        if data and self._at_start:
            self._at_start = False
            if drops_space(self._tokenizer, token_id) and begins_anew(self._tokenizer, self._prompt_ids):
                data = data[1:]
        return self._utf8.decode(data)

    def flush(self) -> str:
        """End the stream.

        Returns:
            The rest of the text; U+FFFD for a character that was never completed.
        """
        if not self._concatenative:
            ids, self._ids = self._ids, []
            before, whole = self._tokenizer.decode(self._prompt_ids), self._tokenizer.decode([*self._prompt_ids, *ids])
            return whole[len(before) :] if whole.startswith(before) else self._tokenizer.decode(ids)
        return self._utf8.decode(b"", final=True)


class StopMatcher:
    """Finds the first of several stop strings in a text that arrives in pieces of any size.

    What is returned never contains a stop string or anything behind it, and holds back only the longest end
    of the text that is the beginning of some stop. The result does not depend on how the text was cut: the
    stop whose end comes first wins, and among those that end together the longest.

    Args:
        stops: Stop strings, none empty.

    Raises:
        ConfigError: A stop string is empty.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if any(not stop for stop in stops):
            raise ConfigError("A stop string is empty; it would stop before the first character. Leave it out.")
        self._stops = tuple(dict.fromkeys(stops))
        self._failures = tuple(failure_table(stop) for stop in self._stops)
        self._states = [0] * len(self._stops)
        self._held = ""
        self.matched: str | None = None
        """The stop string that was found, once one was."""

    def feed(self, text: str, *, may_end: bool = True) -> tuple[str, bool]:
        """Take the next piece of text.

        Args:
            text: Any string, also an empty one.
            may_end: Whether a stop string that ends in this piece counts; one that does not is text like any other.

        Returns:
            The text that is safe to show now, and whether a stop string was found. After a match everything
            else is swallowed.
        """
        if self.matched is not None:
            return "", True
        buffer = self._held + text
        for offset, char in enumerate(text, start=len(self._held) + 1):
            ended = [k for k in range(len(self._stops)) if self._advance(k, char)]
            if ended and not may_end:
                for k in ended:
                    self._states[k] = self._failures[k][-1]
            elif ended:
                self.matched = max((self._stops[k] for k in ended), key=len)
                self._held = ""
                return buffer[: offset - len(self.matched)], True
        keep = max(self._states, default=0)
        safe, self._held = buffer[: len(buffer) - keep], buffer[len(buffer) - keep :]
        return safe, False

    def flush(self) -> str:
        """End the text.

        Returns:
            What was held back and turned out to be no stop string.
        """
        held, self._held = self._held, ""
        self._states = [0] * len(self._stops)
        return held

    def _advance(self, index: int, char: str) -> bool:
        # Knuth-Morris-Pratt: the state is the length of the longest prefix of the stop that the text ends
        # with, so one character costs amortised constant time and exactly that many characters need to be
        # held back.
        stop, failures = self._stops[index], self._failures[index]
        state = self._states[index]
        while state and stop[state] != char:
            state = failures[state - 1]
        if stop[state] == char:
            state += 1
        self._states[index] = state
        return state == len(stop)


def decode_behind(tokenizer: Tokenizer, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> str:
    """Return the text that tokens add to a prompt's, special tokens left out.

    Args:
        tokenizer: The tokenizer.
        prompt_ids: The prompt.
        token_ids: What follows it.
    """
    decoder = StreamDecoder(tokenizer, prompt_ids=prompt_ids)
    return "".join([*map(decoder.feed, token_ids), decoder.flush()])


def failure_table(pattern: Sequence[object]) -> list[int]:
    """Return for each prefix of `pattern` the length of its longest proper border (Knuth, Morris and Pratt 1977)."""
    table = [0] * len(pattern)
    state = 0
    for i in range(1, len(pattern)):
        while state and pattern[state] != pattern[i]:
            state = table[state - 1]
        if pattern[state] == pattern[i]:
            state += 1
        table[i] = state
    return table
