"""How certain a score is, and whether two systems differ: bootstrap and randomization on additive statistics.

A resample of a corpus is a vector of counts, one a segment. Its statistics are ``counts @ stats``, so a block of
resamples of all systems is one matrix product, followed by one vectorised `Metric.aggregate`. Blocks bound the memory.

Both tests draw the very resamples that sacrebleu 2.x draws from the same seed (`statistics.resampling`), so their
p-values can be compared one by one, not merely on average.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nlpkit.core.errors import ConfigError, InputError, did_you_mean
from nlpkit.eval.metrics.base import FloatArray, Metric
from nlpkit.eval.statistics.resampling import DEFAULT_SEED, resample_counts, swap_masks

SignificanceMethod = Literal["randomization", "bootstrap"]

METHODS: tuple[SignificanceMethod, ...] = ("randomization", "bootstrap")
_TIE = 1e-9  # differences closer than this, relative to the values, are equal: summation order must not decide a test


@dataclass(frozen=True)
class Interval:
    """A percentile bootstrap interval.

    Attributes:
        low: Lower end.
        high: Upper end.
        mean: Mean over the resamples.
        std: Standard deviation over the resamples: the standard error of the score.
    """

    low: float
    high: float
    mean: float
    std: float


@dataclass(frozen=True)
class PairedResult:
    """A system against a baseline on the same segments.

    Attributes:
        baseline: Score of the baseline.
        value: Score of the system.
        difference: `value` - `baseline`.
        p_value: Probability of a difference this large if the systems were equally good.
        low: Lower end of the interval of the difference.
        high: Upper end of the interval of the difference.
        wins: Segments on which the system is better, whichever direction is better for the metric.
        losses: Segments on which it is worse.
        ties: Segments on which they are equal, or that the metric leaves out.
    """

    baseline: float
    value: float
    difference: float
    p_value: float
    low: float
    high: float
    wins: int
    losses: int
    ties: int


@dataclass(frozen=True)
class SystemRow:
    """One line of a comparison of several systems.

    Attributes:
        name: Name of the system.
        value: Its score.
        interval: Interval of its score.
        paired: Its comparison with the baseline; None for the baseline itself.
    """

    name: str
    value: float
    interval: Interval
    paired: PairedResult | None


def bootstrap_interval(
    stats: FloatArray, metric: Metric, *, n_resamples: int = 1000, seed: int = DEFAULT_SEED, level: float = 0.95
) -> Interval:
    """Return the percentile bootstrap interval of a score (Efron 1979; Koehn 2004 for BLEU).

    Resamples on which the metric is undefined (no segment of the subset drawn) are left out.

    Args:
        stats: Additive statistics ``[n_segments, k]``.
        metric: The metric that they belong to, bound.
        n_resamples: How many resamples to draw.
        seed: Seed of the draw.
        level: Coverage.

    Returns:
        The interval.

    Raises:
        InputError: There are no segments.
        ConfigError: A number is out of range.
    """
    scores = bootstrap_scores([stats], metric, n_resamples=n_resamples, seed=seed)[0]
    return _interval(scores, level)


def bootstrap_scores(
    systems: Sequence[FloatArray], metric: Metric, *, n_resamples: int, seed: int = DEFAULT_SEED
) -> FloatArray:
    """Score the same resamples for several systems.

    Args:
        systems: Additive statistics of each, ``[n_segments, k]`` with one and the same shape.
        metric: The metric that they belong to, bound.
        n_resamples: How many resamples to draw.
        seed: Seed of the draw.

    Returns:
        Scores ``[n_systems, n_resamples]``.

    Raises:
        InputError: There are no segments, or the systems have different ones.
        ConfigError: `n_resamples` is out of range.
    """
    n, width = _check_systems(systems)
    if n_resamples < 1:
        raise ConfigError(f"The number of resamples must be at least 1, not {n_resamples}.")
    stacked = np.concatenate([np.asarray(stats, dtype=np.float64) for stats in systems], axis=1)
    scores = np.empty((len(systems), n_resamples))
    done = 0
    for counts in resample_counts(n, n_resamples, seed):
        sums = (counts @ stacked).reshape(len(counts), len(systems), width)
        scores[:, done : done + len(counts)] = metric.aggregate(sums).T
        done += len(counts)
    return scores


def paired_bootstrap(
    stats_a: FloatArray,
    stats_b: FloatArray,
    metric: Metric,
    *,
    n_resamples: int = 1000,
    seed: int = DEFAULT_SEED,
    level: float = 0.95,
) -> PairedResult:
    """Test a system against a baseline by paired bootstrap resampling (Koehn 2004).

    The p-value is the one of sacrebleu's ``--paired-bs``: with d the absolute differences of the resamples, the share
    ``(#{d - mean(d) > |observed|} + 1) / (n_resamples + 1)``. With sacrebleu's seed it is the same number. One case
    differs on purpose: when the scores do not differ at all the p-value is 1.

    Centring absolute differences makes this p-value too small: two equally good systems come out as different at 0.05
    in about 12% of comparisons. Use it to compare with published numbers, and randomization to decide.

    Args:
        stats_a: Statistics of the baseline, ``[n_segments, k]``.
        stats_b: Statistics of the system, on the same segments.
        metric: The metric that they belong to, bound.
        n_resamples: How many resamples to draw.
        seed: Seed of the draw.
        level: Coverage of the interval of the difference.

    Returns:
        The comparison.

    Raises:
        InputError: There are no segments, or the two have different ones.
        ConfigError: A number is out of range.
    """
    scores = bootstrap_scores([stats_a, stats_b], metric, n_resamples=n_resamples, seed=seed)
    return _paired(stats_a, stats_b, metric, scores[1] - scores[0], level, _bootstrap_p_value)


def paired_approximate_randomization(
    stats_a: FloatArray,
    stats_b: FloatArray,
    metric: Metric,
    *,
    n_trials: int = 10000,
    n_resamples: int = 1000,
    seed: int = DEFAULT_SEED,
    level: float = 0.95,
) -> PairedResult:
    """Test a system against a baseline by approximate randomization (Noreen 1989; Riezler and Maxwell 2005).

    Each trial swaps the two systems' outputs on a random half of the segments. The p-value is the two-sided
    ``(#{|difference of trial| >= |observed|} + 1) / (n_trials + 1)``. sacrebleu counts ``>`` only, which makes p-values
    too small where ties are common (a handful of segments, exact match); elsewhere the two are the same number.

    Args:
        stats_a: Statistics of the baseline, ``[n_segments, k]``.
        stats_b: Statistics of the system, on the same segments.
        metric: The metric that they belong to, bound.
        n_trials: How many random swaps to try.
        n_resamples: How many bootstrap resamples give the interval of the difference.
        seed: Seed of both.
        level: Coverage of that interval.

    Returns:
        The comparison.

    Raises:
        InputError: There are no segments, or the two have different ones.
        ConfigError: A number is out of range.
    """
    scores = bootstrap_scores([stats_a, stats_b], metric, n_resamples=n_resamples, seed=seed)
    trials = _trial_differences(stats_a, stats_b, metric, n_trials, seed)

    def p_value(_: FloatArray, observed: float, scale: float) -> float:
        return _randomization_p_value(trials, observed, scale)

    return _paired(stats_a, stats_b, metric, scores[1] - scores[0], level, p_value)


def compare_systems(
    baseline: tuple[str, FloatArray],
    systems: Mapping[str, FloatArray],
    metric: Metric,
    *,
    method: SignificanceMethod = "randomization",
    n_resamples: int = 1000,
    n_trials: int = 10000,
    seed: int = DEFAULT_SEED,
    level: float = 0.95,
) -> tuple[SystemRow, ...]:
    """Compare several systems with a baseline, all on the same resamples.

    The p-values are not corrected for making several comparisons; `holm` does that.

    Args:
        baseline: Name and statistics ``[n_segments, k]`` of the baseline.
        systems: Statistics of the others by name, on the same segments.
        metric: The metric that they belong to, bound.
        method: ``randomization``, or ``bootstrap`` for p-values as sacrebleu's ``--paired-bs`` has them.
        n_resamples: Bootstrap resamples, for intervals and for ``bootstrap`` p-values.
        n_trials: Random swaps, for ``randomization`` p-values.
        seed: Seed of both.
        level: Coverage of the intervals.

    Returns:
        One row a system, the baseline first.

    Raises:
        InputError: There are no segments, or the systems have different ones.
        ConfigError: A choice is unknown or a number is out of range.
    """
    if method not in METHODS:
        raise ConfigError(f"There is no test {method!r}. {did_you_mean(method, METHODS)}")
    names, all_stats = [baseline[0], *systems], [baseline[1], *systems.values()]
    scores = bootstrap_scores(all_stats, metric, n_resamples=n_resamples, seed=seed)
    rows = []
    for index, (name, stats) in enumerate(zip(names, all_stats, strict=True)):
        paired = None
        if index:
            p_value: PValue = _bootstrap_p_value
            if method == "randomization":
                p_value = _bind_trials(_trial_differences(baseline[1], stats, metric, n_trials, seed))
            paired = _paired(baseline[1], stats, metric, scores[index] - scores[0], level, p_value)
        rows.append(SystemRow(name, corpus_score(stats, metric), _interval(scores[index], level), paired))
    return tuple(rows)


def corpus_score(stats: FloatArray, metric: Metric) -> float:
    """Return the score of a corpus from its statistics ``[n_segments, k]``."""
    return float(metric.aggregate(np.asarray(stats, dtype=np.float64).sum(axis=0)))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Correct the p-values of several tests so that the chance of any false claim stays bounded (Holm 1979).

    Args:
        p_values: The p-values as tested.

    Returns:
        The corrected ones, in the same order, none smaller than before.
    """
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return tuple(corrected)


PValue = Callable[[FloatArray, float, float], float]


def _check_systems(systems: Sequence[FloatArray]) -> tuple[int, int]:
    shapes = {np.shape(stats) for stats in systems}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise InputError(
            f"The systems' statistics have the shapes {', '.join(map(str, sorted(shapes)))}; only systems scored on "
            "the same segments with the same metric can be compared."
        )
    n, width = shapes.pop()
    if n == 0:
        raise InputError("There is nothing to resample: no segments were given.")
    return n, width


def _trial_differences(
    stats_a: FloatArray, stats_b: FloatArray, metric: Metric, n_trials: int, seed: int
) -> FloatArray:
    """Return the score difference of each random swap, ``[n_trials]``."""
    n, _ = _check_systems([stats_a, stats_b])
    if n_trials < 1:
        raise ConfigError(f"The number of trials must be at least 1, not {n_trials}.")
    stats_a, stats_b = np.asarray(stats_a, dtype=np.float64), np.asarray(stats_b, dtype=np.float64)
    change, total_b, total = stats_a - stats_b, stats_b.sum(axis=0), (stats_a + stats_b).sum(axis=0)
    pieces = []
    for masks in swap_masks(n, n_trials, seed):
        first = masks @ change + total_b
        pieces.append(metric.aggregate(first) - metric.aggregate(total - first))
    return np.concatenate(pieces)


def _bind_trials(trials: FloatArray) -> PValue:
    return lambda _, observed, scale: _randomization_p_value(trials, observed, scale)


def _bootstrap_p_value(differences: FloatArray, observed: float, scale: float) -> float:
    if abs(observed) <= _TIE * scale:
        return 1.0
    sizes = np.abs(differences[~np.isnan(differences)])
    if not sizes.size:
        return 1.0
    return float((np.sum(sizes - sizes.mean() > abs(observed)) + 1) / (sizes.size + 1))


def _randomization_p_value(trials: FloatArray, observed: float, scale: float) -> float:
    sizes = np.abs(trials[~np.isnan(trials)])
    return float((np.sum(sizes >= abs(observed) - _TIE * scale) + 1) / (sizes.size + 1))


def _paired(
    stats_a: FloatArray,
    stats_b: FloatArray,
    metric: Metric,
    differences: FloatArray,
    level: float,
    p_value: PValue,
) -> PairedResult:
    baseline, value = corpus_score(stats_a, metric), corpus_score(stats_b, metric)
    interval = _interval(differences, level)
    scale = max(abs(baseline), abs(value))
    better = metric.segment_scores(np.asarray(stats_b, dtype=np.float64)) - metric.segment_scores(
        np.asarray(stats_a, dtype=np.float64)
    )
    better = np.where(np.isnan(better), 0.0, better) * (1 if metric.higher_is_better else -1)
    wins, losses = int(np.sum(better > _TIE)), int(np.sum(better < -_TIE))
    return PairedResult(
        baseline=baseline,
        value=value,
        difference=value - baseline,
        p_value=p_value(differences, value - baseline, scale),
        low=interval.low,
        high=interval.high,
        wins=wins,
        losses=losses,
        ties=len(better) - wins - losses,
    )


def _interval(scores: FloatArray, level: float) -> Interval:
    if not 0.0 < level < 1.0:
        raise ConfigError(f"The level of an interval lies between 0 and 1, not at {level}. 0.95 is usual.")
    defined = scores[~np.isnan(scores)]
    if not defined.size:
        return Interval(np.nan, np.nan, np.nan, np.nan)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(defined, [tail, 1.0 - tail])
    return Interval(float(low), float(high), float(defined.mean()), float(defined.std()))
