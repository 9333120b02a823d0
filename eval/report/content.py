"""Reports on runs: what goes into them, whatever the format."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nlpkit.apps.show.charts import Series
from nlpkit.core.errors import ConfigError, InputError, NlpkitError, did_you_mean
from nlpkit.eval.data.columns import input_names, option_names, reference_names
from nlpkit.eval.metrics.text import unicode_tokens
from nlpkit.eval.report.word_diff import DiffPiece, word_diff
from nlpkit.eval.runs.compare import CompareOptions, Comparison, compare_runs, unique_names
from nlpkit.eval.runs.run_folder import Run
from nlpkit.eval.runs.samples import SampleRecord

ReportKind = Literal["html", "md", "json"]

_KINDS: dict[str, ReportKind] = {".html": "html", ".htm": "html", ".md": "md", ".markdown": "md", ".json": "json"}
MAX_POINTS = 400
"""Rows drawn as dots for each system: more only make the page heavy. The means are over all rows."""

N_BINS = 8
MAX_TEXT = 1500
"""Most characters of an example's input that are shown."""


@dataclass(frozen=True, kw_only=True)
class ReportExample:
    """A row to look at.

    Attributes:
        system: Whose prediction it is.
        id: The row.
        score: Its segment score.
        source: The input, cut where it is long.
        prediction: The prediction, with what the reference lacks marked.
        reference: The closest reference, with what the prediction lacks marked.
        error: Why the row failed, or None.
    """

    system: str
    id: str
    score: float | None
    source: str
    prediction: tuple[DiffPiece, ...]
    reference: tuple[DiffPiece, ...]
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {
            "system": self.system,
            "id": self.id,
            "score": self.score,
            "source": self.source,
            "prediction": "".join(piece.text for piece in self.prediction),
            "reference": "".join(piece.text for piece in self.reference),
            "error": self.error,
        }


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs of one task on one data set.

    Attributes:
        task: Name of the task.
        data: Name of the data.
        names: One for each run.
        runs: The runs.
        metrics: Metrics that any run has, the main one first.
        main: The metric that sorts examples, or empty where nothing was scored.
        comparison: Paired tests, where there are several runs that can be compared.
        not_compared: Why there is no comparison, or empty.
        lengths: Score against length.
        best: Examples with the highest main score, for each system.
        worst: Examples with the lowest main score, for each system.
        failures: Rows that failed.
        words: Mean length in words of predictions, for each system, and of references.
    """

    task: str
    data: str
    names: tuple[str, ...]
    runs: tuple[Run, ...]
    metrics: tuple[str, ...]
    main: str
    comparison: Comparison | None
    not_compared: str
    lengths: tuple[Series, ...]
    best: tuple[tuple[ReportExample, ...], ...]
    worst: tuple[tuple[ReportExample, ...], ...]
    failures: tuple[ReportExample, ...]
    words: tuple[tuple[float, float | None], ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """All of it.

    Attributes:
        title: Heading.
        groups: One for each task and data set.
        notes: What whoever asked for it should know.
    """

    title: str
    groups: tuple[Group, ...]
    notes: tuple[str, ...] = ()


def report_kind(path: str) -> ReportKind:
    """Return the format that a file's name asks for.

    Raises:
        ConfigError: It asks for none of ours.
    """
    kind = _KINDS.get(Path(path).suffix.lower())
    if kind is None:
        raise ConfigError(
            f"A report cannot be written as {Path(path).suffix or path!r}. Name the file .html, .md or .json. "
            f"{did_you_mean(Path(path).suffix or 'html', _KINDS) if Path(path).suffix else ''}".rstrip()
        )
    return kind


def build_report(runs: Sequence[Run], *, title: str | None = None, n_examples: int = 5) -> Report:
    """Collect what a report shows.

    Args:
        runs: The runs; those of one task on the same rows stand side by side.
        title: Heading.
        n_examples: How many best and worst rows to show for each system.

    Returns:
        The report.

    Raises:
        InputError: There are no runs.
    """
    if not runs:
        raise InputError("There are no runs to report on. Name at least one run directory.")
    grouped: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        references = [[sample.index, list(sample.references)] for sample in run.samples]
        # By what was to be written, not by the data's own hash: predictions of other systems come without the inputs.
        grouped.setdefault((_task_key(run, runs), json.dumps(references)), []).append(run)
    groups = tuple(_group(members, n_examples) for members in grouped.values())
    notes = tuple(f"{group.task} on {group.data}: {group.not_compared}" for group in groups if group.not_compared)
    if title is None:
        title = "Evaluation: " + ", ".join(dict.fromkeys(f"{group.task} on {group.data}" for group in groups))
    return Report(title=title, groups=groups, notes=notes)


def _task_key(run: Run, runs: Sequence[Run]) -> str:
    name = str(run.record["task"]["name"])
    others = {str(other.record["task"]["name"]) for other in runs} - {"external"}
    return next(iter(others)) if name == "external" and len(others) == 1 else name


def report_dict(report: Report) -> dict[str, Any]:
    """Return a report as a JSON-ready dictionary."""
    return {
        "title": report.title,
        "groups": [
            {
                "task": group.task,
                "data": group.data,
                "systems": [
                    {"name": name, "folder": str(run.folder), "words": words[0], "record": run.record}
                    for name, run, words in zip(group.names, group.runs, group.words, strict=True)
                ],
                "comparison": group.comparison.to_dict() if group.comparison else None,
                "lengths": [
                    {
                        "system": series.name,
                        "bins": [
                            dict(zip(("length", "score", "rows", "error"), mean, strict=True)) for mean in series.means
                        ],
                    }
                    for series in group.lengths
                ],
                "best": [[example.to_dict() for example in examples] for examples in group.best],
                "worst": [[example.to_dict() for example in examples] for examples in group.worst],
                "failures": [example.to_dict() for example in group.failures],
            }
            for group in report.groups
        ],
        "notes": list(report.notes),
    }


def _group(runs: Sequence[Run], n_examples: int) -> Group:
    names = unique_names(runs)
    metrics = list(dict.fromkeys(name for run in runs for name, one in run.metrics.items() if "error" not in one))
    main = metrics[0] if metrics else ""
    comparison, why = None, ""
    if len(runs) > 1:
        try:
            comparison = compare_runs(runs, CompareOptions(n_examples=n_examples))
        except NlpkitError as error:
            why = str(error)
    sources = _sources(runs)
    ranked = [_ranked(run, main) for run in runs]
    higher = bool(next((run.metrics[main].get("higher_is_better", True) for run in runs if main in run.metrics), True))
    best, worst = [], []
    for name, samples in zip(names, ranked, strict=True):
        top = [
            _example(name, sample, main, sources) for sample in reversed(samples[-n_examples:] if n_examples else [])
        ]
        bottom = [_example(name, sample, main, sources) for sample in samples[:n_examples]]
        # Few rows: none should be shown as both.
        if len(samples) < 2 * n_examples:
            half = len(samples) // 2
            top, bottom = top[: len(samples) - half], bottom[:half]
        best.append(tuple(top if higher else bottom))
        worst.append(tuple(bottom if higher else top))
    first = runs[0]
    return Group(
        task=str(first.record["task"]["name"]),
        data=str(first.record["data"]["name"]),
        names=tuple(names),
        runs=tuple(runs),
        metrics=tuple(metrics),
        main=main,
        comparison=comparison,
        not_compared=why,
        lengths=tuple(
            _series(name, run, main, number) for number, (name, run) in enumerate(zip(names, runs, strict=True))
        ),
        best=tuple(best),
        worst=tuple(worst),
        failures=tuple(
            _example(name, sample, main, sources)
            for name, run in zip(names, runs, strict=True)
            for sample in run.samples
            if sample.error is not None
        )[:20],
        words=tuple(_words(run) for run in runs),
    )


def input_texts(sample: SampleRecord) -> list[str]:
    """Return the texts that the model read, the most telling last: of a question about a text the question."""
    known = [str(sample.row[name]) for name in input_names() if sample.row.get(name)]
    unknown = reference_names() | option_names()
    return known or [text for name, text in sample.row.items() if isinstance(text, str) and name not in unknown]


def _sources(runs: Sequence[Run]) -> dict[int, str]:
    """Return the input of each row, from a run that has it."""
    found: dict[int, str] = {}
    for run in runs:
        for sample in run.samples:
            text = next(reversed(input_texts(sample)), "")
            if text:
                found.setdefault(sample.index, text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + " …")
    return found


def _ranked(run: Run, metric: str) -> list[SampleRecord]:
    scored = [sample for sample in run.samples if isinstance(sample.scores.get(metric), (int, float))]
    return sorted(scored, key=lambda sample: (sample.scores[metric], -sample.index))


def _example(system: str, sample: SampleRecord, metric: str, sources: dict[int, str]) -> ReportExample:
    prediction, reference = word_diff(sample.prediction, _closest(sample))
    if not sample.references:
        prediction = (DiffPiece("same", sample.prediction),) if sample.prediction else ()
    return ReportExample(
        system=system,
        id=sample.id,
        score=sample.scores.get(metric),
        source=sources.get(sample.index, ""),
        prediction=prediction,
        reference=reference,
        error=sample.error,
    )


def _closest(sample: SampleRecord) -> str:
    """Return the reference that shares most words with the prediction."""
    words = set(unicode_tokens(sample.prediction))
    return max(sample.references, key=lambda text: len(words & set(unicode_tokens(text))), default="")


def _words(run: Run) -> tuple[float, float | None]:
    kept = [sample for sample in run.samples if sample.error is None]
    if not kept:
        return 0.0, None
    ours = sum(len(unicode_tokens(sample.prediction)) for sample in kept) / len(kept)
    with_reference = [sample for sample in kept if sample.references]
    if not with_reference:
        return ours, None
    theirs = sum(len(unicode_tokens(sample.references[0])) for sample in with_reference) / len(with_reference)
    return ours, theirs


def length_of(sample: SampleRecord) -> float:
    """Return a row's length for the chart: words of the input, or of the reference where the input is not known."""
    inputs = input_texts(sample)
    reference = sample.references[0] if sample.references else sample.prediction
    return float(sum(len(unicode_tokens(text)) for text in inputs or [reference]))


def _series(name: str, run: Run, metric: str, number: int) -> Series:
    pairs = [
        (length_of(sample), float(score))
        for sample in run.samples
        if isinstance(score := sample.scores.get(metric), (int, float))
    ]
    pairs.sort()
    bins = max(1, min(N_BINS, len(pairs) // 10))
    means = []
    for place in range(bins):
        part = pairs[place * len(pairs) // bins : (place + 1) * len(pairs) // bins]
        if part:
            scores = [score for _, score in part]
            mean = sum(scores) / len(scores)
            spread = sum((score - mean) ** 2 for score in scores) / max(1, len(scores) - 1)
            middle = part[len(part) // 2][0]
            means.append((middle, mean, len(part), math.sqrt(spread / len(part))))
    step = max(1, math.ceil(len(pairs) / MAX_POINTS))
    return Series(name, tuple(pairs[::step]), tuple(means), number)
