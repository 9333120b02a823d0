"""Few-shot examples: solved rows put before each prompt, the same ones for a whole run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nlpkit.apps.tasks.task import Prompt, Target, Task
from nlpkit.core.errors import ConfigError, InputError
from nlpkit.core.files.hashing import hash_value
from nlpkit.eval.data.datasets import DataRow, Dataset

CHUNK_CHARS = 24
"""A text this long that occurs in an example counts as a chunk of it; a shorter one may occur by chance."""


@dataclass(frozen=True)
class Shots:
    """Chosen examples.

    Attributes:
        rows: The examples, in the order of the prompt, and one to spare (last) for a row that is one of them.
        count: How many go before each prompt.
        seed: What they were drawn with.
        data: Path and hash of the file that they come from.
    """

    rows: tuple[DataRow, ...]
    count: int
    seed: int
    data: dict[str, Any]

    def before(self, task: Task[Any], example: Any) -> list[Any]:
        """Return the examples for one prepared row; none of them is the row itself, whole or in part."""
        text = task.text(example)
        solved = [row.prepared.example for row in self.rows if row.prepared is not None]
        return [one for one in solved if not _is_part(text, task.text(one))][: self.count]

    def solved(self, task: Task[Any], example: Any) -> Sequence[tuple[Prompt, Target]]:
        """Return the same with their prompts and targets, for a `PromptEncoder`."""
        pairs = ((task.prompt(one), task.target(one)) for one in self.before(task, example))
        return [(prompt, target) for prompt, target in pairs if target is not None]

    def describe(self) -> dict[str, Any]:
        """Return what a run record says about them."""
        return {
            "count": self.count,
            "seed": self.seed,
            "path": self.data["path"],
            "sha256": self.data["sha256"],
            "rows": [row.index for row in self.rows],
        }


def draw_shots(dataset: Dataset, task: Task[Any], *, count: int, seed: int) -> Shots:
    """Draw examples for a few-shot prompt.

    Rows are ordered by the hash of seed and content, so the draw does not depend on the order of the file, on
    Python's version or on how many rows the file has beside them.

    Args:
        dataset: Rows with targets.
        task: The task that they belong to.
        count: How many.
        seed: Seed of the draw.

    Returns:
        The examples.

    Raises:
        ConfigError: The count is below 1.
        InputError: There are too few rows with a target.
    """
    if count < 1:
        raise ConfigError(f"The number of shots is {count}; it must be at least 1.")
    # One more than asked for: a row that is itself among the examples gets the spare one instead.
    order = sorted(dataset.rows, key=lambda row: hash_value([seed, row.sha256]))
    chosen: list[DataRow] = []
    for row in order:
        if len(chosen) > count:
            break
        target = None if row.prepared is None else task.target(row.prepared.example)
        if target is not None and target.text:
            chosen.append(row)
    if len(chosen) < count:
        raise InputError(
            f"{dataset.name} has {len(chosen)} rows with an answer to show, and {count} shots are asked for. Lower "
            "--shots, or give a larger file with --shots-from."
        )
    return Shots(tuple(chosen), count, seed, dict(dataset.files[0]))


def _is_part(text: str, shot: str) -> bool:
    return text == shot or (len(text.strip()) >= CHUNK_CHARS and text in shot)
