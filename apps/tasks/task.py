"""The task seam: one small class describes a task to the command, to training and to evaluation alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, cast

from nlpkit.apps.text.cleaning import Cleaning
from nlpkit.apps.text.verse.search import LineRequest, LineTry
from nlpkit.core.chat.message import Message
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.errors import ConfigError

Row = Mapping[str, Any]
"""One data row, with the task's field names as keys."""

E = TypeVar("E")
"""A prepared example: a row, or a task's own frozen dataclass. Code that serves all tasks never looks inside."""

Overflow = Literal["error", "chunk", "truncate"]
"""What to do with an input that does not fit the model's context."""

Role = Literal["text", "option", "reference"]
"""What a field is for: what the model reads, how it is to work on that, or what should come out."""


@dataclass(frozen=True)
class Field:
    """One column of a task's data rows.

    Attributes:
        name: Key in the row.
        kind: ``str``, ``list`` (of strings), ``dict`` (string to string) or ``int`` (or its digits).
        required: Whether a row without it is refused when the task runs. Reference columns are not required then.
        help: What it holds.
        may_be_empty: Whether a required string may be blank.
        role: What it is for. The first field that is a text is the one that commands fill, and that is cut to fit.
        aliases: Names that other people's data give to it, tried where its own is missing.
    """

    name: str
    kind: type = str
    required: bool = True
    help: str = ""
    may_be_empty: bool = False
    role: Role = "text"
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """What a model is asked.

    Attributes:
        text: The conversation so far, or one user's message.
        raw: Whether the text goes to the model as it is, without the chat template.
        short: The same for a model that was tuned for the task, as short as can be: the answer follows after a space.
            None where such a model is asked as any other, which may depend on an example's options, not on its text.
        name: Under which a model says that it learned the short prompt; None takes the task's name.
        former: The short prompt that models learned under this name before.
        form: The form of text that is asked for, as the metric ``form`` spells it; empty where there is none.
    """

    text: str | tuple[Message, ...]
    raw: bool = False
    short: str | None = None
    name: str | None = None
    former: str | None = None
    form: str = ""

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far."""
        return (Message("user", self.text),) if isinstance(self.text, str) else self.text


@dataclass(frozen=True)
class Target:
    """What should come out for an example.

    Attributes:
        text: What to learn to write.
        references: Acceptable answers to score against; None takes the text.
    """

    text: str
    references: tuple[str, ...] | None = None

    @property
    def accepted(self) -> tuple[str, ...]:
        """The acceptable answers."""
        return (self.text,) if self.references is None else self.references


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


@dataclass(frozen=True, kw_only=True)
class TaskDecoding:
    """What a task asks for where the user says nothing.

    Attributes:
        max_tokens: Limit of the completion.
        per_prompt_token: Tokens by which each token of the prompt raises the limit.
        beam_size: Beams to search with; 1 does not search.
        must_include: Words that the text must hold.
        no_repeat_ngram: Length of token n-grams that must not occur twice; None says nothing.
    """

    max_tokens: int
    per_prompt_token: int = 0
    beam_size: int = 1
    must_include: tuple[str, ...] = ()
    no_repeat_ngram: int | None = None

    def limit(self, prompt_tokens: int) -> int:
        """Return the limit of the completion of a prompt."""
        return self.max_tokens + self.per_prompt_token * prompt_tokens


@dataclass(frozen=True)
class Learned:
    """What the model learned that is asked with a short prompt.

    Attributes:
        options: Values of options that its rows had, a mapping each; an option that none of them names was left open.
        has_token: Tells whether a text is one entry of its vocabulary.
    """

    options: tuple[Mapping[str, str], ...] = ()
    has_token: Callable[[str], bool] = field(default=lambda text: False, compare=False, repr=False)

    def values(self, name: str) -> tuple[str, ...]:
        """Return the values of one option, in order."""
        return tuple(dict.fromkeys(values[name] for values in self.options if name in values))


@dataclass(frozen=True)
class Lack:
    """What weights that were tuned for a task did not learn of it.

    Attributes:
        text: The end of a sentence about them, such as ``learned the forms haiku and poem, not sonnet``.
        refused: Whether an untuned model would be no help: then the example is refused.
    """

    text: str
    refused: bool = False


@dataclass(frozen=True)
class Chunk(Generic[E]):
    """A part of an example.

    Attributes:
        example: The part, as an example.
        before: What stands in front of its text in the whole.
        after: What stands behind it.
        offset: Where its text begins in the whole, in characters.
    """

    example: E
    before: str = ""
    after: str = ""
    offset: int = 0


@dataclass(frozen=True)
class ChunkResult(Generic[E]):
    """One chunk's outcome.

    Attributes:
        chunk: The chunk.
        prediction: What was parsed from its completion.
        logprob: Mean log-probability per generated token, in nats.
        n_tokens: Generated tokens.
        min_logprob: Log-probability of the least likely token, in nats.
        finish_reason: Why the completion ended.
        loops: Whether it runs in circles.
    """

    chunk: Chunk[E]
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
class TextBudget:
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


class Task(Generic[E]):
    """A task. A subclass has a name, fields, metrics and `prompt`; all else has a default.

    Attributes:
        name: Name on the command line and in run records.
        version: Raised when the prompt or the parsing changes.
        fields: Columns of its data rows.
        metrics: Names of its metrics, the main one first.
        options: Decoding options of all its examples.
        cleaning: What to take off a completion before it is parsed, and whether it can be shown as it grows.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    fields: ClassVar[tuple[Field, ...]]
    metrics: ClassVar[tuple[str, ...]]
    options: ClassVar[DecodeConfig] = DecodeConfig()
    cleaning: ClassVar[Cleaning] = Cleaning()

    def prepare(self, row: Row) -> E:
        """Normalise a row, once, before anything else: names to codes, defaults filled in, values checked.

        Raises:
            NlpkitError: A value cannot be used.
        """
        return cast("E", row)

    def prompt(self, example: E) -> Prompt:
        """Say what the model is asked. Deterministic."""
        raise NotImplementedError(f"The task {self.name} has no prompt.")

    def decoding(self, example: E, *, learned: Learned | None) -> TaskDecoding:
        """Return what one example or chunk asks for; where the user's options are at odds with it, those count.

        Args:
            example: The example.
            learned: What the model learned, where it is asked with the short prompt; else None.
        """
        return TaskDecoding(max_tokens=self.options.max_tokens)

    def parse(self, text: str, example: E) -> Prediction:
        """Read a completion that was cleaned. Pure; never raises, whatever the model wrote.

        Where the task's text is shown as it grows, the prediction's text must be the text itself.
        """
        return Prediction(text)

    def target(self, example: E) -> Target | None:
        """Return what should come out, or None where the example does not say it."""
        return None

    def teaches(self, example: E) -> Mapping[str, str]:
        """Return the options of an example that decide what a model learns from it, for `lack` to compare."""
        return {}

    def lack(self, example: E, learned: Learned) -> Lack | None:
        """Say what of an example tuned weights did not learn: by default the values of options that are not theirs."""
        for column in self.fields:
            known, value = learned.values(column.name), value_of(example, column.name)
            if column.role == "option" and known and value and str(value) not in known:
                return Lack(f"learned the {column.name}s {', '.join(sorted(known))}, not {value}")
        return None

    @property
    def text_field(self) -> str:
        """Name of the field that commands fill, and that is cut to fit: the first one that is a text."""
        return next(column.name for column in self.fields if column.role == "text")

    def text(self, example: E) -> str:
        """Return the text of that field."""
        return str(value_of(example, self.text_field) or "")

    def with_text(self, example: E, text: str) -> E:
        """Return an example with another text."""
        if isinstance(example, Mapping):
            return cast("E", {**example, self.text_field: text})
        return cast("E", replace(cast("Any", example), **{self.text_field: text}))


