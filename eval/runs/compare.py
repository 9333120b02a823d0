"""Comparing systems on the same rows: intervals, paired tests, and the rows that changed most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from nlpkit.core.errors import ConfigError, InputError, did_you_mean
from nlpkit.eval.metrics.base import FloatArray
from nlpkit.eval.runs.run_folder import Run, differences, finite, identity
from nlpkit.eval.runs.samples import SampleRecord
from nlpkit.eval.runs.scoring import ScoringOptions, measure_samples
from nlpkit.eval.statistics.measure import Measurement
from nlpkit.eval.statistics.resampling import DEFAULT_SEED
from nlpkit.eval.statistics.significance import METHODS, SignificanceMethod, SystemRow, compare_systems, holm


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """How to compare.

    Attributes:
        metrics: Names; empty for all that the runs have in common.
        methods: Paired tests.
        n_resamples: Bootstrap resamples.
        n_trials: Trials of the randomization test.
        seed: Seed of both.
        level: Coverage of the intervals.
        n_examples: How many rows that changed most to give.
    """

    metrics: tuple[str, ...] = ()
    methods: tuple[SignificanceMethod, ...] = METHODS
    n_resamples: int = 1000
    n_trials: int = 10000
    seed: int = DEFAULT_SEED
    level: float = 0.95
    n_examples: int = 5


@dataclass(frozen=True, kw_only=True)
class SystemScore:
    """One system under one metric.

    Attributes:
        name: The system.
        value: Its score.
        low: Lower end of its interval.
        high: Upper end of its interval.
        paired: Whether the rest is filled in; not for the baseline.
        difference: `value` less the baseline's.
        low_difference: Lower end of the interval of the difference.
        high_difference: Upper end of the interval of the difference.
        p_values: By test.
        p_corrected: The same, corrected for testing several systems (Holm).
        wins: Rows on which it is better than the baseline.
        losses: Rows on which it is worse.
        ties: The others.
    """

    name: str
    value: float
    low: float
    high: float
    paired: bool = False
    difference: float = 0.0
    low_difference: float = 0.0
    high_difference: float = 0.0
    p_values: Mapping[str, float] = field(default_factory=dict)
    p_corrected: Mapping[str, float] = field(default_factory=dict)
    wins: int = 0
    losses: int = 0
    ties: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        values = asdict(self)
        if not self.paired:
            return {key: values[key] for key in ("name", "value", "low", "high")}
        del values["paired"]
        return values


@dataclass(frozen=True, kw_only=True)
class MetricComparison:
    """All systems under one metric.

    Attributes:
        name: The metric.
        signature: Its signature, the same for all.
        n: Rows compared.
        higher_is_better: Direction of the metric.
        systems: The baseline first.
    """

    name: str
    signature: str
    n: int
    higher_is_better: bool
    systems: tuple[SystemScore, ...]


@dataclass(frozen=True, kw_only=True)
class ChangedRow:
    """A row on which two systems differ much.

    Attributes:
        id: The row.
        metric: The metric.
        system: Which system is compared with the baseline.
        before: The baseline's segment score.
        after: The system's segment score.
        reference: The first reference.
        predictions: Of both, by system.
    """

    id: str
    metric: str
    system: str
    before: float
    after: float
    reference: str
    predictions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Several systems on the same data.

    Attributes:
        metrics: One for each metric.
        methods: Paired tests.
        examples: Rows that changed most under the first metric.
        different: What the run records say differently, besides the scores.
        notes: What a reader should know.
    """

    metrics: tuple[MetricComparison, ...]
    methods: tuple[SignificanceMethod, ...]
    examples: tuple[ChangedRow, ...]
    different: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        values: dict[str, Any] = finite(
            {
                "metrics": [
                    {**asdict(metric), "systems": [system.to_dict() for system in metric.systems]}
                    for metric in self.metrics
                ],
                "examples": [asdict(example) for example in self.examples],
                "different": list(self.different),
                "notes": list(self.notes),
            }
        )
        return values


