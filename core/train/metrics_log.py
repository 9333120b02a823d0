"""The record of a training: ``metrics.jsonl``, and TensorBoard where it is installed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nlpkit.core.errors import OutputError

LOG_NAME = "metrics.jsonl"


class MetricsLog:
    """Appends one JSON object a line, and shows the same numbers to TensorBoard.

    Attributes:
        path: The file.
    """

    def __init__(
        self, folder: Path, *, from_step: int = 0, evaluated: int | None = None, tensorboard: bool = False
    ) -> None:
        """Open the log.

        Args:
            folder: Where it lies.
            from_step: Training goes on from here: later lines, of steps that will be done again, are cut off.
            evaluated: Step of the last evaluation that was due; one that was made at the end alone is cut off as well.
                None keeps all.
            tensorboard: Whether to write event files too, if the library is there.

        Raises:
            OutputError: The file cannot be written.
        """
        self.path = folder / LOG_NAME
        try:
            kept = [row for row in read_metrics(self.path) if _stays(row, from_step, evaluated)]
            self.path.write_text("".join(json.dumps(row) + "\n" for row in kept), "utf-8")
            self._stream = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror or error}.") from error
        self._board: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return
            new_writer: Any = SummaryWriter
            self._board = new_writer(str(folder / "tensorboard"), purge_step=from_step + 1)

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append one line.

        Args:
            kind: ``train``, ``eval``, ``sample``, or ``average`` for the evaluation of averaged weights.
            step: Steps done.
            values: JSON-ready values.

        Raises:
            OutputError: The disk is full.
        """
        # JSON has no NaN; a reader should not choke on the very line that says what went wrong.
        safe = {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        try:
            self._stream.write(json.dumps({"kind": kind, "step": step, **safe}, ensure_ascii=False) + "\n")
            self._stream.flush()
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror or error}.") from error
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Close the files."""
        self._stream.close()
        if self._board is not None:
            self._board.close()


def _stays(row: Mapping[str, Any], from_step: int, evaluated: int | None) -> bool:
    """Tell whether a line belongs to the steps before the one that is next."""
    step = row.get("step", 0)
    if not from_step or not isinstance(step, int) or step > from_step:
        return False
    if row.get("kind") == "train" or step < from_step or evaluated is None:
        return True
    return step == evaluated and row.get("kind") != "average"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a log; a last line that was cut off by a crash is left out."""
    rows = []
    if path.exists():
        for line in path.read_text("utf-8", errors="replace").splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                rows.append(value)
    return rows
