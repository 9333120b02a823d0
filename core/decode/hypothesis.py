"""A text while it grows, in whatever way it is decoded: its tokens, its conditions, and when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nlpkit.core.decode.guide import Guide, start_guide
from nlpkit.core.decode.processors import needs_processing
from nlpkit.core.decode.request import Completion, FinishReason, Request
from nlpkit.core.tokenizers.stream import StopMatcher, StreamDecoder, decode_behind

if TYPE_CHECKING:
    from nlpkit.core.decode.config import DecodeConfig
    from nlpkit.core.decode.special_ids import SpecialIds
    from nlpkit.core.decode.stops import StopState
    from nlpkit.core.decode.strategies.lexical import PhraseProgress
    from nlpkit.core.tokenizers.tokenizer import Tokenizer


@dataclass(eq=False)
class Hypothesis:
    """A text in progress.

    Those of sampling grow in place (`append`); those of a search are replaced by longer ones (`fork`).

    Attributes:
        key: The number of its request in the loop, and which of the request's texts it is.
        request: The request.
        tokenizer: Turns ids into text.
        special: Ids that end a text, and those that none may hold.
        watch_text: Decode text step by step, also where there are no stop strings to look for.
        slot: Where its tokens lie in the cache; that of the text which it goes on from, until slots were moved.
        token_ids: Generated ids; all but the newest are in the cache.
        logprobs: Log-probability of each under the model's distribution, in nats.
        top_logprobs: For each id the likeliest alternatives, where they are wanted.
        total: Summed log-probability under the processed distribution, by which beams are ranked.
        finish_reason: Why it ended, or None while it grows.
        guide: How far it has come in its constraint, or None without one.
        progress: How far a beam has come with the phrases that it must include, or None without any.
        stops: How much of each stop string a beam ends with.
        seed: Seed of its sampler, or None.
        is_processed: As `needs_processing` says of its request.
    """

    key: tuple[int, int]
    request: Request
    tokenizer: Tokenizer
    special: SpecialIds
    watch_text: bool = False
    slot: int = -1
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    total: float = 0.0
    finish_reason: FinishReason | None = None
    guide: Guide | None = None
    progress: PhraseProgress | None = None
    stops: StopState | None = None
    _writer: _Writer | None = None
    _completion: Completion | None = None

    def __post_init__(self) -> None:
        config = self.request.config
        self.seed = config.seed if config.temperature > 0 else None
        self.is_processed = needs_processing(self.request)
        if config.constraint is not None:
            self.guide = start_guide(config.constraint, self.tokenizer, prompt_ids=self.request.prompt_ids)
        if self.watch_text or config.stop:
            self._writer = _Writer(self.tokenizer, self.request.prompt_ids, config.stop)

    @property
    def config(self) -> DecodeConfig:
        """The request's decoding options."""
        return self.request.config

    @property
    def length(self) -> int:
        """Tokens of prompt and text whose keys and values are cached: all but the newest."""
        return len(self.request.prompt_ids) + len(self.token_ids) - 1

    @property
    def keeps_conditions(self) -> bool:
        """Whether it satisfies its constraint (which then let it end) and includes what it must."""
        whole = self.guide is None or self.finish_reason == "eos"
        return whole and (self.progress is None or not self.progress.remaining)

    def score(self, length_penalty: float) -> float:
        """Return ``total / length ** length_penalty``."""
        return self.total / float(max(1, len(self.token_ids)) ** length_penalty)

    def ends_with(self, token_id: int) -> bool:
        """Tell whether a token would end the text."""
        return token_id in (self.special.stops if self.config.ignore_eos else self.special.ends)

    def append(self, token_id: int, logprob: float) -> str:
        """Take the next token.

        Args:
            token_id: The id.
            logprob: Its raw log-probability, in nats.

        Returns:
            Text that is final now (always empty for one that does not watch its text).
        """
        self.token_ids.append(token_id)
        self.logprobs.append(logprob)
        text = ""
        ends = self.ends_with(token_id)
        if self.guide is not None and not ends:
            self.guide.accept(token_id)
        if ends:
            self.finish_reason = "stop" if token_id in self.special.stops else "eos"
        elif self._writer is not None:
            text = self._writer.feed(token_id, may_stop=len(self.token_ids) > self.config.min_tokens)
            if self._writer.stopped:
                self.finish_reason = "stop"
        if self.finish_reason is None and len(self.token_ids) >= self.config.max_tokens:
            self.finish_reason = "length"
        if self.finish_reason in ("eos", "length") and self._writer is not None:
            text += self._writer.flush()
            if self._writer.stopped:
                self.finish_reason = "stop"
        return text

    def fork(self, token_id: int, logprob: float = 0.0) -> Hypothesis:
        """Return the text with one more token; this one stays as it is, and conditions are left to the caller."""
        # As `copy.copy` does, in a fraction of its time.
        grown = object.__new__(Hypothesis)
        grown.__dict__.update(self.__dict__)
        grown.token_ids = [*self.token_ids, token_id]
        grown.logprobs = [*self.logprobs, logprob]
        grown._writer = None
        return grown

    def completion(self) -> Completion:
        """Return the finished completion; made once."""
        if self._completion is None:
            reason: FinishReason = self.finish_reason or "length"
            # The end is no text, even where the vocabulary does not mark it as special.
            written = self.token_ids[:-1] if reason == "eos" else self.token_ids
            writer = self._writer
            if writer is None and self.config.stop:
                writer = _Writer(self.tokenizer, self.request.prompt_ids, self.config.stop)
                for count, token_id in enumerate(written, 1):
                    writer.feed(token_id, may_stop=count > self.config.min_tokens)
                if not writer.stopped:
                    writer.flush()
                reason = "stop" if writer.stopped else reason
            self._completion = Completion(
                text=self._decode(written) if writer is None else writer.text,
                token_ids=tuple(self.token_ids),
                logprobs=tuple(self.logprobs),
                top_logprobs=tuple(self.top_logprobs),
                finish_reason=reason,
                index=self.key[1],
                seed=self.seed,
            )
        return self._completion

    def _decode(self, token_ids: Sequence[int]) -> str:
        return decode_behind(self.tokenizer, self.request.prompt_ids, token_ids)


class _Writer:
    """Text as it becomes final, up to the first stop string.

    Attributes:
        stopped: Whether a stop string was found.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int], stops: Sequence[str]) -> None:
        self.stopped = False
        self._decoder = StreamDecoder(tokenizer, prompt_ids=prompt_ids)
        self._stops = StopMatcher(stops) if stops else None
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self._pieces)

    def feed(self, token_id: int, *, may_stop: bool) -> str:
        """Take a token; return the text that is final now."""
        text = self._decoder.feed(token_id)
        if self._stops is not None:
            text, self.stopped = self._stops.feed(text, may_end=may_stop)
        self._pieces.append(text)
        return text

    def flush(self) -> str:
        """End the text; return the rest of it."""
        rest = self._decoder.flush()
        if self._stops is not None:
            rest, self.stopped = self._stops.feed(rest)
            if not self.stopped:
                rest += self._stops.flush()
        self._pieces.append(rest)
        return rest
