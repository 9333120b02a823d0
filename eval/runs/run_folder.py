"""The run directory: ``run.json``, ``samples.jsonl``, and a lock that keeps two processes from writing both."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlpkit.core.errors import ConfigError, InputError, OutputError
from nlpkit.core.files.lock import file_lock
from nlpkit.core.files.write import is_aside, sweep
from nlpkit.eval.runs.samples import SampleRecord, require_samples, write_whole

RUN_FORMAT = 1
"""Raised when the layout of a run record changes."""

RECORD = "run.json"
SAMPLES = "samples.jsonl"
LOCK = ".lock"

IDENTITY = ("task", "data", "model", "decoding", "on_overflow", "seed")
"""Parts of a run record that may not change between two sessions of a run."""

_FREE = {
    "data.name",
    "data.files",
    "data.format",
    "model.path",
    "model.name",
    "model.adapter",
    "model.threads",
    "model.notes",
    "task.shots.path",
}
"""What may change all the same: names and places, where hashes say that the content is the same."""


@dataclass(frozen=True)
class Run:
    """A run as it lies on the disk.

    Attributes:
        folder: The directory.
        record: What ``run.json`` says.
        samples: Its samples by index.
    """

    folder: Path
    record: dict[str, Any]
    samples: tuple[SampleRecord, ...]

    @property
    def name(self) -> str:
        """Short name for tables: the model, else the folder."""
        return str(self.record.get("name") or self.folder.name)

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """Scores by metric name."""
        metrics = self.record.get("metrics")
        return dict(metrics) if isinstance(metrics, Mapping) else {}


def load_run(folder: str | os.PathLike[str]) -> Run:
    """Read a run directory.

    Raises:
        InputError: It is none, or damaged.
    """
    folder = Path(folder)
    record = read_record(folder)
    if record is None:
        hint = "There is no such folder." if not folder.exists() else f"It has no {RECORD}."
        raise InputError(f"{folder} is not a run directory. {hint} `nlpkit eval run` makes them.")
    return Run(folder, record, tuple(require_samples(folder / SAMPLES)))


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the run record of a folder, or None where there is none.

    Raises:
        InputError: It is damaged or of a newer nlpkit.
    """
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}. If the file is lost, choose another --output.") from error
    if not isinstance(record, dict) or not isinstance(record.get("nlpkit_run"), int):
        raise InputError(f"{path} is not a run record: it lacks 'nlpkit_run'. Choose another folder.")
    if record["nlpkit_run"] > RUN_FORMAT:
        raise InputError(f"{path} was written by a newer nlpkit (format {record['nlpkit_run']}). Update nlpkit.")
    return record


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a run record in one step; numbers that are not finite become null.

    Raises:
        OutputError: It cannot be written.
    """
    text = json.dumps(finite(record), ensure_ascii=False, indent=1, allow_nan=False)
    write_whole(folder / RECORD, [text, "\n"])


def finite(value: Any) -> Any:
    """Return a JSON-ready copy in which numbers that JSON cannot spell are None."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Create a run directory where needed and keep other processes from writing to it.

    Raises:
        OutputError: Another process is at work there, or the folder cannot be written.
        ConfigError: The folder holds something else.
    """

    def unwritable(error: OSError) -> OutputError:
        return OutputError(f"{folder} cannot be written: {error.strerror}. Choose another --output.")

    try:
        if folder.is_dir() and not (folder / RECORD).exists():
            # What a process that was killed had begun to write is nothing.
            sweep(folder)
            # Nor is what another process has just begun: the lock tells of that one.
            own = (LOCK, RECORD + ".part")
            others = sorted(one.name for one in folder.iterdir() if one.name not in own and not is_aside(one.name))
            if others:
                raise ConfigError(
                    f"The folder {folder} is no run directory and not empty (it holds {others[0]!r}). Choose another "
                    "--output."
                )
    except OSError as error:
        raise unwritable(error) from error
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(file_lock(folder / LOCK, wait=False))
        except BlockingIOError as error:
            raise OutputError(
                f"Another process is writing to {folder}. Wait for it to end, or choose another --output."
            ) from error
        except OSError as error:
            raise unwritable(error) from error
        yield


def identity(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must stay the same between two sessions of a run, flat: dotted name to value."""
    flat: dict[str, Any] = {}
    for part in IDENTITY:
        _flatten(part, record.get(part), flat)
    return flat


def _flatten(name: str, value: Any, flat: dict[str, Any]) -> None:
    if name in _FREE:
        return
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            _flatten(f"{name}.{key}", item, flat)
    else:
        flat[name] = list(value) if isinstance(value, tuple) else value


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Say what differs between two identities, one phrase each: ``decoding.seed: 1 -> 2``."""
    absent = object()
    found = []
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name, absent), after.get(name, absent)
        if old != new:
            found.append(f"{name}: {_show(old, absent)} -> {_show(new, absent)}")
    return found


def _show(value: Any, absent: object) -> str:
    if value is absent:
        return "(none)"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def check_same_run(folder: Path, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Refuse to continue a run with something else.

    Raises:
        ConfigError: Data, model, task or decoding changed.
    """
    changed = differences(identity(before), identity(after))
    if changed:
        shown = "; ".join(changed[:6]) + (f"; and {len(changed) - 6} more" if len(changed) > 6 else "")
        raise ConfigError(
            f"The run in {folder} was made with something else: {shown}. Run as before to continue it, or give a new "
            "--output."
        )
