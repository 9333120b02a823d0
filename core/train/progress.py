"""What a session remembers beside the trainer's own state, and how it notices that training diverges."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_WINDOW = 20
_RISE = 2.0
"""Nats by which the mean loss of a window may lie above the best window's before training counts as diverged."""


@dataclass(kw_only=True)
class History:
    """What must survive a restart.

    Attributes:
        best: Best value of the metric so far, or None.
        best_step: When it was measured.
        stale: Evaluations since.
        evaluated: Step of the last evaluation that was due.
        snapshots: Steps whose weights are kept to be averaged, the first one first.
        losses: The last losses.
        lowest: Lowest mean of a window of losses.
    """

    best: float | None = None
    best_step: int = 0
    stale: int = 0
    evaluated: int = 0
    snapshots: list[int] = field(default_factory=list)
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    lowest: float = math.inf

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {
            "best": self.best,
            "best_step": self.best_step,
            "stale": self.stale,
            "evaluated": self.evaluated,
            "snapshots": list(self.snapshots),
            "losses": list(self.losses),
            "lowest": None if math.isinf(self.lowest) else self.lowest,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> History:
        """Read what `to_dict` returned, perhaps of a version that knew less."""
        lowest = values.get("lowest")
        made = cls(
            best=values.get("best"),
            best_step=values.get("best_step", 0),
            stale=values.get("stale", 0),
            evaluated=values.get("evaluated", 0),
            snapshots=list(values.get("snapshots", ())),
            lowest=math.inf if lowest is None else lowest,
        )
        made.losses.extend(values.get("losses", ()))
        return made

    def improve(self, value: float, step: int, *, sign: int) -> bool:
        """Take in a value of the metric.

        Args:
            value: The value.
            step: When it was measured.
            sign: 1 where more is better, -1 where less is.

        Returns:
            Whether it is the best so far.
        """
        if not math.isfinite(value) or (self.best is not None and sign * value <= sign * self.best):
            self.stale += 1
            return False
        self.best, self.best_step, self.stale = value, step, 0
        return True

    def diverged(self, loss: float) -> str | None:
        """Take in a loss and say what is wrong, if anything is."""
        self.losses.append(loss)
        if len(self.losses) < _WINDOW:
            return None
        mean = sum(self.losses) / _WINDOW
        if mean > self.lowest + _RISE:
            return f"the loss rose from {self.lowest:.2f} to {mean:.2f}, each the mean of {_WINDOW} steps"
        self.lowest = min(self.lowest, mean)
        return None
