"""Tokens as the interface shows them: their text, where it stands, and their log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nlpkit.core.tokenizers.stream import StreamDecoder

if TYPE_CHECKING:
    from nlpkit.core.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class ShownToken:
    """A token and what the model thought of it.

    Attributes:
        token_id: The id.
        logprob: Its log-probability in nats; None for a prompt's first token, which nothing stands before.
        alternatives: The likeliest ids at its place and their log-probabilities.
    """

    token_id: int
    logprob: float | None
    alternatives: tuple[tuple[int, float], ...] = ()


def token_text(tokenizer: Tokenizer, token_id: int) -> str:
    r"""Return a token's text; parts of characters as ``bytes:\xe2``, a special token as it is spelled."""
    data = tokenizer.token_bytes(token_id)
    if not data:
        return tokenizer.decode([token_id], skip_special=False)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


class TokenPlaces:
    """Says at which character of a text each token begins, as they come; one inside a character begins where that does.

    Args:
        tokenizer: Turns ids into text.
        prompt_ids: What stands before the first token and is not counted; some tokenizers take a space off the front
            of a text that nothing stands before.
        offset: Characters that stand before the first token.
    """

    def __init__(self, tokenizer: Tokenizer, *, prompt_ids: Sequence[int] = (), offset: int = 0) -> None:
        self._decoder = StreamDecoder(tokenizer, prompt_ids=prompt_ids)
        self._offset = offset

    def next(self, token_id: int) -> int:
        """Take a token; return where it begins."""
        begins = self._offset
        self._offset += len(self._decoder.feed(token_id))
        return begins


class GrowingTokens:
    """The tokens of one text as it grows: which of them belong to what is shown of it.

    Args:
        tokenizer: Turns ids into text.
        prompt_ids: What the text continues.
        wanted: Whether anybody wants to be told of them.
        offset: Characters that are shown before the text.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int], *, wanted: bool, offset: int = 0) -> None:
        self._places = TokenPlaces(tokenizer, prompt_ids=prompt_ids, offset=offset)
        self._wanted = wanted
        self._length = offset
        self._pending: list[tuple[ShownToken, int]] = []

    def add(self, token: ShownToken) -> None:
        """Take a token whose text may not be shown yet."""
        if self._wanted:
            self._pending.append((token, self._places.next(token.token_id)))

    def take(self, text: str, *, everything: bool = False) -> list[tuple[ShownToken, int]]:
        """Return the tokens that begin in text that is new, each with its place.

        Args:
            text: The text.
            everything: Return all others as well: nothing more comes.
        """
        self._length += len(text)
        ready = [one for one in self._pending if everything or one[1] < self._length]
        self._pending = self._pending[len(ready) :]
        return ready


def completion_logprobs(tokenizer: Tokenizer, tokens: Sequence[tuple[ShownToken, int]]) -> dict[str, Any]:
    """Return the object ``logprobs`` of a completion: four lists of the same length.

    Args:
        tokenizer: Turns ids into text.
        tokens: Each token and where it begins.
    """
    return {
        "tokens": [token_text(tokenizer, token.token_id) for token, _ in tokens],
        "token_logprobs": [token.logprob for token, _ in tokens],
        "top_logprobs": [_top(tokenizer, token) for token, _ in tokens],
        "text_offset": [place for _, place in tokens],
    }


def _top(tokenizer: Tokenizer, token: ShownToken) -> dict[str, float] | None:
    if token.logprob is None:
        return None
    # The likeliest first; the token itself is always among them. Where two are spelled alike the likelier one stays.
    top: dict[str, float] = {}
    for token_id, logprob in (*token.alternatives, (token.token_id, token.logprob)):
        top.setdefault(token_text(tokenizer, token_id), logprob)
    return top


def chat_logprobs(tokenizer: Tokenizer, tokens: Sequence[ShownToken]) -> dict[str, Any]:
    """Return the object ``logprobs`` of a chat completion."""
    content = []
    for token in tokens:
        top = [_chat_token(tokenizer, token_id, logprob) for token_id, logprob in token.alternatives]
        content.append(_chat_token(tokenizer, token.token_id, token.logprob or 0.0) | {"top_logprobs": top})
    return {"content": content, "refusal": None}


def _chat_token(tokenizer: Tokenizer, token_id: int, logprob: float) -> dict[str, Any]:
    data = tokenizer.token_bytes(token_id)
    return {"token": token_text(tokenizer, token_id), "logprob": logprob, "bytes": list(data)}
