"""One completion while it grows: its tokens, its text, and when it ends."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nlpkit.core.decode import processors
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.guide import start_guide
from nlpkit.core.decode.request import Completion, FinishReason, Request
from nlpkit.core.decode.special_ids import SpecialIds
from nlpkit.core.errors import ConfigError
from nlpkit.core.tokenizers.stream import StopMatcher, StreamDecoder

if TYPE_CHECKING:
    from torch import Tensor

    from nlpkit.core.tokenizers.base import Tokenizer


def draw_seed() -> int:
    """Return a fresh random seed."""
    return secrets.randbits(63)


def needs_processing(request: Request) -> bool:
    """Tell whether the logits must go through `process`; for bans alone `SpecialIds.banned` is enough."""
    config = request.config
    return bool(
        config.logit_bias
        or config.constraint is not None
        or request.token_filter is not None
        or config.repetition_penalty != 1.0
        or config.frequency_penalty
        or config.presence_penalty
        or config.no_repeat_ngram
    )


def process(
    logits: Tensor, request: Request, generated: Sequence[int], special: SpecialIds, *, allowed: Tensor | None = None
) -> Tensor:
    """Apply the processors that precede temperature, in their documented order.

    The n-gram ban and the minimum length give way where they would leave no token at all.

    Args:
        logits: fp32, shape ``(vocab_size,)``; not changed.
        request: Whose settings to use.
        generated: Ids generated so far.
        special: Ids that end a text, and those that none may hold.
        allowed: Bool mask of the tokens that the request's constraint allows, shape ``(vocab_size,)``.

    Returns:
        Shape ``(vocab_size,)``.

    Raises:
        ConfigError: Biases, constraint and token filter together allow no token.
    """
    config = request.config
    if config.logit_bias:
        logits = processors.add_bias(logits, config.logit_bias)
    # A constraint says itself which special tokens may stand in the text.
    banned = special.control.difference(config.logit_bias) if allowed is None else frozenset()
    banned |= special.ends if config.ignore_eos else frozenset()
    if banned:
        logits = processors.ban(logits, sorted(banned))
    if request.token_filter is not None:
        logits = processors.allow_only(logits, request.token_filter(generated))
    if allowed is not None:
        logits = processors.allow_only(logits, allowed)
    if (config.logit_bias or request.token_filter is not None or allowed is not None) and not _any_left(logits):
        raise ConfigError(
            "The logit biases, the constraint and the token filter together leave no token to generate. Allow at "
            "least one."
        )
    if config.repetition_penalty != 1.0:
        seen = [*request.prompt_ids, *generated]
        logits = processors.penalize_repetition(logits, seen, config.repetition_penalty)
    if generated and (config.frequency_penalty or config.presence_penalty):
        logits = processors.penalize_counts(
            logits, Counter(generated), frequency=config.frequency_penalty, presence=config.presence_penalty
        )
    if config.no_repeat_ngram:
        ends = processors.repeated_ngram_ends(generated, config.no_repeat_ngram)
        if ends:
            logits = _ban_unless_last(logits, ends)
    if len(generated) < config.min_tokens and special.ends:
        logits = _ban_unless_last(logits, sorted(special.ends))
    return logits


def _any_left(logits: Tensor) -> bool:
    return bool((logits > processors.NEVER).any())


def _ban_unless_last(logits: Tensor, token_ids: Sequence[int]) -> Tensor:
    banned = processors.ban(logits, token_ids)
    return banned if _any_left(banned) else logits


@dataclass
class Row:
    """A completion in progress.

    Attributes:
        ticket: The scheduler's number for the request.
        index: Which of the request's ``n`` completions it is.
        request: The request.
        tokenizer: Turns its ids into text.
        watch_text: Decode text step by step (streaming or stop strings) instead of once at the end.
        started: When the request was admitted, on the clock of `time.perf_counter`.
        keep: How many of its first tokens are worth keeping for later requests; None is all.
        guide: How far it has come in its constraint, or None without one.
        is_processed: As `needs_processing` says of its request.
    """

    ticket: int
    index: int
    request: Request
    tokenizer: Tokenizer
    watch_text: bool
    started: float = 0.0
    keep: int | None = None
    seed: int | None = None
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def __post_init__(self) -> None:
        config = self.config
        if config.temperature > 0:
            self.seed = config.seed if config.seed is not None else draw_seed()
        self.watch_text = self.watch_text or bool(config.stop)
        self._decoder = StreamDecoder(self.tokenizer) if self.watch_text else None
        self._stops = StopMatcher(config.stop) if config.stop else None
        self._pieces: list[str] = []
        self.guide = start_guide(config.constraint, self.tokenizer) if config.constraint is not None else None
        self.is_processed = needs_processing(self.request)

    @property
    def key(self) -> tuple[int, int]:
        """Names the row within its schedule."""
        return self.ticket, self.index

    @property
    def config(self) -> DecodeConfig:
        """The request's decoding options."""
        return self.request.config

    @property
    def length(self) -> int:
        """Tokens of the row whose keys and values are cached: all but the newest."""
        return len(self.request.prompt_ids) + len(self.token_ids) - 1

    def append(self, token_id: int, logprob: float, eos_ids: frozenset[int]) -> str:
        """Take the next token.

        Args:
            token_id: The id.
            logprob: Its raw log-probability, in nats.
            eos_ids: Ids that end the text.

        Returns:
            Text that is final now (always empty for a row that does not watch its text).
        """
        self.token_ids.append(token_id)
        self.logprobs.append(logprob)
        text = ""
        ends = token_id in eos_ids and not self.config.ignore_eos
        if self.guide is not None and not ends:
            self.guide.accept(token_id)
        if ends:
            self.finish_reason = "eos"
        elif self._decoder is not None:
            text = self._decoder.feed(token_id)
            if self._stops is not None:
                text, matched = self._stops.feed(text, may_end=len(self.token_ids) > self.config.min_tokens)
                if matched:
                    self.finish_reason = "stop"
        if self.finish_reason is None and len(self.token_ids) >= self.config.max_tokens:
            self.finish_reason = "length"
        if self.finish_reason in ("eos", "length"):
            text += self._flush()
        if text:
            self._pieces.append(text)
        return text

    def end(self, reason: FinishReason) -> None:
        """End the text here, if it has not ended."""
        if self.finish_reason is None:
            self.finish_reason = reason
            self._pieces.append(self._flush())

    def _flush(self) -> str:
        if self._decoder is None:
            return ""
        rest = self._decoder.flush()
        if self._stops is not None:
            safe, matched = self._stops.feed(rest)
            if matched:
                self.finish_reason = "stop"
                return safe
            rest = safe + self._stops.flush()
        return rest

    def completion(self) -> Completion:
        """Return the finished completion."""
        ended = self.finish_reason or "length"
        watched = self._decoder is not None
        # The end is no text, even where the vocabulary does not mark it as special.
        written = self.token_ids[:-1] if ended == "eos" else self.token_ids
        text = "".join(self._pieces) if watched else self.tokenizer.decode(written)
        return Completion(
            text=text,
            token_ids=tuple(self.token_ids),
            logprobs=tuple(self.logprobs),
            top_logprobs=tuple(self.top_logprobs),
            finish_reason=ended,
            index=self.index,
            seed=self.seed,
        )
