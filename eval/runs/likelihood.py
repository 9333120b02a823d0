"""Log-probability of a row's reference under a model, for perplexity and bits per byte."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nlpkit.apps.tasks.encoder import PromptEncoder
from nlpkit.apps.tasks.task import Task
from nlpkit.core.errors import InputError
from nlpkit.eval.metrics.base import Likelihood

if TYPE_CHECKING:
    from nlpkit.core.language_model import LanguageModel


def target_likelihood(lm: LanguageModel, encoder: PromptEncoder, task: Task[Any], example: Any) -> Likelihood:
    """Score the target of a row after its prompt.

    The target is tokenized as what continues the prompt that the task's command asks: where a chat template ends the
    prompt, that is what the model would write. Behind a short prompt it begins with a space, as training has it, whose
    token is scored with it. No end-of-sequence token is scored.

    Args:
        lm: The model.
        encoder: Makes its prompts.
        task: The task.
        example: A prepared row with a target.

    Returns:
        The target's log-probability, tokens and UTF-8 bytes.

    Raises:
        InputError: The row has no target.
        ContextOverflowError: Prompt and target do not fit the context.
    """
    target = task.target(example)
    if target is None or not target.text:
        raise InputError("The row has no target, whose probability was asked for. Add one, or leave the metric out.")
    asked = encoder.ask(task, example)
    ids = encoder.target(asked, target.text)
    score = lm.score([(asked.ids, ids)])[0]
    return Likelihood(score.logprob, len(ids), len(target.text.encode("utf-8")))
