"""One model with and without its tasks' adapters: each is loaded on first use and kept; rows go where they belong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nlpkit.apps.models.adapters import ModelChoice, TaskAdapter
from nlpkit.apps.pipeline.result import TaskResult
from nlpkit.apps.pipeline.run import run_task, stream_task
from nlpkit.apps.tasks.rows import Prepared
from nlpkit.apps.tasks.task import Overflow, Row, Task
from nlpkit.core.errors import NlpkitError

if TYPE_CHECKING:
    from nlpkit.core.language_model import LanguageModel

LoadAdapter = Callable[[TaskAdapter | None, "LanguageModel | None"], "LanguageModel"]
"""Loads the model with an adapter; gets a model that is loaded already, to share with it what no adapter changes."""


class ModelPool:
    """Models by adapter. May be used from several threads: no model is loaded twice.

    Args:
        load: Loads one.
    """

    def __init__(self, load: LoadAdapter) -> None:
        self._load = load
        self._models: dict[TaskAdapter | None, LanguageModel] = {}
        self._lock = threading.Lock()

    def get(self, adapter: TaskAdapter | None) -> LanguageModel:
        """Return the model with this adapter.

        Raises:
            NlpkitError: It cannot be loaded.
        """
        if adapter not in self._models:
            with self._lock:
                if adapter not in self._models:
                    loaded = next(iter(self._models.values()), None)
                    self._models[adapter] = self._load(adapter, loaded)
        return self._models[adapter]

    def run(
        self,
        task: Task[Any],
        rows: Sequence[tuple[Row | Prepared[Any] | NlpkitError, ModelChoice]],
        *,
        overrides: Mapping[str, Any] | None = None,
        on_overflow: Overflow | None = None,
        batch_tokens: int | None = None,
        keep_going: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[TaskResult]:
        """Run a task over rows, each on its model; rows of one model share batches.

        Args:
            task: The task.
            rows: Rows, or errors in their place, and what each runs on.
            overrides: As `run_task`.
            on_overflow: As `run_task`.
            batch_tokens: As `run_task`.
            keep_going: As `run_task`.
            progress: As `run_task`; counts over all models.

        Returns:
            One result a row, in order; notes about the choice are among its warnings.

        Raises:
            NlpkitError: As `run_task`, or a model cannot be loaded.
        """
        groups: dict[TaskAdapter | None, list[Row | Prepared[Any] | NlpkitError]] = {}
        for row, choice in rows:
            groups.setdefault(choice.adapter, []).append(row)
        counts = _Sum(progress)
        streams = {
            adapter: run_task(
                self.get(adapter),
                task,
                group,
                overrides=overrides,
                on_overflow=on_overflow,
                batch_tokens=batch_tokens,
                keep_going=keep_going,
                progress=counts.part(adapter),
            )
            for adapter, group in groups.items()
        }
        return (_noted(next(streams[choice.adapter]), choice) for _, choice in rows)

    def stream(
        self,
        task: Task[Any],
        row: Row | Prepared[Any],
        choice: ModelChoice,
        *,
        overrides: Mapping[str, Any] | None = None,
        on_overflow: Overflow | None = None,
    ) -> Iterator[str | TaskResult]:
        """Run a task on one row as `stream_task` does, on the model that was chosen."""
        pieces = stream_task(self.get(choice.adapter), task, row, overrides=overrides, on_overflow=on_overflow)
        return (_noted(piece, choice) if isinstance(piece, TaskResult) else piece for piece in pieces)


def only(lm: LanguageModel) -> ModelPool:
    """Return a pool of one model, which serves whatever adapter is asked for."""
    return ModelPool(lambda adapter, loaded: lm)


def _noted(result: TaskResult, choice: ModelChoice) -> TaskResult:
    return replace(result, warnings=(choice.note, *result.warnings)) if choice.note else result


class _Sum:
    """Adds up the progress of several runs."""

    def __init__(self, report: Callable[[int, int], None] | None) -> None:
        self._report = report
        self._parts: dict[object, tuple[int, int]] = {}

    def part(self, key: object) -> Callable[[int, int], None]:
        """Return what one run reports to."""

        def report(done: int, total: int) -> None:
            self._parts[key] = (done, total)
            if self._report is not None:
                self._report(*map(sum, zip(*self._parts.values(), strict=True)))

        return report
