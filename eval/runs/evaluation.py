"""What the `nlpkit eval` commands do, apart from reading options and printing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlpkit.apps.models.adapters import AdapterChooser, ModelChoice, NotLearnedError, TaskAdapter
from nlpkit.apps.models.spec import ModelSpec
from nlpkit.apps.pipeline.plan import build_decoding
from nlpkit.apps.tasks.table import load_task
from nlpkit.apps.tasks.task import Task
from nlpkit.core.errors import ConfigError, InputError, NlpkitError
from nlpkit.eval.data.datasets import DataOptions, DataRow, Dataset, load_dataset
from nlpkit.eval.data.fewshot import Shots, draw_shots
from nlpkit.eval.data.overlap import data_overlap
from nlpkit.eval.metrics.registry import MetricOptions, find_entry
from nlpkit.eval.runs.rescoring import RunOutcome, default_metrics, rescore
from nlpkit.eval.runs.run_folder import load_run
from nlpkit.eval.runs.runner import RunSettings, run_evaluation, system_name
from nlpkit.eval.runs.scoring import ScoringOptions

if TYPE_CHECKING:
    from nlpkit.core.language_model import LanguageModel

LoadModel = Callable[[ModelSpec, TaskAdapter | None], "LanguageModel"]
"""Loads a model with what it is used with, such as `ModelSpec.load`."""

RUNS = "runs"
"""Folder of runs whose --output was not given."""


@dataclass(frozen=True, kw_only=True)
class ScoringChoice:
    """Scoring options as given; None and empty mean the default.

    Attributes:
        metrics: Names; empty for the task's own.
        options: Choices about them.
        n_resamples: Bootstrap resamples.
        seed: Their seed.
    """

    metrics: tuple[str, ...] = ()
    options: MetricOptions = field(default_factory=MetricOptions)
    n_resamples: int = 1000
    seed: int | None = None

    def settle(self, task: Task[Any] | None = None) -> ScoringOptions:
        """Fill in the task's metrics.

        Raises:
            ConfigError: A metric or option is wrong.
        """
        names = self.metrics or (default_metrics(task) if task is not None else ())
        chosen = ScoringOptions(metrics=names, options=self.options, n_resamples=self.n_resamples)
        if self.seed is not None:
            chosen = replace(chosen, seed=self.seed)
        chosen.check()
        return chosen


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which rows to run.

    Attributes:
        limit: Only the first rows.
        shard: ``i/n``.
        exclude_overlap: Training files; rows that share n-grams with them are left out.
        overlap_n: Length of those n-grams.
    """

    limit: int | None = None
    shard: str | None = None
    exclude_overlap: tuple[str, ...] = ()
    overlap_n: int = 13

    def apply(self, dataset: Dataset) -> Dataset:
        """Select: overlap first, then the limit, then the shard.

        Raises:
            ConfigError: The shard is malformed or a number out of range.
            InputError: No row is left, or a training file cannot be read.
        """
        if self.exclude_overlap:
            dataset = self._without_overlap(dataset)
        if self.limit is not None:
            dataset = dataset.limit(self.limit)
        if self.shard is not None:
            dataset = dataset.shard(*parse_shard(self.shard))
        return dataset

    def _without_overlap(self, dataset: Dataset) -> Dataset:
        rows: list[tuple[str, Mapping[str, Any]]] = [
            (row.id, {} if isinstance(row.example, NlpkitError) else row.example) for row in dataset.rows
        ]
        overlap = data_overlap(self.exclude_overlap, rows, orders=(self.overlap_n, 13, 8))
        bad = {dataset.rows[index].index for index in overlap.rows(self.overlap_n)}
        note = {
            "n": self.overlap_n,
            "excluded": len(bad),
            "train": [{"sha256": file["sha256"], "bytes": file["bytes"]} for file in overlap.train],
            "overlap": overlap.summary(),
        }
        return dataset.select(lambda row: row.index not in bad, {"exclude_overlap": note})


def parse_shard(text: str) -> tuple[int, int]:
    """Read ``i/n``.

    Raises:
        ConfigError: It is something else.
    """
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    if match is None:
        raise ConfigError(f"--shard is {text!r}; it must be a number and a count, such as 1/4.")
    return int(match[1]), int(match[2])


