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
        offset: Characters that stand before the first token.
    """

    def __init__(self, tokenizer: Tokenizer, *, offset: int = 0) -> None:
        self._decoder = StreamDecoder(tokenizer)
        self._offset = offset

    def next(self, token_id: int) -> int:
        """Take a token; return where it begins."""
        begins = self._offset
        self._offset += len(self._decoder.feed(token_id))
        return begins


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
