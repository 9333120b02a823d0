"""Progress on stderr: a bar where a person is watching, nothing anywhere else."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID


def watching() -> bool:
    """Return whether stderr is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


class ProgressBar:
    """A bar that appears at the first report and goes away at the end of its ``with`` block.

    Args:
        label: What is going on.
        enabled: Whether to show it at all; on a stderr that is no terminal nothing ever shows.
        in_bytes: Whether the numbers are bytes.
    """

    def __init__(self, label: str, *, enabled: bool = True, in_bytes: bool = False) -> None:
        self._label = label
        self._in_bytes = in_bytes
        self._enabled = enabled and watching()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __call__(self, done: int, total: int) -> None:
        """Report progress.

        Args:
            done: What is done.
            total: What there is to do, or 0 if unknown.
        """
        if not self._enabled:
            return
        if self._bar is None and total == 1:
            # One step has no middle to show.
            return
        if self._bar is None or self._task is None:
            self._bar = _bar(self._in_bytes)
            self._task = self._bar.add_task(self._label, total=total or None)
            self._bar.start()
        self._bar.update(self._task, completed=done, total=total or None)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Take the bar away while the block writes to the same terminal."""
        if self._bar is None:
            yield
            return
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        # Also after Ctrl-C: stopping is what brings the cursor back.
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._enabled = False


def _bar(in_bytes: bool) -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn()]
    columns += [DownloadColumn(), TransferSpeedColumn()] if in_bytes else [MofNCompleteColumn()]
    columns.append(TimeRemainingColumn())
    # Not redirecting stdout: it is data, and may be on the same terminal or not.
    return Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
    )
