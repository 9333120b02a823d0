"""Text generation: the completion as it is, of a raw prompt or of one that is put to an instruct model."""

from __future__ import annotations

from typing import ClassVar

from nlpkit.apps.tasks.task import Field, Prompt, Row, Target, Task
from nlpkit.apps.text.cleaning import Cleaning


class TextGeneration(Task[Row]):
    """Continues a prompt, without any template around it."""

    name = "generation"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("prompt", help="text to continue"),
        Field("text", required=False, role="reference", help="a reference continuation"),
    )
    metrics: ClassVar[tuple[str, ...]] = ("distinct2", "repetition", "length_words")
    cleaning = Cleaning(strip=False)
    raw: ClassVar[bool] = True

    def prompt(self, example: Row) -> Prompt:
        """Return the prompt itself."""
        return Prompt(str(example["prompt"]), raw=self.raw)

    def target(self, example: Row) -> Target | None:
        """Return the reference continuation, where there is one."""
        return Target(str(example["text"])) if example.get("text") else None


class Chat(TextGeneration):
    """Puts the prompt to an instruct model as a user's message."""

    name = "chat"
    raw = False
