"""Scoring lists of predictions against lists of references: metric by name in, value with interval out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nlpkit.core.errors import InputError
from nlpkit.eval.metrics.base import FloatArray, Metric, MetricResult, Sample
from nlpkit.eval.metrics.registry import get_metric
from nlpkit.eval.statistics.resampling import DEFAULT_SEED
from nlpkit.eval.statistics.significance import (
    PairedResult,
    bootstrap_interval,
    corpus_score,
    paired_approximate_randomization,
)


@dataclass(frozen=True, eq=False)
class Measurement:
    """The statistics of a corpus under a metric: all that results, intervals and tests need, extracted once.

    Attributes:
        metric: The metric, bound to the references.
        stats: Additive statistics ``[n_segments, k]``.
        signature: The metric's signature on these segments.
        notes: The metric's notes on these segments.
    """

    metric: Metric
    stats: FloatArray
    signature: str
    notes: tuple[str, ...]

    @property
    def value(self) -> float:
        """The corpus score."""
        return corpus_score(self.stats, self.metric)

    @property
    def segment_scores(self) -> FloatArray:
        """One score a segment, ``[n_segments]``; NaN for segments that the metric leaves out."""
        return self.metric.segment_scores(self.stats)

    def result(self, *, n_resamples: int = 1000, seed: int = DEFAULT_SEED, level: float = 0.95) -> MetricResult:
        """Return the score with its bootstrap interval.

        Args:
            n_resamples: How many resamples to draw.
            seed: Seed of the draw.
            level: Coverage of the interval.

        Returns:
            The result.
        """
        interval = bootstrap_interval(self.stats, self.metric, n_resamples=n_resamples, seed=seed, level=level)
        notes = self.notes
        if len(self.stats) < 30:
            notes = (*notes, f"{len(self.stats)} segments are too few for the interval to be taken at its word.")
        return MetricResult(
            name=self.metric.name,
            value=self.value,
            signature=self.signature,
            n=len(self.stats),
            low=interval.low,
            high=interval.high,
            level=level,
            higher_is_better=self.metric.higher_is_better,
            notes=notes,
        )


def measure(metric: Metric, samples: Sequence[Sample]) -> Measurement:
    """Extract the statistics of a corpus under a metric.

    Args:
        metric: The metric.
        samples: The segments, at least one.

    Returns:
        The measurement.

    Raises:
        InputError: There are no segments, or one cannot be scored.
    """
    if not samples:
        raise InputError("There is nothing to score: no segments were given.")
    bound = metric.bind(samples)
    stats = bound.segment_stats(samples)
    return Measurement(bound, stats, bound.signature(samples), bound.notes(samples))


def build_samples(predictions: Sequence[str], *streams: Sequence[str]) -> list[Sample]:
    """Pair predictions with parallel streams of references, as files with a segment a line give them.

    Args:
        predictions: One text a segment.
        streams: Any number of reference streams, each with one text a segment.

    Returns:
        The samples.

    Raises:
        InputError: A stream has another length than the predictions.
    """
    for sequence in (predictions, *streams):
        if isinstance(sequence, str):
            raise InputError(f"Texts must come as a list of strings, not as one string ({sequence[:40]!r}).")
    for number, stream in enumerate(streams, 1):
        if len(stream) != len(predictions):
            raise InputError(
                f"Reference stream {number} has {len(stream)} segments and there are {len(predictions)} predictions. "
                "Each stream needs exactly one reference a segment, in the same order."
            )
    return [Sample(prediction, tuple(stream[i] for stream in streams)) for i, prediction in enumerate(predictions)]


def score_samples(
    name: str,
    samples: Sequence[Sample],
    *,
    lang: str | None = None,
    tokenizer: str | None = None,
    lowercase: bool | None = None,
    stemmer: bool = False,
    split: str | None = None,
    labels: tuple[str, ...] = (),
    exclude: tuple[str, ...] | None = None,
    n_resamples: int = 1000,
    seed: int = DEFAULT_SEED,
    level: float = 0.95,
) -> MetricResult:
    """Score samples with a metric by name.

    Args:
        name: Name of the metric.
        samples: The segments.
        lang: Language of the references.
        tokenizer: Tokenizer or normalisation, by the metric's own names.
        lowercase: Whether to ignore case; None for the metric's own default.
        stemmer: Whether ROUGE strips English suffixes.
        split: Where ROUGE-Lsum's sentences end.
        labels: Label set of macro F1, micro F1 and Matthews correlation.
        exclude: Span labels that are not scored.
        n_resamples: Bootstrap resamples for the interval.
        seed: Their seed.
        level: Coverage of the interval.

    Returns:
        The score with its interval.

    Raises:
        ConfigError: The metric or an option is wrong.
        InputError: A segment cannot be scored.
    """
    metric = get_metric(
        name,
        lang=lang,
        tokenizer=tokenizer,
        lowercase=lowercase,
        stemmer=stemmer,
        split=split,
        labels=labels,
        exclude=exclude,
    )
    return measure(metric, samples).result(n_resamples=n_resamples, seed=seed, level=level)


def score_pairs(name: str, pairs: Sequence[tuple[str, tuple[str, ...]]]) -> float:
    """Score predictions with their references, without an interval.

    Args:
        name: Name of the metric.
        pairs: Predictions and their acceptable references, at least one.

    Returns:
        The metric's value.

    Raises:
        ConfigError: There is no such metric.
        InputError: A segment cannot be scored.
    """
    samples = [Sample(prediction, references) for prediction, references in pairs]
    return measure(get_metric(name), samples).value


def compare_pairs(
    name: str, before: Sequence[str], after: Sequence[str], references: Sequence[tuple[str, ...]]
) -> PairedResult:
    """Test whether predictions are better than others of the same segments, by approximate randomization.

    Args:
        name: Name of the metric.
        before: Predictions of the baseline, at least one.
        after: Predictions of the system.
        references: The acceptable references of each segment.

    Returns:
        The comparison.

    Raises:
        ConfigError: There is no such metric.
        InputError: A segment cannot be scored, or the lists differ in length.
    """
    if not len(before) == len(after) == len(references):
        raise InputError(
            f"There are {len(before)} predictions before, {len(after)} after and {len(references)} references; they "
            "must be as many."
        )
    systems = [
        measure(get_metric(name), [Sample(text, refs) for text, refs in zip(texts, references, strict=True)])
        for texts in (before, after)
    ]
    return paired_approximate_randomization(systems[0].stats, systems[1].stats, systems[1].metric)
