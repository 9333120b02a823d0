"""The former seam of tasks, kept for one release: a class on `BaseTask` is turned into a `nlpkit.Task`.

What one prompt asks works as it did: ``prompt``, ``brief``, ``brief_name``, ``parse``, ``references``, ``target``,
``max_tokens``, ``decoding``, ``streams``, ``raw``, ``text_field``, ``retries_loops``. What cuts and joins long texts,
or tries again, has to be written anew (docs/tasks.md).
"""

from __future__ import annotations

from typing import Any

from nlpkit.apps.tasks.rows import check_row
from nlpkit.apps.tasks.task import Field, Learned, Prediction, Prompt, Row, Target, Task, TaskDecoding
from nlpkit.apps.text.cleaning import Cleaning
from nlpkit.core.chat.message import Message
from nlpkit.core.decode.config import DecodeConfig

__all__ = ["BaseTask", "Example", "Field", "Prediction", "check_example"]

Example = Row
check_example = check_row

_GONE = ("split", "merge", "frame", "reduce", "second_try", "rivals", "inverse", "choose", "options")
"""Methods that no longer work as they did; ``options`` is now the name of the decoding options."""


class BaseTask(Task[Row]):
    """A task as it was written before."""

    streams = True
    raw = False
    retries_loops = False

    def __init_subclass__(cls, **more: Any) -> None:
        """Take a class of the former kind apart.

        Raises:
            TypeError: It has methods that have to be written anew.
        """
        super().__init_subclass__(**more)
        own = dict(vars(cls))
        gone = [name for name in _GONE if callable(own.get(name))]
        if gone:
            raise TypeError(
                f"{cls.__name__}.{gone[0]} no longer works: build the task on nlpkit.Task and nlpkit.Splits."
            )
        if isinstance(own.get("decoding"), DecodeConfig):
            cls.options = own["decoding"]
            del cls.decoding
        for name, former in (("prompt", "_messages"), ("target", "_target")):
            if name in own:
                setattr(cls, former, own[name])
                delattr(cls, name)
        parses = cls.parse is not Task.parse
        cls.cleaning = Cleaning(strip=not parses, shows=cls.streams and not parses, retries_loops=cls.retries_loops)

    def _messages(self, example: Row) -> list[Message]:
        raise NotImplementedError(f"The task {self.name} has no prompt.")

    def _target(self, example: Row) -> str | None:
        references = self.references(example)
        return references[0] if references else None

    def brief(self, example: Row) -> str | None:
        """Know no short prompt."""
        return None

    def brief_name(self, example: Row) -> str:
        """Take the task's name."""
        return self.name

    def references(self, example: Row) -> list[str]:
        """Have none."""
        return []

    def max_tokens(self, example: Row, prompt_tokens: int) -> int:
        """Take the default of the decoding options."""
        return self.options.max_tokens

    def prompt(self, example: Row) -> Prompt:
        """Put together what the former methods say."""
        return Prompt(
            tuple(self._messages(example)), raw=self.raw, short=self.brief(example), name=self.brief_name(example)
        )

    def decoding(self, example: Row, *, learned: Learned | None) -> TaskDecoding:
        """Allow what `max_tokens` says."""
        least = self.max_tokens(example, 0)
        return TaskDecoding(max_tokens=least, per_prompt_token=(self.max_tokens(example, 1000) - least) // 1000)

    def target(self, example: Row) -> Target | None:
        """Put together target and references."""
        text = self._target(example)
        return None if text is None else Target(text, tuple(self.references(example)) or None)