@dataclass(frozen=True, kw_only=True)
class ShotOptions:
    """Few-shot examples.

    Attributes:
        count: How many; 0 for none.
        path: File that they come from.
        seed: Seed of the draw.
    """

    count: int = 0
    path: str | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One task on one data set, for any number of models.

    Attributes:
        task: Name of the task.
        data: Data files.
        models: The models.
        data_options: How to read the data.
        selection: Which rows.
        scoring: What to score.
        overrides: Decoding options that were given.
        settings: Everything else about a run; its scoring, overrides and shots are filled in here.
        shots: Few-shot examples.
        keep_going: Whether rows that the task cannot use are recorded instead of refused.
    """

    task: str
    data: tuple[str, ...]
    models: tuple[ModelSpec, ...]
    data_options: DataOptions = field(default_factory=DataOptions)
    selection: Selection = field(default_factory=Selection)
    scoring: ScoringChoice = field(default_factory=ScoringChoice)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    settings: RunSettings = field(default_factory=lambda: RunSettings(scoring=ScoringOptions(metrics=("bleu",))))
    shots: ShotOptions = field(default_factory=ShotOptions)
    keep_going: bool = False

    def prepare(self) -> PreparedEvaluation:
        """Read and check everything that can be checked without a model.

        Raises:
            NlpkitError: An option or the data are wrong.
        """
        task = load_task(self.task)
        overrides = dict(self.overrides)
        seed = overrides.pop("seed", None)
        build_decoding(task, overrides)
        scoring = self.scoring.settle(task)
        dataset = self.selection.apply(
            load_dataset(self.data, task, options=self.data_options, keep_going=self.keep_going)
        )
        scoring, dropped = self._fit(scoring, task, dataset)
        settings = replace(self.settings, scoring=scoring, overrides=overrides)
        if seed is not None:
            settings = replace(settings, seed=seed)
        if self.shots.count or self.shots.path:
            settings = replace(settings, shots=self._draw(task))
        choices = tuple(choose_adapter(model, task, dataset, settings.shots) for model in self.models)
        return PreparedEvaluation(self, task, dataset, settings, choices, dropped)

    def _fit(
        self, scoring: ScoringOptions, task: Task[Any], dataset: Dataset
    ) -> tuple[ScoringOptions, tuple[str, ...]]:
        """Refuse metrics whose references are missing, now and not after hours; drop default ones if all are."""
        lacking = [row for row in dataset.rows if not has_references(task, row)]
        needing = [name for name in scoring.metrics if find_entry(name).needs in ("references", "answers")]
        if not lacking or not needing:
            return scoring, ()
        kept = tuple(name for name in scoring.metrics if name not in needing)
        if self.scoring.metrics or len(lacking) < len(dataset.rows) or not kept:
            raise InputError(
                f"{lacking[0].where}: the row has no reference, which {needing[0]} needs; {len(lacking)} of "
                f"{len(dataset.rows)} rows have none. Add them, or name metrics that need none with --metric, such as "
                "length_words."
            )
        return replace(scoring, metrics=kept), tuple(needing)

    def _draw(self, task: Task[Any]) -> Any:
        if not self.shots.count or self.shots.path is None:
            raise ConfigError("--shots K and --shots-from FILE belong together: give both.")
        options = replace(self.data_options, references=(), split=None, format="auto")
        return draw_shots(
            load_dataset([self.shots.path], task, options=options), task, count=self.shots.count, seed=self.shots.seed
        )


@dataclass(frozen=True)
class PreparedEvaluation:
    """An evaluation whose data are read.

    Attributes:
        evaluation: What it was made of.
        task: The task.
        dataset: The rows.
        settings: What to run.
        choices: The adapter of each model.
        dropped: The task's metrics that are left out, since no row has a reference.
    """

    evaluation: Evaluation
    task: Task[Any]
    dataset: Dataset
    settings: RunSettings
    choices: tuple[ModelChoice, ...]
    dropped: tuple[str, ...] = ()

    def folders(self, output: str | None, *, nested: bool = False) -> list[Path]:
        """Return the run directory of each model.

        Args:
            output: What the user gave: the directory itself for one model, the folder of them for several.
            nested: Whether it is the folder of them for one model too.
        """
        names = [
            safe_name(system_name(model.name, None if choice.adapter is None else choice.adapter.name))
            for model, choice in zip(self.evaluation.models, self.choices, strict=True)
        ]
        if len(set(names)) < len(names):
            names = [f"{name}-{number}" for number, name in enumerate(names, 1)]
        if output is not None:
            return [Path(output)] if len(names) == 1 and not nested else [Path(output) / name for name in names]
        shard = f"-shard{self.evaluation.selection.shard.replace('/', 'of')}" if self.evaluation.selection.shard else ""
        return [Path(RUNS) / f"{self.task.name}-{safe_name(self.dataset.name)}-{name}{shard}" for name in names]

    def run(
        self,
        output: str | None,
        *,
        load: LoadModel,
        report: Callable[[str], None],
        progress: Callable[[int, int], None] | None = None,
        nested: bool = False,
    ) -> list[RunOutcome]:
        """Run each model in turn; only one is in memory at a time.

        Args:
            output: As `folders`.
            load: Loads a model; what it shows meanwhile is its own affair.
            report: Gets what a user should know.
            progress: Gets rows done and rows in all, of one model.
            nested: As `folders`.

        Returns:
            One outcome a model.

        Raises:
            NlpkitError: A model cannot be used, or a run cannot be continued.
        """
        outcomes = []
        if self.dropped:
            report(f"{self.dataset.name} has no references: {', '.join(self.dropped)} are left out")
        folders = self.folders(output, nested=nested)
        for model, choice, folder in zip(self.evaluation.models, self.choices, folders, strict=True):
            if choice.note:
                report(choice.note)
            lm = load(model, choice.adapter)
            outcome = run_evaluation(lm, self.task, self.dataset, folder, self.settings, progress=progress)
            for text in outcome.notes:
                report(f"{folder}: {text}")
            outcomes.append(outcome)
            del lm
        return outcomes


def has_references(task: Task[Any], row: DataRow) -> bool:
    """Tell whether a row says what should come out; for questions, an empty list of answers does say it."""
    return row.prepared is None or task.target(row.prepared.example) is not None


def choose_adapter(model: ModelSpec, task: Task[Any], dataset: Dataset, shots: Shots | None = None) -> ModelChoice:
    """Choose the adapter of a whole run, by the rule that each of its rows would follow in a command.

    Args:
        model: The model.
        task: The task.
        dataset: The rows.
        shots: Solved examples before each prompt.

    Returns:
        The adapter, and what a user should know about it.

    Raises:
        ConfigError: Some rows get the shipped adapter and others the bare model: a run is of one system.
        NlpkitError: There is no such adapter.
    """
    chooser = AdapterChooser(model.name, model.adapter)
    found: dict[TaskAdapter | None, tuple[ModelChoice, DataRow]] = {}
    for row in dataset.rows:
        if row.prepared is None:
            continue
        example = row.prepared.example
        try:
            choice = chooser.choose(task, example, solved=() if shots is None else shots.before(task, example))
        except NotLearnedError as error:
            raise NotLearnedError(f"{row.where}: {error}") from error
        found.setdefault(choice.adapter, (choice, row))
    if not found:
        return ModelChoice(chooser.usual(task))
    (choice, first), *others = found.values()
    if others:
        other, second = others[0]
        (_, bare), (adapter, tuned) = sorted(
            [(choice.adapter, first), (other.adapter, second)], key=lambda pair: pair[0] is not None
        )
        name = "" if adapter is None else adapter.name
        raise ConfigError(
            f"{tuned.where} is a row for the adapter {name!r} of {model.name}, and {bare.where} is one for the model "
            "without it, because the adapter did not learn rows of this kind; a run is of one system. Split the data, "
            f"or choose one for all rows with --adapter {name} or --adapter none."
        )
    return choice


def safe_name(text: str) -> str:
    """Return a text as part of a file name."""
    return re.sub(r"[^\w.+-]+", "_", text).strip("._") or "unnamed"


def rescore_run(folder: str, choice: ScoringChoice) -> RunOutcome:
    """Score a run again; what was not chosen stays as it was.

    Args:
        folder: The run directory.
        choice: Metrics and options; without metrics those of the run, with the options that were given.

    Returns:
        The new record.

    Raises:
        NlpkitError: It is no run directory, or an option is wrong.
    """
    if choice == ScoringChoice():
        return rescore(Path(folder))
    stored = load_run(folder).record.get("scoring")
    before = ScoringOptions.from_dict(stored) if stored else None
    names = choice.metrics or (before.metrics if before else ())
    options = choice.options
    if before is not None and options == MetricOptions():
        options = before.options
    return rescore(Path(folder), replace(choice, metrics=names, options=options).settle())
