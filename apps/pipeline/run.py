"""Running a task: examples in, results out, in order. The command line, evaluation and batch jobs all come here."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any

from nlpkit.apps.pipeline.job import Job, TaskRun
from nlpkit.apps.pipeline.result import Alternative, TaskResult
from nlpkit.apps.tasks.encoder import Solved
from nlpkit.apps.tasks.rows import Prepared, like_of, read_completion
from nlpkit.apps.tasks.task import Overflow, Row, Task
from nlpkit.core.decode.request import Completion, Generation, Request
from nlpkit.core.errors import NlpkitError

if TYPE_CHECKING:
    from nlpkit.core.language_model import LanguageModel

__all__ = ["Alternative", "TaskResult", "run_task", "stream_task"]

WINDOW = 256
"""Requests that are planned ahead: enough to pack batches well, few enough to bound memory."""

FIRST_WINDOW = 16
"""Requests that are planned ahead at first: whoever waits for results gets the first of many soon."""


def run_task(
    lm: LanguageModel,
    task: Task[Any],
    rows: Iterable[Row | Prepared[Any] | NlpkitError],
    *,
    overrides: Mapping[str, Any] | None = None,
    on_overflow: Overflow | None = None,
    batch_tokens: int | None = None,
    keep_going: bool = False,
    progress: Callable[[int, int], None] | None = None,
    window: int = WINDOW,
    seeds: Sequence[int] = (),
    solved: Solved | None = None,
) -> Iterator[TaskResult]:
    """Run a task over many rows.

    Rows are read a window at a time, so that input of any length takes bounded memory; chunks of all rows in
    a window share the engine's batches.

    Args:
        lm: The model.
        task: The task.
        rows: Rows, or what was prepared of them. An error in place of one (from a reader that keeps going) is raised,
            or recorded.
        overrides: `DecodeConfig` fields that the user set. `max_tokens` holds for each chunk.
        on_overflow: What to do with inputs that do not fit the context; None is the task's own default.
        batch_tokens: Token budget of the engine's batches; None lets the engine choose.
        keep_going: Record a row's error in its result instead of raising it.
        progress: Called with the numbers of finished and of expected model requests; the latter is an estimate
            until all rows are planned.
        window: Requests to plan ahead.
        seeds: One for each row, for tasks that sample and where the user gave none.
        solved: Solved examples before each prompt.

    Yields:
        One result a row, in input order.

    Raises:
        NlpkitError: An option is wrong, or a row cannot be used and `keep_going` is off.
    """
    run = TaskRun(lm, task, overrides or {}, on_overflow, solved)
    return _Windows(run, batch_tokens, keep_going, _Progress(progress, rows), window).results(rows, seeds)


class _Progress:
    """Counts requests, finished and expected."""

    def __init__(self, report: Callable[[int, int], None] | None, rows: Iterable[object]) -> None:
        self._report = report
        self._rows = len(rows) if isinstance(rows, Sized) else 0
        self._rows_planned = 0
        self._planned = 0
        self._done = 0

    def plan(self, requests: int, *, new_row: bool = False) -> None:
        self._planned += requests
        self._rows_planned += new_row

    def finish(self) -> None:
        self._done += 1
        if self._report is not None:
            rest = max(0, self._rows - self._rows_planned)
            self._report(self._done, self._planned + rest * self._planned // max(1, self._rows_planned))


class _Windows:
    """Runs rows a window at a time."""

    def __init__(
        self, run: TaskRun, batch_tokens: int | None, keep_going: bool, progress: _Progress, window: int
    ) -> None:
        self.run = run
        self.batch_tokens = batch_tokens
        self.keep_going = keep_going
        self.progress = progress
        self.window = max(1, window)
        # The first results come soon: windows grow to their full size.
        self.size = min(FIRST_WINDOW, self.window)
        self.pending: deque[Job] = deque()

    def results(self, rows: Iterable[Row | Prepared[Any] | NlpkitError], seeds: Sequence[int]) -> Iterator[TaskResult]:
        planned = 0
        for number, row in enumerate(rows, start=1):
            try:
                if isinstance(row, NlpkitError):
                    raise row
                seed = seeds[number - 1] if seeds else None
                job = self.run.start(row, where=f"row {number}", seed=seed)
            except NlpkitError as error:
                if not self.keep_going:
                    yield from self._drain()
                    raise
                job = self.run.fail(_row_of(row), error)
            requests = len(job.todo) + (job.choice is not None or job.composition is not None)
            self.progress.plan(requests, new_row=True)
            planned += requests
            self.pending.append(job)
            if planned >= self.size or len(self.pending) >= self.size:
                yield from self._drain()
                planned = 0
                self.size = min(2 * self.size, self.window)
        yield from self._drain()

    def _drain(self) -> Iterator[TaskResult]:
        """Finish all pending jobs, yielding each result as soon as it is the next in line."""
        self._choose([job for job in self.pending if job.choice is not None])
        yield from self._ready()
        for job in [job for job in self.pending if job.composition is not None]:
            self._compose(job)
            yield from self._ready()
        while self.pending:
            work = [(job, index, request) for job in self.pending for index, request in job.todo]
            for job in self.pending:
                job.todo = []
            for begin in range(0, len(work), self.window):
                for job, index, generation in self._generate(work[begin : begin + self.window]):
                    self._record(job, index, generation)
                    yield from self._ready()

    def _choose(self, jobs: Sequence[Job]) -> None:
        """Score closed sets of answers together; with `keep_going`, after an error row by row."""
        if not jobs:
            return
        try:
            self.run.choose(jobs)
        except NlpkitError as error:
            if not self.keep_going:
                raise
            if len(jobs) > 1:
                for job in jobs:
                    self._choose([job])
                return
            jobs[0].choice, jobs[0].result = None, self.run.failure(jobs[0].row, error)
        for _ in jobs:
            self.progress.finish()

    def _compose(self, job: Job) -> None:
        try:
            self.run.compose(job, batch_tokens=self.batch_tokens)
        except NlpkitError as error:
            if not self.keep_going:
                raise
            job.composition, job.result = None, self.run.failure(job.row, error)
        self.progress.finish()

    def _ready(self) -> Iterator[TaskResult]:
        while self.pending and self.pending[0].result is not None:
            result = self.pending.popleft().result
            if result is not None:
                yield result

    def _record(self, job: Job, index: int, generation: Generation | NlpkitError) -> None:
        self.progress.finish()
        if job.result is not None:
            return
        try:
            if isinstance(generation, NlpkitError):
                raise generation
            self.run.record(job, index, generation)
            if not job.outstanding:
                self.run.advance(job)
                self.progress.plan(len(job.todo))
        except NlpkitError as error:
            if not self.keep_going:
                raise
            job.todo = []
            job.result = self.run.failure(job.row, error)

    def _generate(
        self, work: Sequence[tuple[Job, int, Request]]
    ) -> Iterator[tuple[Job, int, Generation | NlpkitError]]:
        """Run requests together; with `keep_going`, those left by an error once more, one by one."""
        left = dict(enumerate(work))
        try:
            requests = [request for _, _, request in work]
            for place, generation in self.run.lm.generate(requests, batch_tokens=self.batch_tokens):
                job, index, _ = left.pop(place)
                yield job, index, generation
            return
        except NlpkitError:
            if not self.keep_going:
                raise
        for job, index, request in left.values():
            outcome: Generation | NlpkitError
            try:
                outcome = next(self.run.lm.generate([request], batch_tokens=self.batch_tokens))[1]
            except NlpkitError as error:
                outcome = error
            yield job, index, outcome


def _row_of(row: Row | Prepared[Any] | NlpkitError) -> Row:
    if isinstance(row, NlpkitError):
        return {}
    return row.row if isinstance(row, Prepared) else row


def stream_task(
    lm: LanguageModel,
    task: Task[Any],
    row: Row | Prepared[Any],
    *,
    overrides: Mapping[str, Any] | None = None,
    on_overflow: Overflow | None = None,
) -> Iterator[str | TaskResult]:
    """Run a task on one row, showing its text as it grows.

    The pieces, joined, are the result's text. Rounds that only prepare the last one (summaries of chunks) and tasks
    whose completion is no text to show are not streamed. A completion that runs in circles is flagged, but not tried
    again as in `run_task`: its text has been shown by then.

    Args:
        lm: The model.
        task: The task.
        row: The row, or what was prepared of it.
        overrides: `DecodeConfig` fields that the user set.
        on_overflow: What to do with an input that does not fit; None is the task's own default.

    Yields:
        Pieces of text, then the result.

    Raises:
        NlpkitError: An option or the row cannot be used.
    """
    run = TaskRun(lm, task, overrides or {}, on_overflow)
    return _stream(run, run.start(row, where="the input"))


def _stream(run: TaskRun, job: Job) -> Iterator[str | TaskResult]:
    shown = ""
    if job.choice is not None:
        run.choose([job])
    if job.composition is not None:
        run.compose(job)
    while job.result is None:
        todo, job.todo = job.todo, []
        if not _shows(run, job):
            for place, generation in run.lm.generate([request for _, request in todo]):
                run.record(job, todo[place][0], generation)
            run.advance(job)
            continue
        for index, request in todo:
            for piece in filter(None, _stream_chunk(run, job, index, request)):
                shown += piece
                yield piece
        run.advance(job, retry=False)
    rest = job.result.text[len(shown) :] if job.result.text.startswith(shown) else ""
    yield from filter(None, [rest])
    yield job.result


def _stream_chunk(run: TaskRun, job: Job, index: int, request: Request) -> Iterator[str]:
    """Yield one chunk's prediction in pieces; a completion of which nothing was shown may be tried again."""
    attempt: Request | None = request
    growing = _Growing(run.task, job.plan.chunks[index].example)
    while attempt is not None:
        growing.restart()
        began = time.perf_counter()
        for event in run.lm.stream(attempt):
            if event.completion is None:
                yield growing.feed(event.text)
            else:
                done = Generation(
                    completions=(event.completion,),
                    prompt_tokens=len(request.prompt_ids),
                    seconds=time.perf_counter() - began,
                )
                run.record(job, index, done)
        attempt = None if growing.shown else run.second_try(job, index, loops=False)
    final = job.generations[index]
    if final is not None:
        yield growing.finish(final.completions[0])


def _shows(run: TaskRun, job: Job) -> bool:
    """Tell whether a round is shown as it grows: that of one chunk, of which one text is written from left to right."""
    config = run.planner.decoding
    one = len(job.plan.chunks) == 1 and config.n == 1 and job.plan.requests[0].config.beam_size == 1
    return run.task.cleaning.shows and one


class _Growing:
    """Turns a growing completion into pieces of its final prediction."""

    def __init__(self, task: Task[Any], example: Any) -> None:
        self._task = task
        self._example = example
        self._like = like_of(task, example)
        self._completion = ""
        self.shown = ""

    def restart(self) -> None:
        self._completion = ""

    def feed(self, text: str) -> str:
        if not text:
            return ""
        self._completion += text
        return self._show(self._task.cleaning.preview(self._completion, like=self._like))

    def finish(self, completion: Completion) -> str:
        return self._show(read_completion(self._task, completion.text, self._example).text)

    def _show(self, text: str) -> str:
        if not text.startswith(self.shown):
            return ""
        piece = text[len(self.shown) :]
        self.shown += piece
        return piece