class Splits(Task[E]):
    """A task whose long texts are read in chunks.

    Attributes:
        on_overflow: What to do with inputs that do not fit, unless the user says otherwise.
        combines: Whether the best predictions of several chunks may be combined freely into predictions of the whole.
        explains: Whether the predictions themselves say where completions were cut off or run in circles.
    """

    on_overflow: ClassVar[Overflow] = "chunk"
    combines: ClassVar[bool] = False
    explains: ClassVar[bool] = False

    def split(self, example: E, budget: TextBudget, *, learned: Learned | None) -> list[Chunk[E]]:
        """Cut an example into chunks that each fit the budget, losing nothing.

        Returns:
            The chunks; just the example where it fits; none where there is nothing to ask the model.
        """
        raise NotImplementedError(f"The task {self.name} cannot be split.")

    def merge(self, results: Sequence[ChunkResult[E]], example: E, *, learned: Learned | None) -> Prediction:
        """Join the chunks' predictions. Called for one chunk, and for none, as well.

        By default the texts are joined, with what stood around each.
        """
        return Prediction("".join(one.chunk.before + one.prediction.text + one.chunk.after for one in results))

    def reduce(
        self, results: Sequence[ChunkResult[E]], example: E, *, learned: Learned | None, user_options: Mapping[str, Any]
    ) -> E | None:
        """Return a further example to run instead of merging (a summary of summaries), or None.

        Args:
            results: The chunks' outcomes.
            example: The whole.
            learned: As in `decoding`.
            user_options: Decoding options that the user gave; what they ask for is not second-guessed.
        """
        return None


