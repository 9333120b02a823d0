"""How likely a translated sentence is right: a logistic formula over what decoding and checks say about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

LOW = 0.5
"""Sentences of a lower confidence are flagged."""

USUAL_RATIO = 1.1
"""Characters of a translation for each of its source, in the middle over the language pairs."""

REASONS: Mapping[str, str] = {
    "empty": "nothing was written",
    "loop": "it repeats itself",
    "cut": "it was cut off at its longest",
    "copied": "the text was copied instead of translated",
    "wrong_language": "it is in another language",
    "placeholders": "placeholders or markup were lost in translation, so it stayed as it is",
    "numbers": "numbers differ",
    "length": "it is far longer or shorter than the text",
    "unlearned": "the model did not learn its language, so it stayed as it is",
    "unsure": "the model is not sure of it",
}
"""What can be wrong with a sentence, in words; the first ones weigh most."""

COEFFICIENTS: Mapping[str, float] = {
    "constant": 3.0,
    "logprob": 3.5,
    "min_logprob": 0.25,
    "ratio": -1.0,
    "pivot": -0.5,
    "empty": -8.0,
    "loop": -8.0,
    "cut": -5.0,
    "copied": -5.0,
    "wrong_language": -5.0,
    "placeholders": -4.0,
    "numbers": -4.0,
    "length": -4.0,
    "unlearned": -8.0,
}
"""Weights of the formula; ``tests/benchmarks/reliability.py --fit`` finds those of the first five.

``logprob`` and ``min_logprob`` are the mean and the least log-probability of a token in nats, ``ratio`` is the distance
of the logarithm of the length ratio from that of `USUAL_RATIO`, the rest are 1 where they hold.
"""


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What is known about one translated sentence.

    Attributes:
        logprob: Mean log-probability per token, in nats.
        min_logprob: Log-probability of the least likely token, in nats.
        ratio: Characters of the translation for each of the source.
        reasons: Keys of `REASONS` that hold.
        pivot: Whether it went through another language.
    """

    logprob: float
    min_logprob: float
    ratio: float
    reasons: tuple[str, ...] = ()
    pivot: bool = False


def features(signals: Signals) -> dict[str, float]:
    """Return the values that `COEFFICIENTS` weigh, by name."""
    ratio = abs(math.log(max(signals.ratio, 0.01) / USUAL_RATIO))
    values = {"constant": 1.0, "logprob": max(signals.logprob, -20.0), "min_logprob": max(signals.min_logprob, -20.0)}
    return {**values, "ratio": ratio, "pivot": float(signals.pivot), **dict.fromkeys(signals.reasons, 1.0)}


def confidence(signals: Signals, coefficients: Mapping[str, float] = COEFFICIENTS) -> float:
    """Return how likely a translated sentence is right, from 0 to 1: ``1 / (1 + exp(-z))``.

    Args:
        signals: What is known about it.
        coefficients: Weights whose products with `features` add up to ``z``.
    """
    z = sum(coefficients.get(name, 0.0) * value for name, value in features(signals).items())
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, z))))
