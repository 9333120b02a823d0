"""`DecodeConfig`: every option of decoding, validated once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nlpkit.core.errors import ConfigError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """How to turn logits into text. The same object is stored in every run record.

    Penalties follow the OpenAI completions reference: ``logit[j] -= count[j] * frequency_penalty +
    (count[j] > 0) * presence_penalty``, where ``count`` is over generated tokens only. `repetition_penalty` is CTRL's
    (arXiv:1909.05858), over prompt and generated tokens. The processors run in the order documented in
    `nlpkit.core.decode.processors`.

    Attributes:
        max_tokens: Most tokens to generate, at least 0.
        min_tokens: Tokens to generate before an end-of-sequence token or a stop string may end the text.
        temperature: 0 is greedy (argmax); otherwise logits are divided by it.
        top_k: Keep the k most likely tokens; 0 is off.
        top_p: Nucleus sampling (arXiv:1904.09751); 1 is off.
        min_p: Drop tokens less likely than ``min_p`` times the most likely one; 0 is off.
        typical_p: Locally typical sampling (arXiv:2202.00666); 1 is off.
        repetition_penalty: CTRL penalty; 1 is off.
        frequency_penalty: -2 to 2; 0 is off.
        presence_penalty: -2 to 2; 0 is off.
        no_repeat_ngram: Never generate the same n-gram twice; 0 is off.
        logit_bias: Added to the raw logits, token id to value; -100 or less bans the token.
        stop: Strings that end the text; the returned text does not contain them.
        ignore_eos: Treat end-of-sequence tokens as banned, so only length and stop strings end the text.
        seed: Seeds the sampler of this request; None draws one, which the result reports.
        n: Completions per prompt.
        beam_size: 1 is no beam search.
        length_penalty: Beam hypotheses are ranked by ``log p / length ** length_penalty``.
        logprobs: Report this many most likely alternatives per token; None reports none.
    """

    max_tokens: int = 256
    min_tokens: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    no_repeat_ngram: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    seed: int | None = None
    n: int = 1
    beam_size: int = 1
    length_penalty: float = 1.0
    logprobs: int | None = None

    def __post_init__(self) -> None:
        whole = {
            "max_tokens": (0, 10_000_000),
            "min_tokens": (0, 10_000_000),
            "top_k": (0, 10_000_000),
            "no_repeat_ngram": (0, 1_000),
            "n": (1, 128),
            "beam_size": (1, 1_024),
        }
        for name, (low, high) in whole.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ConfigError(f"{name} is {value!r}; it must be a whole number from {low} to {high:,}.")
        real = {
            "temperature": (0.0, 100.0),
            "top_p": (0.0, 1.0),
            "min_p": (0.0, 1.0),
            "typical_p": (0.0, 1.0),
            "repetition_penalty": (0.01, 100.0),
            "frequency_penalty": (-2.0, 2.0),
            "presence_penalty": (-2.0, 2.0),
            "length_penalty": (-10.0, 10.0),
        }
        for name, (lowest, highest) in real.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ConfigError(f"{name} is {value!r}; it must be a number from {lowest:g} to {highest:g}.")
            if not lowest <= value <= highest:
                raise ConfigError(f"{name} is {value:g}; it must be from {lowest:g} to {highest:g}.")
        if self.logprobs is not None and not 0 <= self.logprobs <= 100:
            raise ConfigError(f"logprobs is {self.logprobs}; it must be from 0 to 100.")
        if self.min_tokens > self.max_tokens:
            raise ConfigError(f"min_tokens ({self.min_tokens}) is larger than max_tokens ({self.max_tokens}).")
        if not isinstance(self.stop, tuple) or not all(isinstance(stop, str) and stop for stop in self.stop):
            raise ConfigError(f"stop is {self.stop!r}; it must be a tuple of non-empty strings.")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed is {self.seed}; it must be from 0 to 2**63 - 1.")
        for token_id, bias in self.logit_bias.items():
            if not isinstance(token_id, int) or token_id < 0 or math.isnan(bias):
                raise ConfigError(f"logit_bias maps {token_id!r} to {bias!r}; it must map token ids to numbers.")
        if self.beam_size > 1:
            if self.temperature > 0:
                raise ConfigError(
                    f"beam_size {self.beam_size} with temperature {self.temperature:g}: beam search is deterministic; "
                    "leave one of the two out."
                )
            if self.n > self.beam_size:
                raise ConfigError(f"n ({self.n}) is larger than beam_size ({self.beam_size}).")
        elif self.n > 1 and self.temperature == 0:
            raise ConfigError(
                f"n is {self.n} at temperature 0: all completions would be the same. Set a temperature above 0, or "
                "a beam size of at least n."
            )

    def replace(self, **changes: Any) -> DecodeConfig:
        """Return a copy with `changes`, validated again.

        Raises:
            ConfigError: An option is unknown or out of range.
        """
        known = [f.name for f in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise ConfigError(f"There is no decoding option {name!r}. {did_you_mean(name, known)}")
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        values = dataclasses.asdict(self)
        values["stop"] = list(self.stop)
        values["logit_bias"] = {str(token_id): bias for token_id, bias in self.logit_bias.items()}
        return values