class Reranks(Task[E]):
    """A task whose answers a model can judge the other way round, if it learned that, too."""

    def candidates(self, logprob: float, example: E, *, learned: Learned | None) -> int:
        """Return how many candidates to search for beside a greedy completion; 0 where it is sure enough.

        Args:
            logprob: Log-probability of the whole completion, in nats.
            example: One chunk.
            learned: As in `decoding`.
        """
        raise NotImplementedError

    def reverse(self, completion: str, example: E) -> E | None:
        """Return an example whose target is the likelier, the better the completion; None where there is none."""
        raise NotImplementedError

    def choose(self, predictions: Sequence[Prediction], logprobs: Sequence[float], reverse: Sequence[float]) -> int:
        """Choose among candidates.

        Args:
            predictions: What was parsed from each, at least one.
            logprobs: Log-probability of each completion, in nats.
            reverse: Log-probability of the target of each one's `reverse` example, in nats.

        Returns:
            The index of the best: by default that of the one that makes both together the likeliest.
        """
        return max(range(len(predictions)), key=lambda i: logprobs[i] + reverse[i])


class Scores(Task[E]):
    """A task with a closed set of answers: they are scored by likelihood, and none is written."""

    def decoding(self, example: E, *, learned: Learned | None) -> TaskDecoding:
        """Ask for room for the longest answer: no answer has more tokens than bytes."""
        longest = max((len(answer.encode()) for answer in self.answers(example, learned=learned)), default=0)
        return TaskDecoding(max_tokens=longest + 1)

    def answers(self, example: E, *, learned: Learned | None) -> Sequence[str]:
        """Return the answers to choose from, at least one.

        Args:
            example: The example.
            learned: As in `decoding`.
        """
        raise NotImplementedError

    def neutral(self, example: E, *, learned: Learned | None) -> E | None:
        """Return an example that says nothing, or None.

        What the model thinks of each answer there is taken off, so that those that it likes anyway have no advantage.

        Args:
            example: The example.
            learned: As in `decoding`.
        """
        return None

    def weigh(self, answers: Sequence[str], logprobs: Sequence[float], example: E) -> Prediction:
        """Choose among the answers.

        Args:
            answers: All of them.
            logprobs: Log-likelihood of each, in nats, less that of `neutral`; of a text in chunks the
                mean of theirs by length.
            example: The example.

        Returns:
            By default the likeliest answer, parsed.
        """
        return self.parse(answers[max(range(len(answers)), key=logprobs.__getitem__)], example)


class LineWriter(Protocol):
    """What `Composes.compose` asks for lines: a model, with its prompt in front."""

    def write(self, requests: Sequence[LineRequest]) -> Sequence[Sequence[LineTry]]:
        """Return tries of lines, those of each request."""
        ...

    def is_common(self, word: str) -> bool:
        """Tell whether a word is a common one."""
        ...


class Composes(Task[E]):
    """A task of which some examples are written line by line: several tries of each, of which the best go on."""

    def composition(self, example: E, *, learned: Learned | None) -> E | None:
        """Return the example with whose prompt lines are asked for; None where a text is written in one go."""
        raise NotImplementedError

    def compose(self, example: E, writer: LineWriter, *, seed: int) -> tuple[str, float] | None:
        """Write one text.

        Args:
            example: The example, as it was asked for.
            writer: Writes tries of lines.
            seed: Seed of all that is drawn.

        Returns:
            The text, which `parse` reads, and how good it is held to be, to rank several; None where none was found:
            then it is written in one go.
        """
        raise NotImplementedError


def as_composes(task: Task[E]) -> Composes[E] | None:
    """Return the task if some of its examples are written line by line."""
    return task if isinstance(task, Composes) else None


def as_splits(task: Task[E]) -> Splits[E] | None:
    """Return the task if its texts can be read in chunks."""
    return task if isinstance(task, Splits) else None


def as_reranks(task: Task[E]) -> Reranks[E] | None:
    """Return the task if it can choose among candidates."""
    return task if isinstance(task, Reranks) else None


def as_scores(task: Task[E]) -> Scores[E] | None:
    """Return the task if it has a closed set of answers."""
    return task if isinstance(task, Scores) else None


def value_of(example: Any, name: str) -> Any:
    """Return a field's value in a row or a prepared example; None where it has none."""
    return example.get(name) if isinstance(example, Mapping) else getattr(example, name, None)


def check_task(task: Any, *, where: str) -> Task[Any]:
    """Check that an object is a task with all that it must have.

    Raises:
        ConfigError: It is not.
    """
    if not isinstance(task, Task):
        raise ConfigError(f"{where} is no task: it must be a subclass of nlpkit.Task.")
    lacking = [name for name in ("name", "fields", "metrics") if not getattr(task, name, None)]
    if lacking:
        raise ConfigError(f"The task {where} has no {' and no '.join(lacking)}. Every task needs them.")
    if not any(column.role == "text" for column in task.fields):
        raise ConfigError(f"The task {where} has no field with the role text, so a model would have nothing to read.")
    return task
