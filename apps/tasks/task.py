"""The task seam: one small class describes a task to the command, to training and to evaluation alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from nlpkit.core.chat.message import Message
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.errors import InputError, shown

Example = Mapping[str, Any]
"""One data row, with the task's field names as keys. Keys that start with ``_`` are a task's own notes."""

BRIEF = "_brief"
"""Note in an example whose prompt is the brief one, see `Task.brief`."""

LEARNED = "_learned"
"""Note in such an example: the pairs of languages that the model learned to translate."""

MASKS = "_masks"
"""Note in such an example whose model has masks for protected spans in its vocabulary."""

SEVERAL = "_several"
"""Note in an example of which several predictions are wanted."""

ORDERED = "_ordered"
"""Note in an example for which the user gave decoding options, which are not second-guessed."""

INVERSE = "inverse"
"""Field of rows that are learned the other way round, and the end of their brief prompt's name."""

Overflow = Literal["error", "chunk", "truncate"]
"""What to do with an input that does not fit the model's context."""


@dataclass(frozen=True)
class Field:
    """One column of a task's data rows.

    Attributes:
        name: Key in the row.
        kind: ``str``, ``list`` (of strings), ``dict`` (string to string) or ``int`` (or its digits).
        required: Whether a row without it is refused when the task runs. Reference columns are not required then.
        help: What it holds.
        may_be_empty: Whether a required string may be blank.
    """

    name: str
    kind: type = str
    required: bool = True
    help: str = ""
    may_be_empty: bool = False


@dataclass(frozen=True)
class Prediction:
    """A parsed completion.

    Attributes:
        text: The answer as text; may be empty.
        fields: Further JSON-ready values, such as ``start`` and ``end`` of a question's answer.
        warnings: What a user should know about the text, one sentence each.
    """

    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """One chunk's outcome, as `Task.merge` sees it.

    Attributes:
        example: The chunk.
        prediction: What was parsed from its completion.
        logprob: Mean log-probability per generated token, in nats.
        n_tokens: Generated tokens.
        min_logprob: Log-probability of the least likely token, in nats.
        finish_reason: Why the completion ended.
        loops: Whether it runs in circles.
    """

    example: Example
    prediction: Prediction
    logprob: float
    n_tokens: int = 1
    min_logprob: float = 0.0
    finish_reason: str = "eos"
    loops: bool = False

    @property
    def total_logprob(self) -> float:
        """Log-probability of the whole completion, in nats."""
        return self.logprob * self.n_tokens


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
        streams: Whether showing the completion as it grows makes sense.
        raw: Whether the prompt's text goes to the model as it is, without the chat template.
        text_field: The field that holds the long text, which chunking and truncation cut.
        on_overflow: What to do with inputs that do not fit, unless the user says otherwise.
        retries_loops: Whether a greedy completion that runs in circles is decoded once more without repeats.
        combines: Whether the best predictions of several chunks may be combined freely into predictions of the whole.
        explains: Whether the predictions themselves say where completions were cut off or run in circles.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    fields: ClassVar[tuple[Field, ...]]
    metrics: ClassVar[tuple[str, ...]]
    decoding: ClassVar[DecodeConfig]
    streams: ClassVar[bool]
    raw: ClassVar[bool]
    text_field: ClassVar[str]
    on_overflow: ClassVar[Overflow]
    retries_loops: ClassVar[bool]
    combines: ClassVar[bool]
    explains: ClassVar[bool]

    def prepare(self, example: Example) -> Example:
        """Normalise an example once, before anything else: names to codes, defaults filled in. Idempotent.

        Raises:
            NlpkitError: A value cannot be used.
        """
        ...

    def prompt(self, example: Example) -> list[Message]:
        """Render the chat messages of one prepared example. Deterministic."""
        ...

    def brief(self, example: Example) -> str | None:
        """Render one prepared example for a model that was tuned for the task: as short as can be, without template.

        Where it is used, the example that the other methods get has the note `BRIEF`. Whether there is a brief prompt
        may depend on the options in an example, not on its text.

        Returns:
            The prompt's text, which the answer follows after a space; None where such a model is asked as any other.
        """
        ...

    def brief_name(self, example: Example) -> str:
        """Return the name under which a model says that it learned this example's brief prompt."""
        ...

    def parse(self, completion: str, example: Example) -> Prediction:
        """Read a completion. Pure; never raises, whatever the model wrote."""
        ...

    def preview(self, partial: str, example: Example) -> str:
        """Return text that `parse` is sure to begin with, whatever follows the partial completion."""
        ...

    def second_try(self, completion: str, example: Example, finish_reason: str) -> Mapping[str, Any]:
        """Return decoding options for one more try at a completion that is no answer; empty where it is one.

        Where the task streams, `preview` must be empty for such a completion, so that nothing of it was shown.
        """
        ...

    def rivals(self, logprob: float, example: Example) -> Mapping[str, Any]:
        """Return decoding options that find rivals of a greedy completion, or none where it is sure enough.

        `choose` then takes one of them. Asked only of models that learned the brief prompt of `inverse`.

        Args:
            logprob: Log-probability of the whole completion, in nats.
            example: One chunk.
        """
        ...

    def inverse(self, completion: str, example: Example) -> Example | None:
        """Return an example whose target is the likelier, the better the completion; None where there is none."""
        ...

    def choose(self, predictions: Sequence[Prediction], logprobs: Sequence[float], inverse: Sequence[float]) -> int:
        """Choose among rivals.

        Args:
            predictions: What was parsed from each, at least one.
            logprobs: Log-probability of each completion, in nats.
            inverse: Log-probability of the target of each one's `inverse` example, in nats.

        Returns:
            The index of the best.
        """
        ...

    def options(self, chunk: Example) -> Mapping[str, Any]:
        """Return decoding options that one chunk asks for; where the user's are at odds with them, the user's count."""
        ...

    def split(self, example: Example, budget: Budget) -> list[Example]:
        """Cut an example into chunks that each fit the budget, losing nothing.

        Returns:
            The chunks; just the example where it fits; none where there is nothing to ask the model.
        """
        ...

    def merge(self, parts: Sequence[Part], example: Example) -> Prediction:
        """Join the chunks' predictions. Called for one chunk, and for none, as well."""
        ...

    def frame(self, chunk: Example) -> tuple[str, str] | None:
        """Return what `merge` puts before and after this chunk's text, or None if it does more than concatenate."""
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
    raw: ClassVar[bool] = False
    text_field: ClassVar[str] = "text"
    on_overflow: ClassVar[Overflow] = "error"
    retries_loops: ClassVar[bool] = False
    combines: ClassVar[bool] = False
    explains: ClassVar[bool] = False

    def prepare(self, example: Example) -> Example:
        """Change nothing."""
        return example

    def brief(self, example: Example) -> str | None:
        """Know no brief form."""
        return None

    def brief_name(self, example: Example) -> str:
        """Take the task's name."""
        return self.name

    def parse(self, completion: str, example: Example) -> Prediction:
        """Take the stripped completion as it is."""
        return Prediction(completion.strip())

    def preview(self, partial: str, example: Example) -> str:
        """Strip the partial completion: right for every `parse` that only strips."""
        return partial.strip()

    def second_try(self, completion: str, example: Example, finish_reason: str) -> Mapping[str, Any]:
        """Take every completion."""
        return {}

    def rivals(self, logprob: float, example: Example) -> Mapping[str, Any]:
        """Keep the first completion."""
        return {}

    def inverse(self, completion: str, example: Example) -> Example | None:
        """Know none."""
        return None

    def choose(self, predictions: Sequence[Prediction], logprobs: Sequence[float], inverse: Sequence[float]) -> int:
        """Take the one that makes both together the likeliest."""
        return max(range(len(predictions)), key=lambda i: logprobs[i] + inverse[i])

    def options(self, chunk: Example) -> Mapping[str, Any]:
        """Ask for nothing beyond `decoding`."""
        return {}

    def split(self, example: Example, budget: Budget) -> list[Example]:
        """Keep the example whole."""
        return [example]

    def merge(self, parts: Sequence[Part], example: Example) -> Prediction:
        """Take the only part's prediction."""
        return parts[0].prediction if parts else Prediction("")

    def frame(self, chunk: Example) -> tuple[str, str] | None:
        """Say that merging is more than concatenation."""
        return None

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


