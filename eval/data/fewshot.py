"""Few-shot examples: solved rows put before each prompt, the same ones for a whole run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from nlpkit.apps.tasks.task import Example, Task
from nlpkit.core.chat.message import Message
from nlpkit.core.errors import ConfigError, InputError, NlpkitError
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

    def describe(self) -> dict[str, Any]:
        """Return what a run record says about them."""
        return {
            "count": self.count,
            "seed": self.seed,
            "path": self.data["path"],
            "sha256": self.data["sha256"],
            "rows": [row.index for row in self.rows],
        }


def draw_shots(dataset: Dataset, task: Task, *, count: int, seed: int) -> Shots:
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
        if not isinstance(row.example, NlpkitError) and task.target(task.prepare(row.example)):
            chosen.append(row)
    if len(chosen) < count:
        raise InputError(
            f"{dataset.name} has {len(chosen)} rows with an answer to show, and {count} shots are asked for. Lower "
            "--shots, or give a larger file with --shots-from."
        )
    return Shots(tuple(chosen), count, seed, dict(dataset.files[0]))


class _FewShot:
    """A task with solved examples before its prompt. All but the prompt is the task's own."""

    def __init__(self, task: Task, shots: Shots) -> None:
        self._task = task
        self._shots = shots

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def prompt(self, example: Example) -> list[Message]:
        """Return system messages, then a user and an assistant turn for each example, then the task's own prompt."""
        messages = self._task.prompt(example)
        system = [message for message in messages if message.role == "system"]
        turns: list[Message] = []
        for row in self._pick(example):
            shot = self._task.prepare(cast("Example", row.example))
            asked = [message for message in self._task.prompt(shot) if message.role != "system"]
            turns += [*asked, Message("assistant", self._task.target(shot) or "")]
        return [*system, *turns, *(message for message in messages if message.role != "system")]

    def brief(self, example: Example) -> str | None:
        """Return the examples' brief prompts with their answers, then the task's own, a blank line apart.

        None where one of them has no brief prompt: then all are asked as any other model is.
        """
        return self._joined(example, self._task.brief)

    def former_brief(self, example: Example) -> str | None:
        """Return the same in the form that the task's brief prompts had before."""
        former: Callable[[Example], str | None] = self._task.former_brief  # type: ignore[attr-defined]
        return self._joined(example, former)

    def _joined(self, example: Example, brief: Callable[[Example], str | None]) -> str | None:
        own = brief(example)
        if own is None:
            return None
        turns: list[str] = []
        for row in self._pick(example):
            shot = self._task.prepare(cast("Example", row.example))
            asked = brief(shot)
            if asked is None:
                return None
            turns.append(f"{asked} {self._task.target(shot) or ''}")
        return "\n\n".join([*turns, own])

    def _pick(self, example: Example) -> Sequence[DataRow]:
        """Return the examples for one row; none of them is the row itself, whole or in part."""
        text = str(example.get(self._task.text_field, ""))
        others = [row for row in self._shots.rows if not _is_part(text, self._text(row))]
        return others[: self._shots.count]

    def _text(self, row: DataRow) -> str:
        return str(cast("Example", row.example).get(self._task.text_field, ""))


def _is_part(text: str, shot: str) -> bool:
    return text == shot or (len(text.strip()) >= CHUNK_CHARS and text in shot)


def with_shots(task: Task, shots: Shots) -> Task:
    """Return the task with solved examples before its prompts.

    Each becomes a user's turn (the task's prompt for it) and the assistant's answer (`Task.target`). For raw tasks and
    models without a chat template the turns' texts stand one below the other, a blank line apart, and so do the brief
    prompts and answers for models that were tuned with brief prompts (with a single one each: expect no gain).

    Args:
        task: The task.
        shots: The examples.

    Returns:
        A task with the same name, parsing and metrics.
    """
    return cast("Task", _FewShot(task, shots))
