"""Samples: the scored rows of a run, one JSON object a line, appended while the run goes on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nlpkit.core.errors import InputError, OutputError
from nlpkit.core.files.hashing import _plain
from nlpkit.core.files.write import unwritable, whole_file
from nlpkit.eval.metrics.base import Likelihood, Sample

SYNC_SECONDS = 1.0
"""Most time that appended rows wait to be forced to the disk. They survive a killed process at once in any case."""


@dataclass(frozen=True, kw_only=True)
class SampleRecord:
    """One row of a run: what went in, what came out, and what it scored.

    Attributes:
        index: Position of the row in the data, from 0, before any limit, shard or exclusion.
        id: The row's own id, or its index.
        row: The data row.
        row_sha256: Hash of the row.
        prompt_sha256: Hash of the chat messages or the short prompt that the task made of it (before any chunking).
        completion: What the model wrote.
        prediction: What the task read in it.
        references: Acceptable answers.
        fields: The task's own values.
        form: The form that was asked for, for form adherence.
        finish_reason: As `nlpkit.apps.pipeline.result.TaskResult`.
        input_tokens: Tokens of the whole prompt.
        used_tokens: Prompt tokens read, over all chunks.
        output_tokens: Tokens written.
        truncated: Whether input was cut off.
        chunks: Pieces the input was read in.
        degenerate: Whether the completion runs in circles.
        seed: Seed of the sampler, or None.
        seconds: Time of this row.
        likelihood: Log-probability of the reference, where it was asked for.
        warnings: What a reader should know.
        error: Why the row failed, or None.
        scores: Segment scores by metric; empty until the run is scored.
    """

    index: int
    id: str
    row: Mapping[str, Any] = field(repr=False)
    row_sha256: str
    prompt_sha256: str = ""
    completion: str = ""
    prediction: str = ""
    references: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    form: str = ""
    finish_reason: str = "eos"
    input_tokens: int = 0
    used_tokens: int = 0
    output_tokens: int = 0
    truncated: bool = False
    chunks: int = 0
    degenerate: bool = False
    seed: int | None = None
    seconds: float = 0.0
    likelihood: Likelihood | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None
    scores: Mapping[str, float | None] = field(default_factory=dict)

    def to_line(self) -> str:
        """Return the JSON line, with its line end."""
        values = dict(self.__dict__)
        if self.likelihood is not None:
            values["likelihood"] = dict(self.likelihood.__dict__)
        return json.dumps(values, ensure_ascii=False, allow_nan=False, default=_plain) + "\n"

    @staticmethod
    def from_line(line: str | bytes) -> SampleRecord:
        """Read a JSON line.

        Raises:
            ValueError: It is not whole, or not a sample.
        """
        values = json.loads(line)
        try:
            for name in ("references", "warnings"):
                values[name] = tuple(values.get(name) or ())
            if values.get("likelihood"):
                values["likelihood"] = Likelihood(**values["likelihood"])
            record = SampleRecord(**values)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"not a sample: {error}") from error
        kinds = (record.index, int), (record.prediction, str), (record.row, dict), (record.row_sha256, str)
        if not all(isinstance(value, kind) for value, kind in kinds):
            raise ValueError("not a sample: a value has the wrong type")
        return record

    def segment(self) -> Sample:
        """Return what the metrics need of it."""
        return Sample(self.prediction, self.references, self.id, self.form, self.likelihood)

    def with_scores(self, scores: Mapping[str, float | None]) -> SampleRecord:
        """Return a copy with segment scores."""
        return replace(self, scores=dict(scores))


@dataclass(frozen=True)
class Damage:
    """What was wrong with a samples file.

    Attributes:
        half_line: Whether its last line was cut off, as a killed process leaves it.
        bad_lines: Numbers of other lines that could not be read, from 1.
        repeated: Samples that came twice.
    """

    half_line: bool = False
    bad_lines: tuple[int, ...] = ()
    repeated: int = 0

    def __bool__(self) -> bool:
        return self.half_line or bool(self.bad_lines) or bool(self.repeated)


def read_samples(path: str | os.PathLike[str]) -> tuple[list[SampleRecord], Damage]:
    """Read a samples file, whatever state a killed process left it in.

    Args:
        path: The file; a missing one has no samples.

    Returns:
        The samples that are whole, in the file's order, the first of each index; and what was wrong.
    """
    path = Path(path)
    if not path.exists():
        return [], Damage()
    records: list[SampleRecord] = []
    seen: set[int] = set()
    bad: list[int] = []
    half = False
    repeated = 0
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                # Even if it parses: its end of line is what says that it was written whole.
                half = True
                break
            try:
                record = SampleRecord.from_line(line)
            except ValueError:
                bad.append(number)
                continue
            if record.index in seen:
                repeated += 1
                continue
            seen.add(record.index)
            records.append(record)
    return records, Damage(half, tuple(bad), repeated)


def write_samples(path: str | os.PathLike[str], records: Iterable[SampleRecord]) -> None:
    """Write a samples file whole: aside, then renamed.

    Raises:
        OutputError: It cannot be written; the old file is untouched.
    """
    write_whole(path, (record.to_line() for record in records))


def write_whole(path: str | os.PathLike[str], pieces: Iterable[str]) -> None:
    """Replace a file by new text in one step, so that a reader or a kill sees the old or the new one.

    Raises:
        OutputError: It cannot be written; the old file is untouched.
    """
    with (
        unwritable(f"{path} cannot be written", advice="Free some space or choose another --output."),
        whole_file(Path(path)) as aside,
        aside.open("w", encoding="utf-8", newline="") as stream,
    ):
        for piece in pieces:
            stream.write(piece)


class SampleLog:
    """Appends samples to a file: each handed to the system whole and at once, forced to the disk now and then.

    Args:
        path: The file, without half lines (see `read_samples`).

    Raises:
        OutputError: It cannot be opened or written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror}. Choose another --output.") from error
        self._synced = time.monotonic()

    def append(self, record: SampleRecord) -> None:
        """Append one sample.

        Raises:
            OutputError: The disk is full, or writing fails otherwise. What was written before stays.
        """
        data = memoryview(record.to_line().encode("utf-8", "replace"))
        try:
            while data:
                data = data[os.write(self._handle, data) :]
            if time.monotonic() - self._synced >= SYNC_SECONDS:
                os.fsync(self._handle)
                self._synced = time.monotonic()
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be written: {error.strerror or error}. The rows before are kept: free some space "
                "and run the same command again."
            ) from error

    def close(self) -> None:
        """Force the rest to the disk and close the file."""
        try:
            os.fsync(self._handle)
        except OSError:
            pass
        finally:
            os.close(self._handle)

    def __enter__(self) -> SampleLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def require_samples(path: Path) -> list[SampleRecord]:
    """Read the samples of a run that is to be looked at.

    Raises:
        InputError: There are none, or lines in the middle are damaged.
    """
    records, damage = read_samples(path)
    if damage.bad_lines:
        raise InputError(
            f"{path}:{damage.bad_lines[0]} is not a sample: the file is damaged ({len(damage.bad_lines)} bad lines). "
            "Run the command that made it again: it redoes those rows."
        )
    if not records:
        raise InputError(f"{path} holds no samples. Run the command that made it again: it goes on where it stopped.")
    return sorted(records, key=lambda record: record.index)