def _strings(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


_MAX_DIGITS = 18
"""Of a whole number in a row: Python refuses to read texts of thousands of digits."""


def _is_whole(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= 40 and value.strip().isdecimal() and len(value.strip()) <= _MAX_DIGITS
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**_MAX_DIGITS


_KINDS: dict[type, tuple[Callable[[Any], bool], str]] = {
    str: (lambda value: isinstance(value, str), "a string"),
    list: (lambda value: isinstance(value, list) and _strings(value), "a list of strings"),
    dict: (
        lambda value: isinstance(value, Mapping) and _strings(value) and _strings(value.values()),
        "an object of strings",
    ),
    int: (_is_whole, "a whole number"),
}


def check_example(task: Task, example: Example, *, where: str, columns: Iterable[str] | None = None) -> None:
    """Check one data row against the task's fields.

    Args:
        task: The task it is meant for.
        example: The row.
        where: Where it came from, such as ``data.jsonl:7``, for the error.
        columns: Names of its own columns, where others were added to it.

    Raises:
        InputError: A required field is missing, empty or of the wrong type.
    """
    for column in task.fields:
        if column.name not in example or example[column.name] is None:
            if column.required:
                needed = ", ".join(repr(f.name) for f in task.fields if f.required)
                own = ", ".join(example if columns is None else columns)
                raise InputError(
                    f"{where}: the row has no {column.name!r}; {task.name} rows need {needed}. It has: {own}."
                )
            continue
        value = example[column.name]
        accepts, kind = _KINDS[column.kind]
        if not accepts(value):
            raise InputError(f"{where}: {column.name!r} must be {kind}, not {shown(value, 80)}.")
        if column.kind is str and column.required and not column.may_be_empty and not value.strip():
            raise InputError(f"{where}: {column.name!r} is empty.")
