"""Sentiment: whether a text speaks well or badly of what it is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from nlpkit.apps.tasks.classification import Classification
from nlpkit.apps.tasks.task import Field, Learned, Row

SENTIMENTS = ("negative", "neutral", "positive")


class Sentiment(Classification):
    """Classification by the writer's opinion.

    The labels are those of the row, or else those that the model learned, or else `SENTIMENTS`.
    """

    name = "sentiment"
    cue = "Sentiment"
    fields: ClassVar[tuple[Field, ...]] = (
        Classification.fields[0],
        Field("labels", list, required=False, role="option", help="negative, neutral and positive by default"),
        Field("label", required=False, role="reference", help="the right one", aliases=("sentiment",)),
    )

    def question(self, example: Row) -> str:
        """Ask for the writer's opinion."""
        return f"What does the writer think of the matter: {', '.join(example.get('labels') or SENTIMENTS)}?"

    def answers(self, example: Row, *, learned: Learned | None) -> Sequence[str]:
        """Return the row's labels, or else those that were learned, or else three."""
        known = example.get("labels") or (learned.values("label") if learned is not None else ())
        return tuple(known or SENTIMENTS)
