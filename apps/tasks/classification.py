"""Classification: which of some labels fits a text, by the likelihood of each label; nothing is written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from nlpkit.apps.tasks.task import Chunk, Field, Learned, Prediction, Prompt, Row, Scores, Splits, Target, TextBudget
from nlpkit.apps.text.chunking import pack, split_sentences
from nlpkit.core.errors import InputError

MAX_LABELS = 1000
NOTHING = "N/A"
"""A text that says nothing (Zhao et al. 2021, "Calibrate Before Use", take the same)."""


class Classification(Splits[Row], Scores[Row]):
    """Gives a text one label of a set.

    The labels are those of the row, or else those that the model learned. Fields of a prediction: ``label`` (also the
    text), ``probability`` and ``probabilities``, of all labels, the likeliest first.

    A model that learned the task says by the likelihood of each label how probable it is. Any other model likes some
    labels whatever the text: the likelihood of each after a text that says nothing is divided out, which is the domain
    conditional PMI of Holtzman et al. 2021 ("Surface Form Competition").
    A text that does not fit the context is read in pieces, whose log-likelihoods are averaged.
    """

    name = "classification"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("text", help="text to classify", aliases=("sentence", "document", "content", "review")),
        Field("labels", list, required=False, role="option", help="labels to choose from; those learned by default"),
        Field("label", required=False, role="reference", help="the right label", aliases=("class", "category")),
    )
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1", "mcc")
    cue: ClassVar[str] = "Label"
    """What stands before the label in the short prompt."""

    def prepare(self, row: Row) -> Row:
        """Check the labels.

        Raises:
            InputError: One is blank, or there are too many.
        """
        values = dict(row)
        if isinstance(values.get("label"), str):
            values["label"] = values["label"].strip()
        if values.get("labels"):
            labels = list(dict.fromkeys(label.strip() for label in values["labels"]))
            if not all(labels):
                raise InputError(f"One of the labels {', '.join(map(repr, values['labels'][:8]))} is blank.")
            if not 2 <= len(labels) <= MAX_LABELS:
                raise InputError(f"There must be from 2 to {MAX_LABELS:,} different labels; here are {len(labels)}.")
            values["labels"] = labels
        return values

    def question(self, example: Row) -> str:
        """Return what a model that did not learn the task is asked, in front of the text."""
        labels = ", ".join(example.get("labels") or ())
        return f"Choose the label that fits the text best{f': {labels}' if labels else ''}."

    def prompt(self, example: Row) -> Prompt:
        """Give the labels, then the text: what is asked is the same for all texts."""
        text = str(example["text"]).strip()
        return Prompt(
            f"{self.question(example)} Answer with the label alone.\n\nText: {text}", short=f"{text}\n{self.cue}:"
        )

    def answers(self, example: Row, *, learned: Learned | None) -> Sequence[str]:
        """Return the row's labels, or else those that were learned."""
        return tuple(example.get("labels") or (learned.values("label") if learned is not None else ()))

    def neutral(self, example: Row, *, learned: Learned | None) -> Row | None:
        """Ask a model that did not learn the task about a text that says nothing, too."""
        return self.with_text(example, NOTHING) if learned is None else None

    def weigh(self, answers: Sequence[str], logprobs: Sequence[float], example: Row) -> Prediction:
        """Give each label its probability among all of them."""
        return _prediction(dict(zip(answers, _softmax(logprobs), strict=True)))

    def parse(self, text: str, example: Row) -> Prediction:
        """Take a text as the label that it is."""
        return Prediction(text.strip(), {"label": text.strip()})

    def target(self, example: Row) -> Target | None:
        """Return the right label."""
        label = example.get("label")
        return Target(label) if isinstance(label, str) and label else None

    def teaches(self, example: Row) -> Mapping[str, str]:
        """Return the label."""
        target = self.target(example)
        return {} if target is None else {"label": target.text}

    def split(self, example: Row, budget: TextBudget, *, learned: Learned | None) -> list[Chunk[Row]]:
        """Cut a long text between sentences."""
        text = str(example["text"])
        if budget.count_tokens(text) <= budget.max_text_tokens:
            return [Chunk(example)]
        pieces = pack(split_sentences(text), budget.max_text_tokens, budget.count_tokens)
        return [Chunk(self.with_text(example, piece)) for piece in pieces if piece.strip()]


def _softmax(values: Sequence[float]) -> list[float]:
    top = max(values)
    weights = [math.exp(value - top) for value in values]
    total = sum(weights)
    return [weight / total for weight in weights]


def _prediction(probabilities: Mapping[str, float]) -> Prediction:
    ranked: dict[str, Any] = dict(sorted(probabilities.items(), key=lambda item: -item[1]))
    label = next(iter(ranked))
    rounded = {name: round(value, 6) for name, value in ranked.items()}
    return Prediction(label, {"label": label, "probability": rounded[label], "probabilities": rounded})
