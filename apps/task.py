"""The task seam: one small class describes a task to the command, to training and to evaluation alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, ClassVar, Protocol

from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.errors import ConfigError, InputError, did_you_mean
from nlpkit.core.tokenizers.base import Message

Example = Mapping[str, Any]
"""One data row, with the task's field names as keys."""


@dataclass(frozen=True)
class Field:
    """One column of a task's data rows.

    Attributes:
        name: Key in the row.
        kind: ``str`` or ``list`` (of strings).
        required: Whether a row without it is refused when the task runs. Reference columns are not required then.
        help: What it holds.
    """

    name: str
    kind: type = str
    required: bool = True
    help: str = ""


@dataclass(frozen=True)
class Prediction:
    """A parsed completion.

    Attributes:
        text: The answer as text; may be empty.
        fields: Further JSON-ready values, such as ``start`` and ``end`` of a question's answer.
    """

    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """One chunk's outcome, as `Task.merge` sees it.

    Attributes:
        example: The chunk.
        prediction: What was parsed from its completion.
        logprob: Mean log-probability per generated token, in nats.
    """

    example: Example
    prediction: Prediction
    logprob: float


@dataclass(frozen=True)
class Budget:
    """How much text fits one prompt.

    Attributes:
        count_tokens: Number of tokens of a text.
        max_prompt_tokens: Most tokens that a rendered prompt may have.
        overhead: Tokens of the task's prompt around an empty text.
    """

    count_tokens: Callable[[str], int]
    max_prompt_tokens: int
    overhead: int = 0

    @property
    def max_text_tokens(self) -> int:
        """Tokens left for the text itself, at least 1."""
        return max(1, self.max_prompt_tokens - self.overhead)


class Task(Protocol):
    """What a task must offer. `BaseTask` has the usual defaults.

    Attributes:
        name: Name on the command line and in run records.
        version: Raised when the prompt or the parsing changes.
        fields: Columns of its data rows.
        metrics: Names of its metrics, the main one first.
        decoding: Default decoding options.
        streams: Whether showing the raw completion as it grows makes sense.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    fields: ClassVar[tuple[Field, ...]]
    metrics: ClassVar[tuple[str, ...]]
    decoding: ClassVar[DecodeConfig]
    streams: ClassVar[bool]

    def prompt(self, example: Example) -> list[Message]:
        """Render the chat messages of one example. Deterministic."""
        ...

    def parse(self, completion: str, example: Example) -> Prediction:
        """Read a completion. Pure; never raises, whatever the model wrote."""
        ...

    def split(self, example: Example, budget: Budget) -> list[Example]:
        """Cut a long example into chunks that each fit the budget, losing nothing."""
        ...

    def merge(self, parts: Sequence[Part], example: Example) -> Prediction:
        """Join the chunks' predictions."""
        ...

    def reduce(self, prediction: Prediction, example: Example) -> Example | None:
        """Return a further example to run on the merged prediction (a summary of summaries), or None."""
        ...

    def target(self, example: Example) -> str | None:
        """Return the text to learn from one example, or None where it has none."""
        ...

    def references(self, example: Example) -> list[str]:
        """Return the acceptable answers to score against; may be empty."""
        ...

    def max_tokens(self, example: Example, prompt_tokens: int) -> int:
        """Return how many tokens the completion of one chunk may have, unless the user says otherwise."""
        ...


class BaseTask:
    """Defaults of `Task`: one chunk, no merge, no reduction."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    fields: ClassVar[tuple[Field, ...]]
    metrics: ClassVar[tuple[str, ...]]
    decoding: ClassVar[DecodeConfig] = DecodeConfig()
    streams: ClassVar[bool] = True

    def parse(self, completion: str, example: Example) -> Prediction:
        """Take the stripped completion as it is."""
        return Prediction(completion.strip())

    def split(self, example: Example, budget: Budget) -> list[Example]:
        """Keep the example whole."""
        return [example]

    def merge(self, parts: Sequence[Part], example: Example) -> Prediction:
        """Take the only part's prediction."""
        return parts[0].prediction

    def reduce(self, prediction: Prediction, example: Example) -> Example | None:
        """Reduce nothing."""
        return None

    def target(self, example: Example) -> str | None:
        """Take the first reference."""
        references = self.references(example)
        return references[0] if references else None

    def references(self, example: Example) -> list[str]:
        """Have none."""
        return []

    def max_tokens(self, example: Example, prompt_tokens: int) -> int:
        """Take the default of `decoding`."""
        return self.decoding.max_tokens


TASKS: dict[str, str] = {
    "translation": "nlpkit.apps.translation:Translation",
    "qa": "nlpkit.apps.qa:QuestionAnswering",
    "summarization": "nlpkit.apps.summarization:Summarization",
    "writing": "nlpkit.apps.writing:Writing",
}
"""The built-in tasks. Others register an entry point in the group ``nlpkit.tasks``."""

ALIASES: dict[str, str] = {"translate": "translation", "summarize": "summarization", "write": "writing"}
"""Command names that may stand for a task's name."""


def task_names() -> list[str]:
    """Return the names of all tasks, built in and installed, sorted."""
    return sorted({*TASKS, *(entry.name for entry in entry_points(group="nlpkit.tasks"))})


def load_task(name: str) -> Task:
    """Return one task by name.

    Raises:
        ConfigError: There is no such task, or an installed one cannot be imported.
    """
    name = ALIASES.get(name, name)
    if name in TASKS:
        module, _, attribute = TASKS[name].partition(":")
        task: Task = getattr(import_module(module), attribute)()
        return task
    for entry in entry_points(group="nlpkit.tasks"):
        if entry.name == name:
            try:
                loaded: Task = entry.load()()
            except Exception as error:
                raise ConfigError(f"The installed task {name!r} ({entry.value}) cannot be loaded: {error}") from error
            return loaded
    raise ConfigError(f"There is no task {name!r}. {did_you_mean(name, task_names())}")


def check_example(task: Task, example: Example, *, where: str) -> None:
    """Check one data row against the task's fields.

    Args:
        task: The task it is meant for.
        example: The row.
        where: Where it came from, such as ``data.jsonl:7``, for the error.

    Raises:
        InputError: A required field is missing, empty or of the wrong type.
    """
    for column in task.fields:
        if column.name not in example or example[column.name] is None:
            if column.required:
                raise InputError(
                    f"{where}: the row has no {column.name!r}; {task.name} rows need "
                    f"{', '.join(repr(f.name) for f in task.fields if f.required)}. It has: {', '.join(example)}."
                )
            continue
        value = example[column.name]
        if column.kind is list:
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise InputError(f"{where}: {column.name!r} must be a list of strings, not {value!r}.")
        elif not isinstance(value, str):
            raise InputError(f"{where}: {column.name!r} must be a string, not {value!r}.")
        elif column.required and not value.strip():
            raise InputError(f"{where}: {column.name!r} is empty.")
