"""RunScores of a run directory: computed from its samples alone, as often as you like."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlpkit.apps.tasks.table import load_task
from nlpkit.apps.tasks.task import Task
from nlpkit.core.errors import ConfigError
from nlpkit.eval.runs.run_folder import SAMPLES, finite, hold, load_run, read_record, write_record
from nlpkit.eval.runs.samples import SampleRecord, write_samples
from nlpkit.eval.runs.scoring import RunScores, ScoringOptions, score_records, with_language


@dataclass(frozen=True)
class RunOutcome:
    """A finished session.

    Attributes:
        folder: The run directory.
        record: The run record.
        notes: What happened besides: repaired lines, rows taken over from before.
    """

    folder: Path
    record: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> int:
        """Rows that failed."""
        return int(self.record["counts"]["failed"])

    @property
    def metric_errors(self) -> dict[str, str]:
        """Why metrics failed, by name."""
        return {name: str(one["error"]) for name, one in self.record["metrics"].items() if "error" in one}


def score_into(
    folder: Path, record: dict[str, Any], records: Sequence[SampleRecord], options: ScoringOptions
) -> RunScores:
    """Score samples, write the segment scores into the samples file and the scores into `record` (not to the disk).

    Args:
        folder: The run directory, held.
        record: Its record; changed in place.
        records: Its samples.
        options: What to score.

    Returns:
        The scores.

    Raises:
        OutputError: The samples file cannot be written; the old one is untouched.
    """
    settled = with_language(options, records)
    scores = score_records(records, settled)
    record["scoring"] = finite(settled.to_dict())
    record["metrics"] = finite(scores.results)
    record["notes"] = list(scores.notes)
    ordered = sorted(records, key=lambda sample: sample.index)
    write_samples(folder / SAMPLES, [sample.with_scores(scores.segments[sample.index]) for sample in ordered])
    return scores


def rescore(folder: Path, options: ScoringOptions | None = None) -> RunOutcome:
    """Score a run again, without a model.

    Args:
        folder: The run directory.
        options: What to score; by default what the run was scored with, or would have been.

    Returns:
        The new record; a run that is not complete is scored as far as it goes, and says so.

    Raises:
        InputError: It is no run directory, or has no samples.
    """
    load_run(folder)
    with hold(folder):
        run = load_run(folder)
        chosen = options or stored_options(run.record)
        chosen.check()
        score_into(folder, run.record, run.samples, chosen)
        run.record["counts"] = count_samples(run.samples, int(run.record["data"]["rows"]))
        write_record(folder, run.record)
        missing = run.record["counts"]["rows"] - run.record["counts"]["done"]
        notes = (f"{missing} of {run.record['counts']['rows']} rows are missing: the run is not complete.",)
        return RunOutcome(folder, run.record, notes if missing else ())


def stored_options(record: Mapping[str, Any]) -> ScoringOptions:
    """Return what a run was scored with, or the task's own metrics where it never was.

    Raises:
        ConfigError: It was never scored, and has no task of ours.
        InputError: The record is damaged.
    """
    if record.get("scoring"):
        return ScoringOptions.from_dict(record["scoring"])

    if record["task"]["name"] == "external":
        raise ConfigError("The run was never scored. Name the metrics with --metric.")
    return ScoringOptions(metrics=default_metrics(load_task(str(record["task"]["name"]))))


def write_run(
    folder: str | os.PathLike[str],
    record: dict[str, Any],
    samples: Sequence[SampleRecord],
    options: ScoringOptions,
) -> RunOutcome:
    """Write a run directory whole, in place of one that was there before.

    Args:
        folder: The directory.
        record: A run record without counts and scores; they are filled in.
        samples: All samples.
        options: What to score.

    Returns:
        The run.

    Raises:
        ConfigError: The folder holds a run of something else.
        OutputError: It cannot be written.
    """
    folder = Path(folder)
    with hold(folder):
        before = read_record(folder)
        if before is not None and before["task"] != record["task"]:
            raise ConfigError(f"{folder} holds a run of the task {before['task']['name']!r}. Choose another --output.")
        record["counts"] = count_samples(samples, len(samples))
        write_record(folder, {**record, "metrics": {}})
        score_into(folder, record, samples, options)
        write_record(folder, record)
    return RunOutcome(folder, record)


def default_metrics(task: Task[Any]) -> tuple[str, ...]:
    """Return the task's metrics by the names of the table of metrics."""
    return tuple(task.metrics)


def count_reasons(records: Sequence[SampleRecord]) -> dict[str, int]:
    """Count finish reasons."""
    return dict(sorted(Counter(record.finish_reason for record in records).items()))


def count_samples(records: Sequence[SampleRecord], n_rows: int) -> dict[str, Any]:
    """Return the counts of a run record."""
    return {
        "rows": n_rows,
        "done": len(records),
        "failed": sum(record.error is not None for record in records),
        "finish_reasons": count_reasons(records),
        "truncated": sum(record.truncated for record in records),
        "chunked": sum(record.chunks > 1 for record in records),
        "degenerate": sum(record.degenerate for record in records),
        "empty": sum(record.error is None and not record.prediction.strip() for record in records),
        "input_tokens": sum(record.used_tokens for record in records),
        "output_tokens": sum(record.output_tokens for record in records),
    }
