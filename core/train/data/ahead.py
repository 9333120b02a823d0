"""Batches that are packed while the model is busy with those before them."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from nlpkit.core.train.data.packing import Batch, DataState, Packer

DEPTH = 2
"""Steps whose batches are made ahead."""


@dataclass(frozen=True, kw_only=True)
class StepData:
    """What one step learns from.

    Attributes:
        batches: This process's micro-batches.
        slots: Used slots of all processes.
        targets: Labels with loss of all processes.
        state: Where in the data training is after the step.
        epoch: Passes over the data by then.
    """

    batches: list[Batch]
    slots: int
    targets: int
    state: DataState
    epoch: float


class Ahead:
    """Makes the batches of the next steps in a thread of its own.

    The packer that training knows, whose state goes into checkpoints, moves on as steps are taken, not as they are
    made.

    Args:
        packer: Where the data come from. Setting its state makes what was prepared void.
        build: Makes a step's data of a packer, which it moves on; None at the end of the data.
    """

    def __init__(self, packer: Packer, build: Callable[[Packer], StepData | None]) -> None:
        self._packer = packer
        self._build = build
        self._pending: deque[Future[StepData | None]] = deque()
        self._mine: DataState | None = None
        self._executor: ThreadPoolExecutor | None = None

    def take(self) -> StepData | None:
        """Return the next step's data, or None at the end of the data."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="packing")
        if self._packer.state is not self._mine:
            for future in self._pending:
                future.cancel()
            self._pending.clear()
            self._working = copy.copy(self._packer)
            self._working.restore(self._packer.state)
        while len(self._pending) <= DEPTH:
            self._pending.append(self._executor.submit(self._build, self._working))
        data = self._pending.popleft().result()
        if data is not None:
            self._packer.restore(data.state)
        self._mine = self._packer.state
        return data
