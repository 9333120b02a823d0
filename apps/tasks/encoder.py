"""How a model is asked about an example: with the task's brief prompt if it was tuned for that, else as it is chatted.

Tasks, evaluation and scoring all come here, so that a prompt, its hash and the likelihood after it are of one kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nlpkit.apps.tasks.task import BRIEF, LEARNED, MASKS, BaseTask, Example, Task
from nlpkit.core.chat.message import Message
from nlpkit.core.errors import InputError, NlpkitError, TokenizerError
from nlpkit.core.tokenizers.tokenizer import Tokenizer, encode_behind
from nlpkit.core.train.data.store import TokenRow

if TYPE_CHECKING:
    from nlpkit.core.chat.template import ChatTemplate
    from nlpkit.core.language_model import LanguageModel


FORMER = ".1"
"""Behind a brief prompt's name: the model learned the form that it had before."""


def brief_prompt(lm: LanguageModel, task: Task, example: Example) -> str | None:
    """Return the brief prompt of a prepared example, or None where the model is asked as any other."""
    name = task.brief_name(example)
    if name not in lm.brief_tasks:
        return None
    former: Callable[[Example], str | None] | None = getattr(task, "former_brief", None)
    return former(example) if former is not None and name + FORMER in lm.brief_tasks else task.brief(example)


def note_prompt(lm: LanguageModel, task: Task, example: Example) -> Example:
    """Note in a prepared example whether it is asked briefly, and then what the model learned.

    Tasks cut, merge and warn by that.
    """
    if brief_prompt(lm, task, example) is None:
        return example
    from nlpkit.apps.text.translation.protected import MAX_MASKS

    masks = all(lm.has_token(f"⟦{number}⟧") for number in range(1, MAX_MASKS + 1))
    return {**example, BRIEF: True, LEARNED: lm.languages, MASKS: masks}


def prompt_ids(lm: LanguageModel, task: Task, example: Example) -> list[int]:
    """Return the token ids of a prepared example's prompt."""
    brief = brief_prompt(lm, task, example)
    if brief is not None:
        return lm.encode(brief)
    messages = task.prompt(example)
    if task.raw:
        return lm.encode("\n\n".join(message.content for message in messages))
    return lm.render(messages)


def target_ids(lm: LanguageModel, task: Task, example: Example, target: str) -> list[int]:
    """Return the token ids of a target behind a prepared example's prompt.

    It is tokenized as what continues the prompt, and the prompt on its own. Behind a brief prompt the target begins
    with a space; training does the same (`nlpkit.apps.tasks.encoder.Coder.row`).
    """
    text = target if brief_prompt(lm, task, example) is None else f" {target}"
    return encode_behind(lm.tokenizer, prompt_ids(lm, task, example), text)


def describe_prompt(lm: LanguageModel, task: Task, example: Example) -> list[dict[str, str]]:
    """Return a prepared example's prompt as a run record shows and hashes it.

    Returns:
        Chat messages, or one entry with the role ``brief``.
    """
    brief = brief_prompt(lm, task, example)
    if brief is not None:
        return [{"role": "brief", "content": brief}]
    return [{"role": message.role, "content": message.content} for message in task.prompt(example)]


def has_brief_prompts(task: Task) -> bool:
    """Tell whether a task has brief prompts, at least for some of its rows."""
    return getattr(type(task), "brief", BaseTask.brief) is not BaseTask.brief


def _prepared(task: Task, example: Example, where: str) -> Example:
    try:
        return task.prepare(example)
    except NlpkitError as error:
        raise type(error)(f"{where}: {error}") from error


@dataclass(frozen=True)
class Coder:
    """Turns rows into tokens, exactly as the task's command would ask and the model should answer.

    Attributes:
        tokenizer: Text to ids.
        chat: The chat template, or None for a base model.
        brief: Whether to use the tasks' brief prompts.
    """

    tokenizer: Tokenizer
    chat: ChatTemplate | None
    brief: bool = False

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

    def prompt_ids(self, task: Task, example: Example) -> list[int]:
        """Return the prompt as the task's command renders it."""
        if self.brief and (text := task.brief(example)) is not None:
            return self._start(text)
        messages = task.prompt(example)
        if self.chat is not None and not task.raw:
            return self.chat.render_tokens(messages, self.tokenizer, add_generation_prompt=True)
        return self._start("\n\n".join(message.content for message in messages))

    def _start(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_bos=self.tokenizer.adds_bos)

    def row(self, task: Task | None, example: Example, where: str) -> TokenRow:
        """Tokenize one checked row.

        Args:
            task: Its task; None for language modelling.
            example: The row.
            where: Where it came from.

        Returns:
            Prompt, target and end, with the prompt's length.

        Raises:
            InputError: The row has no target.
        """
        if task is None:
            return TokenRow([*self._start(str(example["text"])), self.end_id(chat=False)], 0, where)
        prepared = _prepared(task, example, where)
        target = task.target(prepared)
        if target is None or not target.strip():
            raise InputError(
                f"{where}: the row has nothing to learn: no {task.name} target in it. It has: {', '.join(example)}."
            )
        prompt = self.prompt_ids(task, prepared)
        brief = self.brief and task.brief(prepared) is not None
        answer = encode_behind(self.tokenizer, prompt, f" {target}" if brief else target)
        return TokenRow([*prompt, *answer, self.end_id(chat=not (task.raw or brief))], len(prompt), where)