def compare_runs(runs: Sequence[Run], options: CompareOptions | None = None) -> Comparison:
    """Compare runs; the first is the baseline.

    Args:
        runs: Two or more, on the same rows.
        options: How to compare.

    Returns:
        The comparison.

    Raises:
        InputError: The runs have different rows, references or signatures, or are not complete; the message says
            which and where.
        ConfigError: A metric was not scored in all runs.
    """
    options = options or CompareOptions()
    if len(runs) < 2:
        raise ConfigError("It takes two runs to compare.")
    names = unique_names(runs)
    check_same_data(runs)
    metrics = _common_metrics(runs, options.metrics)
    check_same_signatures(runs, metrics)
    failed = {sample.index for run in runs for sample in run.samples if sample.error is not None}
    kept = [[sample for sample in run.samples if sample.index not in failed] for run in runs]
    if not kept[0]:
        raise InputError("Every row failed in one of the runs: there is nothing left to compare.")
    notes = []
    if failed:
        notes.append(f"{len(failed)} rows failed in at least one run and are left out of all.")
    found, measured = [], {}
    for metric in metrics:
        measured[metric] = [
            measure_samples(metric, [sample.segment() for sample in samples], _options(run).options)
            for run, samples in zip(runs, kept, strict=True)
        ]
        found.append(_compare_metric(metric, names, measured[metric], options))
    if any(metric.n < 30 for metric in found):
        notes.append("Fewer than 30 rows: the intervals and p-values are not to be taken at their word.")
    if len(runs) > 2:
        notes.append("Several systems were tested: p-values are not corrected; the JSON has Holm's correction.")
    examples = _changed_rows(metrics[0], names, kept, measured[metrics[0]], options.n_examples)
    return Comparison(
        metrics=tuple(found),
        methods=options.methods,
        examples=examples,
        different=_different(runs, names),
        notes=tuple(notes),
    )


def unique_names(runs: Sequence[Run]) -> list[str]:
    """Return a name for each run: the system's, with the folder where two systems have the same."""
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return names
    names = [f"{run.name} ({run.folder.name})" for run in runs]
    if len(set(names)) == len(names):
        return names
    return [f"{run.name} ({run.folder})#{number}" for number, run in enumerate(runs, 1)]


def check_same_data(runs: Sequence[Run]) -> None:
    """Refuse runs whose rows are not the same.

    Raises:
        InputError: A run is incomplete or has other rows or references than the first.
    """
    first = runs[0]
    rows = {sample.index: sample for sample in first.samples}
    for run in runs:
        total = run.record["counts"]["rows"]
        if len(run.samples) < total:
            raise InputError(
                f"{run.folder} has {len(run.samples)} of {total} rows: it is not complete. Run its command again; it "
                "goes on where it stopped."
            )
    for run in runs[1:]:
        if run.record["task"]["name"] != first.record["task"]["name"] and "external" not in (
            run.record["task"]["name"],
            first.record["task"]["name"],
        ):
            raise InputError(
                f"{first.folder} is a run of {first.record['task']['name']} and {run.folder} of "
                f"{run.record['task']['name']}: only runs of one task can be compared."
            )
        _check_rows(first, rows, run)


def _check_rows(first: Run, rows: Mapping[int, SampleRecord], run: Run) -> None:
    indices = {sample.index for sample in run.samples}
    if indices != set(rows):
        only = len(indices - set(rows)), len(set(rows) - indices)
        raise InputError(
            f"{first.folder} and {run.folder} are on different rows: {only[1]} only in the first, {only[0]} only in "
            f"the second (data {_data(first)}; {_data(run)}). Run both on the same data with the same --limit."
        )
    for sample in run.samples:
        other = rows[sample.index]
        external = "external" in (run.record["task"]["name"], first.record["task"]["name"])
        if sample.references != other.references or (not external and sample.row_sha256 != other.row_sha256):
            what = "references" if sample.references != other.references else "content"
            raise InputError(
                f"{first.folder} and {run.folder} are on different data: row {sample.id!r} (number {sample.index}) has "
                f"other {what} (data {_data(first)}; {_data(run)}). Only scores on the same data can be compared."
            )


def _data(run: Run) -> str:
    data = run.record["data"]
    return f"{data['name']} {str(data['sha256'])[:12]}"


def _common_metrics(runs: Sequence[Run], chosen: Sequence[str]) -> list[str]:
    scored = [{name for name, result in run.metrics.items() if "error" not in result} for run in runs]
    common = [name for name in runs[0].metrics if all(name in names for names in scored)]
    for name in chosen:
        if name not in common:
            lacking = next(
                (run.folder for run, names in zip(runs, scored, strict=True) if name not in names), runs[0].folder
            )
            raise ConfigError(
                f"{lacking} has no score for {name!r}. {did_you_mean(name, common)} `nlpkit eval rescore` computes "
                "further metrics without a model."
            )
    if not common:
        raise ConfigError(
            "The runs have no metric in common: "
            + "; ".join(f"{run.folder} has {', '.join(run.metrics) or 'none'}" for run in runs)
            + ". `nlpkit eval rescore --metric NAME` computes further ones without a model."
        )
    return list(chosen) or common


