"""How a model is asked about an example: with the task's brief prompt if it was tuned for that, else as it is chatted.

Tasks, evaluation and scoring all come here, so that a prompt, its hash and the likelihood after it are of one kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nlpkit.apps.task import BRIEF, LEARNED, MASKS, Example, Task
from nlpkit.core.tokenizers.base import encode_behind

if TYPE_CHECKING:
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
    from nlpkit.apps.protected import MAX_MASKS

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
    with a space; training does the same (`nlpkit.apps.finetune.Coder.row`).
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
