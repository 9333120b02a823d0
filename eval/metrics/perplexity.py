"""Perplexity and bits per byte of texts under a model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nlpkit.core.errors import ConfigError, InputError, did_you_mean
from nlpkit.eval.metrics.base import BaseMetric, FloatArray, Sample, ratio, segment_label, stack_rows

KINDS = ("perplexity", "bits_per_byte")


class LikelihoodScore(BaseMetric):
    """How well a model predicts the texts; lower is better.

    `perplexity` is ``exp(-sum logprob / sum tokens)``, from 1 up: comparable only between models with the same
    tokenizer. `bits_per_byte` is ``-sum logprob / ln 2 / sum bytes``, whatever the tokenizer (Gao et al. 2020, The
    Pile). Both are over the whole corpus, not means of segment scores.

    Statistics per segment (2): log-probability in nats, tokens or bytes.
    """

    higher_is_better = False

    def __init__(self, kind: str) -> None:
        """Choose the score.

        Args:
            kind: One of `KINDS`.

        Raises:
            ConfigError: The kind is unknown.
        """
        if kind not in KINDS:
            raise ConfigError(f"There is no likelihood score {kind!r}. {did_you_mean(kind, KINDS)}")
        self.name = kind

    def segment_stats(self, samples: Sequence[Sample]) -> FloatArray:
        """Return log-probability and length of each segment, ``[n_segments, 2]``."""
        rows = []
        for index, sample in enumerate(samples):
            likelihood = sample.likelihood
            if likelihood is None:
                raise InputError(
                    f"{segment_label(index, sample)} has no log-probability, which {self.name} needs. Score the texts "
                    "with a model, or leave the metric out."
                )
            length = likelihood.n_tokens if self.name == "perplexity" else likelihood.n_bytes
            if length <= 0 or not likelihood.logprob <= 0:
                raise InputError(
                    f"{segment_label(index, sample)}: {likelihood} is not the log-probability of a text; it needs a "
                    "positive length and a value of at most 0."
                )
            rows.append((likelihood.logprob, float(length)))
        return stack_rows(rows, 2)

    def aggregate(self, stats: FloatArray) -> FloatArray:
        """Return the score of summed log-probabilities and lengths ``[..., 2]``."""
        stats = np.asarray(stats, dtype=np.float64)
        nats = ratio(-stats[..., 0], stats[..., 1])
        with np.errstate(over="ignore"):
            return np.exp(nats) if self.name == "perplexity" else nats / math.log(2.0)

    def signature(self, samples: Sequence[Sample]) -> str:
        """Return the unit and how segments are put together."""
        unit = "token" if self.name == "perplexity" else "byte"
        return f"{self.name}|per:{unit}|agg:corpus|nlpkit:1"