def check_same_signatures(runs: Sequence[Run], metrics: Sequence[str]) -> None:
    """Refuse scores that were computed differently.

    Raises:
        InputError: Signatures differ; the message gives them.
    """
    for name in metrics:
        first = runs[0].metrics[name]["signature"]
        for run in runs[1:]:
            signature = run.metrics[name]["signature"]
            if signature != first:
                raise InputError(
                    f"{name} was computed differently: {runs[0].folder} has {first}, {run.folder} has {signature}. "
                    "Score both the same way with `nlpkit eval rescore`."
                )


def _options(run: Run) -> ScoringOptions:
    return ScoringOptions.from_dict(run.record["scoring"])


def _compare_metric(
    name: str, systems: Sequence[str], measured: Sequence[Measurement], options: CompareOptions
) -> MetricComparison:
    metric = measured[0].metric
    others: dict[str, FloatArray] = {system: one.stats for system, one in zip(systems[1:], measured[1:], strict=True)}
    by_method: dict[str, tuple[SystemRow, ...]] = {
        method: compare_systems(
            (systems[0], measured[0].stats),
            others,
            metric,
            method=method,
            n_resamples=options.n_resamples,
            n_trials=options.n_trials,
            seed=options.seed,
            level=options.level,
        )
        for method in options.methods
    }
    corrected = {
        method: holm([row.paired.p_value for row in rows if row.paired is not None])
        for method, rows in by_method.items()
    }
    scores = []
    for place, row in enumerate(by_method[options.methods[0]]):
        score = SystemScore(name=row.name, value=row.value, low=row.interval.low, high=row.interval.high)
        if row.paired is not None:
            tested = {method: rows[place].paired for method, rows in by_method.items()}
            score = SystemScore(
                name=row.name,
                value=row.value,
                low=row.interval.low,
                high=row.interval.high,
                paired=True,
                difference=row.paired.difference,
                low_difference=row.paired.low,
                high_difference=row.paired.high,
                p_values={method: one.p_value for method, one in tested.items() if one is not None},
                p_corrected={method: corrected[method][place - 1] for method in by_method},
                wins=row.paired.wins,
                losses=row.paired.losses,
                ties=row.paired.ties,
            )
        scores.append(score)
    return MetricComparison(
        name=name,
        signature=measured[0].signature,
        n=len(measured[0].stats),
        higher_is_better=metric.higher_is_better,
        systems=tuple(scores),
    )


def _changed_rows(
    metric: str,
    names: Sequence[str],
    samples: Sequence[Sequence[SampleRecord]],
    measured: Sequence[Measurement],
    count: int,
) -> tuple[ChangedRow, ...]:
    base = measured[0].segment_scores
    found = []
    for place in range(1, len(names)):
        scores = measured[place].segment_scores
        change = np.nan_to_num(np.abs(scores - base))
        found += [
            (float(change[i]), place, int(i)) for i in np.argsort(-change, kind="stable")[:count] if change[i] > 0
        ]
    found.sort(key=lambda one: -one[0])
    return tuple(
        ChangedRow(
            id=samples[0][i].id,
            metric=metric,
            system=names[place],
            before=float(base[i]),
            after=float(measured[place].segment_scores[i]),
            reference=next(iter(samples[0][i].references), ""),
            predictions={names[0]: samples[0][i].prediction, names[place]: samples[place][i].prediction},
        )
        for _, place, i in found[:count]
    )


def _different(runs: Sequence[Run], names: Sequence[str]) -> tuple[str, ...]:
    first = _comparable(runs[0])
    lines = []
    for run, name in zip(runs[1:], names[1:], strict=True):
        lines += [f"{name}: {line}" for line in differences(first, _comparable(run))]
    return tuple(lines)


def _comparable(run: Run) -> dict[str, Any]:
    """Return what may explain a difference; hashes of the model's files say no more than its name does."""
    flat = identity(run.record)
    kept = {key: value for key, value in flat.items() if not key.startswith(("data.", "model.sha256", "model.pred"))}
    return {**kept, "model.name": run.record["model"].get("name"), "model.adapter": run.record["model"].get("adapter")}
