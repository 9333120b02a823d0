"""`DecodeConfig`: every option of decoding, validated once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from nlpkit.core.decode.constraint import Constraint
from nlpkit.core.errors import ConfigError, did_you_mean, shown
from nlpkit.core.typed_fields import is_number

MAX_BIAS = 10_000
"""Largest bias of a logit in either direction."""

Speculation = Literal["none", "prompt", "draft"]


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
        beam_groups: Groups of beams that are kept apart (arXiv:1610.02424); 1 is plain beam search.
        diversity_penalty: What a token costs a group, in nats, for each time that an earlier group takes it at the
            same step; has no effect with one group.
        must_include: Words or phrases that the text must contain; needs beam search.
        contrastive_alpha: Weight of the penalty on tokens whose hidden state resembles an earlier one
            (contrastive search, arXiv:2202.06417), which chooses among `top_k` candidates; 0 is off.
        constraint: A form that the whole text must have, or None.
        speculation: How to guess tokens that one pass then verifies together, for speed alone: the text stays the
            same. ``none``; ``prompt`` guesses from the prompt and the text so far; ``draft`` asks the engine's draft
            model. Beam and contrastive search go without.
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
    beam_groups: int = 1
    diversity_penalty: float = 0.5
    must_include: tuple[str, ...] = ()
    contrastive_alpha: float = 0.0
    constraint: Constraint | None = None
    speculation: Speculation = "none"
    logprobs: int | None = None

    def __post_init__(self) -> None:
        whole = {
            "max_tokens": (0, 10_000_000),
            "min_tokens": (0, 10_000_000),
            "top_k": (0, 10_000_000),
            "no_repeat_ngram": (0, 1_000),
            "n": (1, 128),
            "beam_size": (1, 1_024),
            "beam_groups": (1, 1_024),
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
            "diversity_penalty": (0.0, 1_000.0),
            "contrastive_alpha": (0.0, 1.0),
        }
        for name, (lowest, highest) in real.items():
            value = getattr(self, name)
            if not is_number(value):
                raise ConfigError(f"{name} is {shown(value)}; it must be a number from {lowest:g} to {highest:g}.")
            if not lowest <= value <= highest:
                raise ConfigError(f"{name} is {value:g}; it must be from {lowest:g} to {highest:g}.")
        if self.logprobs is not None and not (_is_whole(self.logprobs) and 0 <= self.logprobs <= 100):
            raise ConfigError(f"logprobs is {self.logprobs!r}; it must be a whole number from 0 to 100, or left out.")
        if self.min_tokens > self.max_tokens:
            raise ConfigError(f"min_tokens ({self.min_tokens}) is larger than max_tokens ({self.max_tokens}).")
        if not isinstance(self.stop, tuple) or not all(isinstance(stop, str) and stop for stop in self.stop):
            raise ConfigError(f"stop is {self.stop!r}; it must be a tuple of non-empty strings.")
        if not isinstance(self.must_include, tuple) or not all(
            isinstance(phrase, str) and phrase.strip() for phrase in self.must_include
        ):
            raise ConfigError(
                f"must_include is {self.must_include!r}; it must be a tuple of strings that are not blank."
            )
        if self.seed is not None and not (_is_whole(self.seed) and 0 <= self.seed < 2**63):
            raise ConfigError(f"seed is {self.seed!r}; it must be a whole number from 0 to 2**63 - 1, or left out.")
        if not isinstance(self.logit_bias, Mapping):
            raise ConfigError(f"logit_bias is {shown(self.logit_bias)}; it must map token ids to numbers.")
        for token_id, bias in self.logit_bias.items():
            number = isinstance(bias, (int, float)) and not isinstance(bias, bool)
            if not (_is_whole(token_id) and token_id >= 0 and number):
                raise ConfigError(
                    f"logit_bias maps {shown(token_id)} to {shown(bias)}; it must map token ids to numbers."
                )
            # Larger ones would drown the logits in rounding, or make infinities that no sampler can weigh.
            if not (abs(bias) <= MAX_BIAS or bias == -math.inf):
                raise ConfigError(
                    f"logit_bias maps {token_id} to {shown(bias)}; it must be from -{MAX_BIAS:,} to {MAX_BIAS:,}, or "
                    "-inf to ban the token."
                )
        if not isinstance(self.ignore_eos, bool):
            raise ConfigError(f"ignore_eos is {shown(self.ignore_eos)}; it must be True or False.")
        if self.speculation not in get_args(Speculation):
            raise ConfigError(
                f"There is no speculation {self.speculation!r}. "
                f"{did_you_mean(str(self.speculation), get_args(Speculation))}"
            )
        self._check_beams()
        self._check_contrastive()
        self._check_constraint()

    def _check_beams(self) -> None:
        if self.beam_size % self.beam_groups:
            raise ConfigError(
                f"beam_size {self.beam_size} cannot be parted into beam_groups {self.beam_groups} of equal size. Make "
                "it a multiple."
            )
        if self.must_include and self.beam_size == 1:
            raise ConfigError("must_include needs beam search: set beam_size; a few more than the words is usual.")
        lost = [phrase for phrase in self.must_include if any(stop in phrase for stop in self.stop)]
        if lost:
            raise ConfigError(f"must_include holds {lost[0]!r}, in which a stop string would end the text.")
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

    def _check_contrastive(self) -> None:
        if not self.contrastive_alpha:
            return
        if self.temperature > 0 or self.beam_size > 1 or self.n > 1:
            raise ConfigError(
                "contrastive_alpha cannot be used with a temperature above 0, with beam search, or for several "
                "completions: contrastive search is deterministic and gives one. Leave one of the two out."
            )
        if self.top_k == 0:
            raise ConfigError("contrastive_alpha needs top_k, the number of candidates at each step; 4 to 10 is usual.")

    def _check_constraint(self) -> None:
        if self.constraint is None:
            return
        if not isinstance(self.constraint, Constraint):
            raise ConfigError(
                f"constraint is {self.constraint!r}; it must be a Constraint, such as Constraint.choice('yes', 'no')."
            )
        if self.ignore_eos:
            raise ConfigError("A constraint with ignore_eos could never be complete. Leave one of the two out.")
        if self.must_include:
            raise ConfigError(
                "must_include beside a constraint may ask for what cannot be. Leave one of the two out; a constraint "
                "can ask for words itself."
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
        values["must_include"] = list(self.must_include)
        values["logit_bias"] = {str(token_id): bias for token_id, bias in self.logit_bias.items()}
        return values


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
