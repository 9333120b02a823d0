"""How an example becomes token ids: asked, learned from and scored alike.

A model is asked with a task's short prompt where it learned that, else as it is chatted with. Everything that needs the
ids of a prompt or of what follows it holds a `PromptEncoder`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nlpkit.apps.tasks.task import E, Prompt, Row, Target, Task
from nlpkit.core.chat.message import Message
from nlpkit.core.errors import InputError, NlpkitError, TokenizerError
from nlpkit.core.tokenizers.tokenizer import Tokenizer, encode_behind

if TYPE_CHECKING:
    from nlpkit.core.chat.template import ChatTemplate

FORMER = ".1"
"""Behind a short prompt's name: the model learned the form that it had before."""


class _Every:
    """The short prompts that a model in training learns: those of all its rows, in the form that they have now."""

    def __contains__(self, name: object) -> bool:
        return not str(name).endswith(FORMER)


EVERY: Container[str] = _Every()
"""What a model in training learns with short prompts."""

Solved = Callable[[Any], Sequence[tuple[Prompt, Target]]]
"""Returns the solved examples that stand before a prepared one, each with what should come out for it."""


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt in token ids.

    Attributes:
        ids: The ids.
        short: Whether it is the short prompt.
        raw: Whether it goes without the chat template, whatever the model.
    """

    ids: list[int]
    short: bool
    raw: bool


@dataclass(frozen=True)
class PromptEncoder:
    """Turns prepared examples into token ids.

    Attributes:
        tokenizer: Text to ids.
        chat: The chat template, or None for a base model.
        learned: Names of the short prompts that the model learned, see `Prompt.name`.
        solved: Solved examples before each prompt, if there are any. With a chat template they are turns of the
            conversation; else, and before a short prompt, texts a blank line apart.
    """

    tokenizer: Tokenizer
    chat: ChatTemplate | None
    learned: Container[str] = frozenset()
    solved: Solved | None = None

    def short(self, task: Task[E], example: E) -> str | None:
        """Return the short prompt of an example, or None where the model is asked as any other.

        So it is, too, where a solved example before it has no short prompt.
        """
        return self._short(task, task.prompt(example), example)

    def _short(self, task: Task[E], own: Prompt, example: E) -> str | None:
        name = short_name(task, own)
        if name not in self.learned:
            return None
        former = name + FORMER in self.learned
        texts = []
        for prompt, target in self._solved(example):
            text = prompt.former if former and prompt.former is not None else prompt.short
            if text is None:
                return None
            texts.append(f"{text} {target.text}")
        text = own.former if former and own.former is not None else own.short
        return None if text is None else "\n\n".join([*texts, text])

    def _messages(self, own: Prompt, example: E) -> list[Message]:
        turns = [message for message in own.messages if message.role == "system"]
        for prompt, target in self._solved(example):
            turns += [message for message in prompt.messages if message.role != "system"]
            turns.append(Message("assistant", target.text))
        return turns + [message for message in own.messages if message.role != "system"]

    def _solved(self, example: Any) -> Sequence[tuple[Prompt, Target]]:
        return () if self.solved is None else self.solved(example)

    def ask(self, task: Task[E], example: E) -> EncodedPrompt:
        """Turn an example into the prompt that a model is asked with.

        Raises:
            InputError: There are no messages.
        """
        own = task.prompt(example)
        short = self._short(task, own, example)
        if short is not None:
            return EncodedPrompt(self.text(short), True, own.raw)
        messages = self._messages(own, example)
        if not messages:
            raise InputError("There are no messages to answer.")
        if self.chat is None or own.raw:
            return EncodedPrompt(self.text("\n\n".join(message.content for message in messages)), False, own.raw)
        return EncodedPrompt(
            self.chat.render_tokens(messages, self.tokenizer, add_generation_prompt=True), False, own.raw
        )

    def prompt(self, task: Task[E], example: E) -> list[int]:
        """Return the ids of an example's prompt, as `ask` does."""
        return self.ask(task, example).ids

    def text(self, text: str) -> list[int]:
        """Tokenize a raw prompt, with the beginning-of-sequence token where the tokenizer uses one."""
        return self.tokenizer.encode(text, add_bos=self.tokenizer.adds_bos)

    def target(self, asked: EncodedPrompt, text: str) -> list[int]:
        """Return the ids of an answer, tokenized as what continues the prompt; behind a short one after a space."""
        return encode_behind(self.tokenizer, asked.ids, f" {text}" if asked.short else text)

    def end(self, asked: EncodedPrompt) -> int:
        """Return the id that ends an answer."""
        return self.end_id(chat=not asked.raw and not asked.short)

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

    def lesson(self, task: Task[E], row: Row, where: str) -> tuple[list[int], int]:
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
        example = prepare_at(task, row, where)
        target = task.target(example)
        if target is None or not target.text.strip():
            raise InputError(
                f"{where}: the row has nothing to learn: no {task.name} target in it. It has: {', '.join(row)}."
            )
        asked = self.ask(task, example)
        return [*asked.ids, *self.target(asked, target.text), self.end(asked)], len(asked.ids)

    def describe(self, task: Task[E], example: E) -> list[dict[str, str]]:
        """Return an example's prompt as a run record shows and hashes it.

        Returns:
            Chat messages, or one entry with the role ``brief``.
        """
        own = task.prompt(example)
        short = self._short(task, own, example)
        if short is not None:
            return [{"role": "brief", "content": short}]
        return [{"role": message.role, "content": message.content} for message in self._messages(own, example)]


def short_name(task: Task[E], prompt: Prompt) -> str:
    """Return the name under which a model says that it learned a short prompt."""
    return prompt.name or task.name


def short_names(task: Task[Any], rows: Iterable[Row]) -> frozenset[str]:
    """Return the names of the short prompts that rows of a task teach."""
    return frozenset(short_name(task, task.prompt(task.prepare(row))) for row in rows)


def prepare_at(task: Task[E], row: Row, where: str) -> E:
    """Prepare a row, naming where it came from if it cannot be used."""
    try:
        return task.prepare(row)
    except NlpkitError as error:
        raise type(error)(f"{where}: {error}") from error
