"""Running a task over data into a run directory that can be killed at any moment and taken up again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlpkit.apps.pipeline.plan import add_task_options, build_decoding, default_overflow, encoder_of, learned_by
from nlpkit.apps.pipeline.result import TaskResult
from nlpkit.apps.pipeline.run import run_task
from nlpkit.apps.tasks.encoder import PromptEncoder
from nlpkit.apps.tasks.table import file_sha256
from nlpkit.apps.tasks.task import Overflow, Prediction, Task
from nlpkit.core.errors import InputError, NlpkitError
from nlpkit.core.files.hashing import hash_value
from nlpkit.eval.data.datasets import DataRow, Dataset
from nlpkit.eval.data.fewshot import Shots
from nlpkit.eval.metrics.registry import find_entry
from nlpkit.eval.runs.likelihood import target_likelihood
from nlpkit.eval.runs.provenance import describe_session, now
from nlpkit.eval.runs.rescoring import RunOutcome, count_samples, score_into
from nlpkit.eval.runs.run_folder import RUN_FORMAT, SAMPLES, check_same_run, finite, hold, read_record, write_record
from nlpkit.eval.runs.samples import SampleLog, SampleRecord, read_samples, write_samples
from nlpkit.eval.runs.scoring import ScoringOptions

if TYPE_CHECKING:
    from nlpkit.core.language_model import LanguageModel

BLOCK = 64
"""Rows that are run together. Results come in order, so a kill loses at most the work on one block."""

RECORD_SECONDS = 5.0
"""How often the run record is brought up to date while the run goes on."""

DEFAULT_SEED = 1234
"""Seed of sampling tasks, unless another is given."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What to run.

    Attributes:
        scoring: Metrics and their options.
        overrides: `DecodeConfig` fields that the user set.
        on_overflow: What to do with inputs that do not fit; None is the task's own default.
        batch_tokens: Token budget of the engine's batches.
        seed: Seed of sampling; each row samples from a stream of its own, keyed by seed and row.
        shots: Few-shot examples.
        retry_failed: Whether rows that failed in an earlier session are run again.
        max_errors: Stop when more rows than this have failed; None never stops.
        name: What to call the system in tables; by default by its model, adapter and number of shots.
        note: Free text for the record.
    """

    scoring: ScoringOptions
    overrides: Mapping[str, Any] = field(default_factory=dict)
    on_overflow: Overflow | None = None
    batch_tokens: int | None = None
    seed: int = DEFAULT_SEED
    shots: Shots | None = None
    retry_failed: bool = False
    max_errors: int | None = None
    name: str = ""
    note: str = ""


def run_evaluation(
    lm: LanguageModel,
    task: Task[Any],
    dataset: Dataset,
    folder: Path,
    settings: RunSettings,
    *,
    progress: Callable[[int, int], None] | None = None,
    argv: list[str] | None = None,
) -> RunOutcome:
    """Run a task over data, or go on with a run that was stopped, and score it.

    Args:
        lm: The model.
        task: The task.
        dataset: The rows.
        folder: The run directory; made if it is not there.
        settings: What to run.
        progress: Called with rows done and rows in all.
        argv: The command line for the record; by default that of the process.

    Returns:
        The record and what happened. Metrics that could not be computed are recorded with their error: the samples
        are kept whatever happens to the scores.

    Raises:
        ConfigError: The folder holds a run of something else, or an option is wrong.
        OutputError: The folder cannot be written, or another process writes to it.
        InputError: More rows failed than `max_errors`.
    """
    settings.scoring.check()
    solved = None if settings.shots is None else partial(settings.shots.solved, task)
    encoder = encoder_of(lm, solved)
    record = _new_record(lm, task, dataset, settings, encoder)
    with hold(folder):
        before = read_record(folder)
        if before is not None:
            check_same_run(folder, before, record)
        session = _Session(lm, encoder, task, dataset, folder, settings, record, before, argv)
        try:
            session.run(progress)
        except BaseException:
            session.record["status"] = "stopped"
            session.save()
            raise
        return session.finish()


def _new_record(
    lm: LanguageModel, task: Task[Any], dataset: Dataset, settings: RunSettings, encoder: PromptEncoder
) -> dict[str, Any]:
    decoding = build_decoding(task, settings.overrides)
    first = next((row.prepared.example for row in dataset.rows if row.prepared is not None), None)
    if first is not None and encoder.short(task, first) is not None:
        given = [name for name, value in settings.overrides.items() if value is not None]
        wanted = task.decoding(first, learned=learned_by(lm))
        decoding = add_task_options(decoding, wanted, user_options=given)
    record: dict[str, Any] = {
        "nlpkit_run": RUN_FORMAT,
        "name": settings.name or system_name(lm.name, lm.adapter) + _shots_suffix(settings.shots),
        "status": "running",
        "task": {
            "name": task.name,
            "version": task.version,
            **({} if file_sha256(task) is None else {"file_sha256": file_sha256(task)}),
            "shots": None if settings.shots is None else settings.shots.describe(),
        },
        "data": dataset.describe(),
        "model": lm.describe(),
        "decoding": {
            **decoding.to_dict(),
            # None: each row gets what the task allows it.
            "max_tokens": settings.overrides.get("max_tokens"),
        },
        "on_overflow": settings.on_overflow or default_overflow(task),
        "seed": settings.seed if decoding.temperature > 0 else None,
        "note": settings.note,
    }
    # Through JSON's eyes, so that a fresh record equals the same one read back.
    cleaned: dict[str, Any] = finite(record)
    return cleaned


class _Session:
    """One process' work on a run."""

    def __init__(
        self,
        lm: LanguageModel,
        encoder: PromptEncoder,
        task: Task[Any],
        dataset: Dataset,
        folder: Path,
        settings: RunSettings,
        record: dict[str, Any],
        before: dict[str, Any] | None,
        argv: list[str] | None,
    ) -> None:
        self.lm = lm
        self.encoder = encoder
        self.task = task
        self.dataset = dataset
        self.folder = folder
        self.settings = settings
        self.notes: list[str] = []
        self.record = record
        self.previous = list((before or {}).get("sessions") or [])
        self.this = {**describe_session(argv), "ended": None, "rows": 0, "output_tokens": 0, "seconds": 0.0}
        self.record["started"] = (before or {}).get("started") or self.this["started"]
        self.record["metrics"] = (before or {}).get("metrics") or {}
        self.record["example_prompt"] = self._example_prompt()
        self._wants_likelihood = any(find_entry(name).needs == "likelihood" for name in settings.scoring.metrics)
        self.done = self._open()
        self.save()

    def _open(self) -> dict[int, SampleRecord]:
        """Read what earlier sessions left and mend it: half lines go, and rows that are not this run's are refused."""
        path = self.folder / SAMPLES
        records, damage = read_samples(path)
        wanted = {row.index: row for row in self.dataset.rows}
        kept = []
        for record in records:
            row = wanted.get(record.index)
            if row is None or row.sha256 != record.row_sha256:
                raise InputError(
                    f"{path} holds a row {record.index} that is not in the data, though the run record says they are "
                    "the same. The directory was mixed up: give a new --output."
                )
            if not (record.error is not None and self.settings.retry_failed):
                kept.append(record)
        if damage or len(kept) < len(records):
            write_samples(path, kept)
        if damage:
            what = "a half-written row" if damage.half_line else "damaged rows"
            self.notes.append(f"{what} from an earlier session is run again")
        if kept:
            self.notes.append(f"{len(kept)} of {len(self.dataset.rows)} rows are there from before")
        return {record.index: record for record in kept}

    def run(self, progress: Callable[[int, int], None] | None) -> None:
        """Run all rows that are not there yet."""
        total = len(self.dataset.rows)
        with SampleLog(self.folder / SAMPLES) as log:
            began = saved = time.monotonic()
            for row, result in self._results():
                record = self._sample(row, result)
                log.append(record)
                self.done[record.index] = record
                self.this["rows"] += 1
                self.this["output_tokens"] += record.output_tokens
                self.this["seconds"] = time.monotonic() - began
                if progress is not None:
                    progress(len(self.done), total)
                if time.monotonic() - saved > RECORD_SECONDS:
                    self.save()
                    saved = time.monotonic()
                self._check_errors(record)

    def _check_errors(self, record: SampleRecord) -> None:
        limit = self.settings.max_errors
        if limit is None or record.error is None:
            return
        failed = sum(done.error is not None for done in self.done.values())
        if failed > limit:
            raise InputError(
                f"{failed} rows failed, more than the {limit} that --max-errors allows; the last one: {record.error} "
                f"What was done is kept in {self.folder}."
            )

    def _results(self) -> Iterator[tuple[DataRow, TaskResult]]:
        rows = self.dataset.rows
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            missing = [row for row in block if row.index not in self.done]
            if not missing:
                continue
            # In 16 bits a row's rounding depends on the rows beside it: a block that was cut short is run whole once
            # more, so that a run that was killed ends with the very texts of one that was not.
            run = missing if self.lm.dtype == "fp32" else block
            for row, result in self._run_block(run):
                if row.index not in self.done:
                    yield row, result

    def _run_block(self, rows: Sequence[DataRow]) -> Iterator[tuple[DataRow, TaskResult]]:
        """Run rows together; where something unforeseen goes wrong, the rest one by one, to find the row at fault."""
        place = 0
        try:
            for result in self._run_rows(rows):
                yield rows[place], result
                place += 1
            return
        except Exception as error:
            if place >= len(rows) or isinstance(error, NlpkitError):
                raise
        for row in rows[place:]:
            try:
                result = next(self._run_rows([row]))
            except NlpkitError:
                raise
            except Exception as error:
                result = TaskResult(
                    prediction=Prediction(""), finish_reason="error", error=f"{type(error).__name__}: {error}"
                )
            yield row, result

    def _run_rows(self, rows: Sequence[DataRow]) -> Iterator[TaskResult]:
        return run_task(
            self.lm,
            self.task,
            [row.prepared or row.example for row in rows],
            overrides=self.settings.overrides,
            on_overflow=self.settings.on_overflow,
            batch_tokens=self.settings.batch_tokens,
            keep_going=True,
            window=max(BLOCK, len(rows)),
            seeds=[self._row_seed(row) for row in rows],
            solved=self.encoder.solved,
        )

    def _row_seed(self, row: DataRow) -> int:
        # Of its own for each row: with one seed for all, equal prompts would get equal texts.
        digest = hashlib.sha256(f"{self.settings.seed}:{row.index}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1

    def _sample(self, row: DataRow, result: TaskResult) -> SampleRecord:
        error = result.error
        if error is not None and not error.startswith(row.where):
            error = f"{row.where}: {error.split(': ', 1)[-1] if error.startswith('row ') else error}"
        values: dict[str, Any] = {}
        if row.prepared is not None:
            example = row.prepared.example
            target = self.task.target(example)
            values = {
                "row": dict(row.prepared.row),
                "prompt_sha256": hash_value(self.encoder.describe(self.task, example)),
                "references": () if target is None else target.accepted,
                "form": self.task.prompt(example).form,
            }
            if self._wants_likelihood and error is None:
                try:
                    values["likelihood"] = target_likelihood(self.lm, self.encoder, self.task, example)
                except NlpkitError as problem:
                    error = f"{row.where}: {problem}"
        return SampleRecord(
            index=row.index,
            id=row.id,
            row_sha256=row.sha256,
            completion=result.completion,
            prediction=result.text,
            fields=finite(result.fields),
            finish_reason=result.finish_reason if error is None else "error",
            input_tokens=result.input_tokens,
            used_tokens=result.used_tokens,
            output_tokens=result.output_tokens,
            truncated=result.truncated,
            chunks=result.chunks,
            degenerate=result.degenerate,
            seed=result.seed,
            seconds=round(result.seconds, 4),
            warnings=result.warnings,
            error=error,
            **{"row": {}, **values},
        )

    def _example_prompt(self) -> list[dict[str, str]]:
        for row in self.dataset.rows:
            if row.prepared is not None:
                return self.encoder.describe(self.task, row.prepared.example)
        return []

    def save(self) -> None:
        """Bring the run record up to date."""
        self.record["sessions"] = [*self.previous, self.this]
        self.record["counts"] = count_samples(list(self.done.values()), len(self.dataset.rows))
        seconds = sum(float(session.get("seconds") or 0.0) for session in self.record["sessions"])
        tokens = sum(int(session.get("output_tokens") or 0) for session in self.record["sessions"])
        self.record["seconds"] = round(seconds, 3)
        self.record["tokens_per_second"] = round(tokens / seconds, 2) if seconds > 0 else None
        write_record(self.folder, self.record)

    def finish(self) -> RunOutcome:
        """Score, and write everything down."""
        self.this["ended"] = now()
        records = [self.done[row.index] for row in self.dataset.rows]
        scores = score_into(self.folder, self.record, records, self.settings.scoring)
        codes = {hash_value(session["code"]) for session in self.record["sessions"]}
        if len(codes) > 1:
            self.record["notes"] = [*scores.notes, "The rows were written by different versions of the code."]
        self.record["status"] = "complete"
        self.save()
        return RunOutcome(self.folder, self.record, tuple(self.notes))


def system_name(model: str, adapter: str | None) -> str:
    """Return what a system is called in tables: the model's name or file name, and the adapter's."""
    name = Path(model).stem if model.endswith(".gguf") else Path(model).name or model
    return name if adapter is None else f"{name}+{Path(adapter).name}"


def _shots_suffix(shots: Shots | None) -> str:
    return "" if shots is None else f", {shots.count} shot{'s' if shots.count > 1 else ''}"
