"""What goes into the engine and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from nlpkit.core.decode.config import DecodeConfig

if TYPE_CHECKING:
    from torch import Tensor

TokenFilter = Callable[[Sequence[int]], "Tensor"]
"""Maps the ids generated so far to a bool mask of the tokens allowed next, shape ``(vocab_size,)``."""

FinishReason = Literal["eos", "stop", "length"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One prompt to complete.

    Attributes:
        prompt_ids: Token ids of the prompt, at least one.
        config: How to decode.
        token_filter: Restricts the next token, step by step (a grammar); None allows all.
    """

    prompt_ids: tuple[int, ...]
    config: DecodeConfig = field(default_factory=DecodeConfig)
    token_filter: TokenFilter | None = None


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One generated text.

    Attributes:
        text: Decoded text, without the stop string that ended it and without special tokens.
        token_ids: All generated ids, the ending EOS included where there is one.
        logprobs: Log-probability of each id under the raw model distribution (before any processor), in nats.
        top_logprobs: For each id the most likely alternatives ``(token id, log-probability)``, best first; empty
            unless asked for.
        finish_reason: ``eos``, ``stop`` (a stop string matched) or ``length``.
        index: Which of the request's ``n`` completions this is.
        seed: Seed of the sampler, or None for greedy and beam search.
        score: Beam search's ranking score; None otherwise.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = ()
    finish_reason: FinishReason
    index: int = 0
    seed: int | None = None
    score: float | None = None

    @property
    def n_tokens(self) -> int:
        """Number of generated tokens, the ending EOS included."""
        return len(self.token_ids)

    @property
    def logprob(self) -> float:
        """Sum of `logprobs`, in nats."""
        return float(sum(self.logprobs))

    @property
    def mean_logprob(self) -> float:
        """Mean of `logprobs`, in nats a token: how sure the model was on the whole; 0 without tokens."""
        return self.logprob / len(self.logprobs) if self.logprobs else 0.0

    @property
    def min_logprob(self) -> float:
        """Smallest of `logprobs`, in nats: how sure the model was where it was least so; 0 without tokens."""
        return min(self.logprobs, default=0.0)


@dataclass(frozen=True, kw_only=True)
class Generation:
    """All completions of one request, best or first first.

    Attributes:
        completions: ``config.n`` completions.
        prompt_tokens: Length of the prompt.
        seconds: From admission to the last completion.
    """

    completions: tuple[Completion, ...]
    prompt_tokens: int
    seconds: float = 0.0

    @property
    def completion_tokens(self) -> int:
        """Generated tokens over all completions."""
        return sum(len(completion.token_ids) for completion in self.completions)


@dataclass(frozen=True, kw_only=True)
class TokenEvent:
    """One step of a streamed request.

    Attributes:
        text: Text that is now final; may be empty while bytes or a possible stop string are held back.
        token_id: The token of this step, or None in an event that only flushes text.
        index: Which of the request's ``n`` completions it belongs to.
        completion: The whole completion, in the last event only.
    """

    text: str
    index: int = 0
    token_id: int | None = None
    completion: Completion | None = None


@dataclass(frozen=True, kw_only=True)
class Score:
    """Log-likelihood of a continuation.

    Attributes:
        logprob: Sum over the continuation's tokens, in nats.
        token_logprobs: One per token of the continuation.
        is_greedy: Whether each token was the most likely one.
    """

    logprob: float
    token_logprobs: tuple[float, ...]
    is_greedy: bool
