"""How an example becomes token ids: asked, learned from and scored alike.

A model is asked with a task's brief prompt where it learned that, else as it is chatted with. Everything that needs the
ids of a prompt or of what follows it holds a `PromptEncoder`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nlpkit.apps.tasks.task import BaseTask, Example, Task
from nlpkit.core.chat.message import Message
from nlpkit.core.errors import InputError, NlpkitError, TokenizerError
from nlpkit.core.tokenizers.tokenizer import Tokenizer, encode_behind

if TYPE_CHECKING:
    from nlpkit.core.chat.template import ChatTemplate


FORMER = ".1"
"""Behind a brief prompt's name: the model learned the form that it had before."""


class _Every:
    """The brief prompts that a model in training learns: those of all its rows, in the form that they have now."""

    def __contains__(self, name: object) -> bool:
        return not str(name).endswith(FORMER)


EVERY: Container[str] = _Every()
"""What a model in training learns with brief prompts."""


@dataclass(frozen=True)
class PromptEncoder:
    """Turns prepared examples into token ids.

    Attributes:
        tokenizer: Text to ids.
        chat: The chat template, or None for a base model.
        learned: Names of the brief prompts that the model learned, see `Task.brief_name`.
    """

    tokenizer: Tokenizer
    chat: ChatTemplate | None
    learned: Container[str] = frozenset()

    def brief(self, task: Task, example: Example) -> str | None:
        """Return the brief prompt of a prepared example, or None where the model is asked as any other."""
        name = task.brief_name(example)
        if name not in self.learned:
            return None
        former = getattr(task, "former_brief", None)
        if former is not None and name + FORMER in self.learned:
            text: str | None = former(example)
            return text
        return task.brief(example)

    def prompt(self, task: Task, example: Example) -> list[int]:
        """Return the ids of a prepared example's prompt."""
        brief = self.brief(task, example)
        if brief is not None:
            return self.text(brief)
        messages = task.prompt(example)
        if self.chat is None or task.raw:
            return self.text("\n\n".join(message.content for message in messages))
        return self.messages(messages)

    def text(self, text: str) -> list[int]:
        """Tokenize a raw prompt, with the beginning-of-sequence token where the tokenizer uses one."""
        return self.tokenizer.encode(text, add_bos=self.tokenizer.adds_bos)

    def messages(self, messages: Sequence[Message]) -> list[int]:
        """Turn chat messages into the ids of a prompt that the assistant's answer continues.

        Models without a chat template get the messages' contents, a blank line apart.

        Raises:
            InputError: There are no messages.
        """
        if not messages:
            raise InputError("There are no messages to answer.")
        if self.chat is not None:
            return self.chat.render_tokens(messages, self.tokenizer, add_generation_prompt=True)
        return self.text("\n\n".join(message.content for message in messages))

    def target(self, task: Task, example: Example, text: str) -> list[int]:
        """Return the ids of a text that answers a prepared example, tokenized as what continues the prompt.

        Behind a brief prompt the text begins with a space.
        """
        answer = text if self.brief(task, example) is None else f" {text}"
        return encode_behind(self.tokenizer, self.prompt(task, example), answer)

    def end(self, task: Task, example: Example) -> int:
        """Return the id that ends an answer to a prepared example."""
        return self.end_id(chat=not task.raw and self.brief(task, example) is None)

    def end_id(self, *, chat: bool) -> int:
        """Return the id that ends a completion: of the chat's turn, or of a text.

        Raises:
            TokenizerError: The tokenizer has none, so nothing could ever learn to stop.
        """
        ends = self.tokenizer.eos_ids
        if not ends:
            raise TokenizerError(
                "The tokenizer has no end-of-sequence token: a model trained with it could never stop. Use another one."
            )
        if chat and self.chat is not None:
            turns = [Message("user", "a"), Message("assistant", "b")]
            ids = self.chat.render_tokens(turns, self.tokenizer, add_generation_prompt=False)
            for token_id in reversed(ids):
                if token_id in ends:
                    return token_id
        stated: int | None = getattr(self.tokenizer, "eos_id", None)
        return min(ends) if stated is None else stated

    def lesson(self, task: Task, row: Example, where: str) -> tuple[list[int], int]:
        """Tokenize one checked row to learn from.

        Args:
            task: Its task.
            row: The row.
            where: Where it came from, for errors.

        Returns:
            Prompt, target and end, and the prompt's length.

        Raises:
            InputError: The row has no target.
        """
        example = prepare_row(task, row, where)
        target = task.target(example)
        if target is None or not target.strip():
            raise InputError(
                f"{where}: the row has nothing to learn: no {task.name} target in it. It has: {', '.join(row)}."
            )
        prompt = self.prompt(task, example)
        return [*prompt, *self.target(task, example, target), self.end(task, example)], len(prompt)

    def describe(self, task: Task, example: Example) -> list[dict[str, str]]:
        """Return a prepared example's prompt as a run record shows and hashes it.

        Returns:
            Chat messages, or one entry with the role ``brief``.
        """
        brief = self.brief(task, example)
        if brief is not None:
            return [{"role": "brief", "content": brief}]
        return [{"role": message.role, "content": message.content} for message in task.prompt(example)]


def learned_names(task: Task, rows: Iterable[Example]) -> frozenset[str]:
    """Return the names of the brief prompts that rows of a task teach."""
    return frozenset(task.brief_name(task.prepare(row)) for row in rows)


def has_brief_prompts(task: Task) -> bool:
    """Tell whether a task has brief prompts, at least for some of its rows."""
    return getattr(type(task), "brief", BaseTask.brief) is not BaseTask.brief


def prepare_row(task: Task, row: Example, where: str) -> Example:
    """Prepare a row, naming where it came from if it cannot be used."""
    try:
        return task.prepare(row)
    except NlpkitError as error:
        raise type(error)(f"{where}: {error}") from error
