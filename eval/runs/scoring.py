"""Scoring samples: from what a run wrote to metrics with intervals. Needs no model and no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from nlpkit.core.errors import ConfigError, InputError, NlpkitError
from nlpkit.eval.metrics.base import Sample
from nlpkit.eval.metrics.registry import MetricOptions, find_entry, get_metric
from nlpkit.eval.runs.samples import SampleRecord
from nlpkit.eval.statistics.measure import Measurement, measure
from nlpkit.eval.statistics.resampling import DEFAULT_SEED


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """What to score, and how.

    Attributes:
        metrics: Names of metrics.
        options: Choices about them; each goes to the metrics that take it.
        n_resamples: Bootstrap resamples of the intervals.
        seed: Their seed.
        level: Coverage of the intervals.
    """

    metrics: tuple[str, ...]
    options: MetricOptions = field(default_factory=MetricOptions)
    n_resamples: int = 1000
    seed: int = DEFAULT_SEED
    level: float = 0.95

    def check(self) -> None:
        """Refuse unknown metrics and options that none of them takes.

        Raises:
            ConfigError: One of them is wrong.
        """
        if not self.metrics:
            raise ConfigError("There is no metric to score with. Name one with --metric.")
        for name in self.metrics:
            find_entry(name)
        for option, value in asdict(self.options).items():
            if value == getattr(MetricOptions(), option) or option == "lang":
                continue
            if not any(option in find_entry(name).options for name in self.metrics):
                raise ConfigError(f"None of the metrics {', '.join(self.metrics)} takes {option} (got {value!r}).")
        if self.n_resamples < 1:
            raise ConfigError(f"The number of resamples must be at least 1, not {self.n_resamples}.")

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> ScoringOptions:
        """Read what `to_dict` gave.

        Raises:
            InputError: It is something else.
        """
        try:
            options = dict(values["options"])
            for name in ("labels", "exclude"):
                options[name] = options[name] if options[name] is None else tuple(options[name])
            rest = {name: values[name] for name in ("n_resamples", "seed", "level")}
            return ScoringOptions(metrics=tuple(values["metrics"]), options=MetricOptions(**options), **rest)
        except (KeyError, TypeError) as error:
            raise InputError(f"The run record's scoring options cannot be read: {error}.") from error


@dataclass(frozen=True)
class RunScores:
    """What scoring gave.

    Attributes:
        results: By metric: `MetricResult.as_dict`, or ``metric`` and ``error``.
        segments: By sample index: score by metric, None where the metric leaves the row out.
        notes: What a reader should know about all of them.
    """

    results: dict[str, dict[str, Any]]
    segments: dict[int, dict[str, float | None]]
    notes: tuple[str, ...] = ()

    @property
    def errors(self) -> dict[str, str]:
        """Why metrics failed, by name."""
        return {name: str(result["error"]) for name, result in self.results.items() if "error" in result}


def score_records(records: Sequence[SampleRecord], options: ScoringOptions) -> RunScores:
    """Score the rows of a run. A metric that fails is recorded with its error; the others are scored all the same.

    Rows that failed have no prediction: they are left out of every score, and a note says how many.

    Args:
        records: The rows.
        options: What to score.

    Returns:
        Scores and segment scores.
    """
    kept = [record for record in records if record.error is None]
    results: dict[str, dict[str, Any]] = {}
    segments: dict[int, dict[str, float | None]] = {record.index: {} for record in records}
    samples = [record.segment() for record in kept]
    for name in options.metrics:
        try:
            measured = measure_samples(name, samples, options.options)
            result = measured.result(n_resamples=options.n_resamples, seed=options.seed, level=options.level)
        except NlpkitError as error:
            results[name] = {"metric": name, "error": str(error)}
            continue
        except Exception as error:  # a metric library's own failure must not cost the other scores
            results[name] = {"metric": name, "error": f"{type(error).__name__}: {error}"}
            continue
        results[name] = {**result.as_dict(), "level": result.level, "higher_is_better": result.higher_is_better}
        for record, value in zip(kept, measured.segment_scores.tolist(), strict=True):
            segments[record.index][name] = None if math.isnan(value) else round(value, 6)
    return RunScores(results, segments, _notes(records, options))


def measure_samples(name: str, samples: Sequence[Sample], options: MetricOptions) -> Measurement:
    """Extract the statistics of samples under a metric by name.

    Args:
        name: The metric.
        samples: The segments.
        options: Choices; those that this metric does not take are passed over.

    Returns:
        The measurement.

    Raises:
        ConfigError: The metric is unknown or refuses an option's value.
        InputError: A segment cannot be scored.
    """
    takes = find_entry(name).options
    chosen = {key: value for key, value in asdict(options).items() if key in takes}
    return measure(get_metric(name, **chosen), samples)


def with_language(options: ScoringOptions, records: Iterable[SampleRecord]) -> ScoringOptions:
    """Return options whose language is settled: the one given, else the rows' own where they agree on one."""
    found = _languages(records)
    lang = options.options.lang or (found[0] if len(found) == 1 else None)
    return replace(options, options=replace(options.options, lang=lang))


def _languages(records: Iterable[SampleRecord]) -> list[str]:
    return sorted({str(record.row["target_lang"]) for record in records if record.row.get("target_lang")})


def _notes(records: Sequence[SampleRecord], options: ScoringOptions) -> tuple[str, ...]:
    notes = []
    failed = sum(record.error is not None for record in records)
    if failed:
        notes.append(f"{failed} of {len(records)} rows failed and are in no score.")
    languages = _languages(records)
    if len(languages) > 1 and options.options.lang is None:
        notes.append(
            f"The rows have several target languages ({', '.join(languages)}), so no tokenizer was chosen by language. "
            "Score each language by itself."
        )
    return tuple(notes)
