"""Raw text generation: the prompt as it is, the completion as it is."""

from __future__ import annotations

from typing import ClassVar

from nlpkit.apps.tasks.task import BaseTask, Example, Field, Prediction
from nlpkit.core.chat.message import Message


class TextGeneration(BaseTask):
    """Continues a prompt. Nothing is wrapped around it and nothing is stripped from what the model writes."""

    name = "generation"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("prompt", help="text to continue"),
        Field("text", required=False, help="a reference continuation"),
    )
    metrics: ClassVar[tuple[str, ...]] = ("distinct2", "repetition", "length_words")
    raw = True
    text_field = "prompt"

    def prompt(self, example: Example) -> list[Message]:
        """Return the prompt itself."""
        return [Message("user", str(example["prompt"]))]

    def parse(self, completion: str, example: Example) -> Prediction:
        """Take the completion as it is."""
        return Prediction(completion)

    def preview(self, partial: str, example: Example) -> str:
        """Show everything."""
        return partial

    def references(self, example: Example) -> list[str]:
        """Return the reference continuation, where there is one."""
        return [str(example["text"])] if example.get("text") else []


class Chat(TextGeneration):
    """Puts the prompt to an instruct model as a user's message."""

    name = "chat"
    raw = False
