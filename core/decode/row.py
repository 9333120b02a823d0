"""One completion while it grows: its tokens, its text, and when it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.guide import start_guide
from nlpkit.core.decode.processors import needs_processing
from nlpkit.core.decode.request import Completion, FinishReason, Request
from nlpkit.core.decode.sampler import draw_seed
from nlpkit.core.tokenizers.stream import StopMatcher, StreamDecoder

if TYPE_CHECKING:
    from nlpkit.core.tokenizers.tokenizer import Tokenizer


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
