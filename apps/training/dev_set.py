"""Generating for a few development rows while a model trains: to score it, and to look at what it writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from nlpkit.apps.data.rows import row_format
from nlpkit.apps.pipeline.run import run_task
from nlpkit.apps.tasks.encoder import short_names
from nlpkit.apps.tasks.generation import TextGeneration
from nlpkit.apps.tasks.task import Task
from nlpkit.apps.training.examples import find_task, read_blocks, read_examples
from nlpkit.apps.training.recipe import TEXT, DataSpec, Recipe
from nlpkit.apps.training.setup import Start
from nlpkit.core.errors import ConfigError
from nlpkit.core.language_model import LanguageModel, ModelFacts
from nlpkit.core.model.gpt import GPT
from nlpkit.core.runners.gpt import GPTRunner
from nlpkit.core.tokenizers.stream import decode_behind
from nlpkit.core.tokenizers.tokenizer import Tokenizer
from nlpkit.core.train.session import Evaluate

Scorer = Callable[[str, Sequence[tuple[str, tuple[str, ...]]]], float]
"""Scores predictions with their references by the name of a metric. Handed in: tasks know metrics by name only."""

BEGINNING, CONTINUATION = 32, 64
"""Tokens of a text that are shown to the model, and that it writes."""

_SAMPLING: Mapping[str, Any] = {"temperature": 0.8, "top_p": 0.95, "ignore_eos": True}
"""How plain text is continued: the likeliest text of a young model runs in circles, or ends at once."""

_READ = 1 << 15
"""Characters of a text file that are looked at, for each sample."""


def dev_examples(recipe: Recipe, count: int) -> tuple[Task[Any] | None, list[Mapping[str, Any]]]:
    """Return the task and the first examples of the development data that are rows of a task."""
    for spec in recipe.eval_data:
        task = find_task(spec.task)
        if task is not None:
            return task, [example for _, example in islice(read_examples(spec, task), count)]
    return None, []


def text_beginnings(
    specs: Sequence[DataSpec], tokenizer: Tokenizer, *, seq_len: int, count: int
) -> list[Mapping[str, Any]]:
    """Cut beginnings out of plain development text, each with what follows.

    Args:
        specs: The development data.
        tokenizer: Counts.
        seq_len: Tokens that a beginning and its continuation may have together.
        count: How many: the first rows that are long enough, or pieces from the start of a text file.

    Returns:
        Examples of the task ``generation``.
    """
    shown = max(1, min(BEGINNING, seq_len // 2))
    width = min(seq_len, shown + CONTINUATION)
    texts = (piece for spec in specs if spec.task == TEXT for piece in _texts(spec, tokenizer, width, count))
    cut = ((ids[:shown], ids[shown:width]) for ids in texts if len(ids) > shown)
    pieces = ((tokenizer.decode(head), decode_behind(tokenizer, head, rest)) for head, rest in cut)
    return [{"prompt": prompt, "text": rest} for prompt, rest in islice(pieces, count) if prompt.strip()]


def _texts(spec: DataSpec, tokenizer: Tokenizer, width: int, count: int) -> Iterator[list[int]]:
    """Yield the tokens of rows, or of neighbouring pieces of a file."""
    if row_format(spec.path) is not None:
        for _, example in read_examples(spec, None):
            yield tokenizer.encode(str(example["text"])[:_READ])
        return
    start = next(read_blocks(spec.path), "")[: _READ * count]
    ids = tokenizer.encode(start)
    yield from (ids[at : at + width] for at in range(0, len(ids), width))


class DevSet:
    """Generates for a few rows of the development data, to score and to look at."""

    def __init__(self, recipe: Recipe, start: Start, *, scorer: Scorer | None) -> None:
        """Read the rows.

        Args:
            recipe: Says how many, and by which metrics.
            start: Tokenizer and template.
            scorer: Scores predictions.

        Raises:
            ConfigError: Metrics are asked for that cannot be measured.
        """
        options = recipe.evaluation
        metrics = options.get("metrics", ())
        self.metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
        wanted = start.config.metric
        if wanted != "loss" and wanted not in self.metrics:
            self.metrics = (*self.metrics, wanted)
        self._n_samples = int(options.get("samples", 3))
        rows = int(options.get("rows", 64)) if self.metrics else self._n_samples
        task, self._examples = dev_examples(recipe, rows)
        self._overrides: dict[str, Any] = {"seed": 0}
        self._start, self._scorer = start, scorer
        if self.metrics and (task is None or scorer is None):
            raise ConfigError(
                f"The metrics {', '.join(self.metrics)} are measured by generating for rows of a task: give them with "
                "--eval-data."
            )
        self.task: Task[Any] = task or TextGeneration()
        if task is None:
            self._examples = text_beginnings(
                recipe.eval_data, start.encoder.tokenizer, seq_len=start.config.seq_len, count=self._n_samples
            )
            self._overrides |= {**_SAMPLING, "max_tokens": max(1, min(CONTINUATION, start.config.seq_len // 2))}
        if options.get("max_tokens") is not None:
            self._overrides["max_tokens"] = int(options["max_tokens"])
        # It is asked as it is taught: rows of a task may have short prompts of several names.
        names = short_names(self.task, self._examples)
        self._learned = frozenset(name for name in names if name in start.encoder.learned)

    @property
    def has_samples(self) -> bool:
        """Whether there is anything to show."""
        return self._n_samples > 0 and bool(self._examples)

    def _predict(self, model: GPT, examples: Sequence[Mapping[str, Any]]) -> list[str]:
        encoder, config = self._start.encoder, self._start.config
        facts = ModelFacts(
            name="the model in training",
            path=Path(),
            format="native",
            family=model.config.family,
            n_parameters=model.config.n_parameters,
            dtype=config.dtype,
            device=model.device.type,
            learned_tasks=self._learned,
        )
        lm = LanguageModel(facts, lambda: GPTRunner(model), encoder.tokenizer, encoder.chat)
        results = run_task(lm, self.task, examples, overrides=self._overrides, keep_going=True, on_overflow="truncate")
        return [result.prediction.text if result.error is None else "" for result in results]

    def evaluate(self) -> Evaluate | None:
        """Return what measures the metrics, or None where there are none."""
        task, scorer = self.task, self._scorer
        if not self.metrics or scorer is None:
            return None

        def measured(model: GPT) -> Mapping[str, float]:
            predictions = self._predict(model, self._examples)
            pairs = [
                (prediction, () if (target := task.target(task.prepare(example))) is None else target.accepted)
                for prediction, example in zip(predictions, self._examples, strict=True)
            ]
            return {name: scorer(name, pairs) for name in self.metrics}

        return measured

    def samples(self, model: GPT) -> list[Mapping[str, str]]:
        """Generate for the first rows.

        Args:
            model: The model in training.

        Returns:
            Input, prediction and target of each.
        """
        examples = self._examples[: self._n_samples]
        shown: list[Mapping[str, str]] = []
        for example, prediction in zip(examples, self._predict(model, examples), strict=True):
            prepared = self.task.prepare(example)
            target = self.task.target(prepared)
            expected = "" if target is None else target.text
            shown.append({"input": self.task.text(prepared)[:200], "prediction": prediction, "target": expected})
        return shown
