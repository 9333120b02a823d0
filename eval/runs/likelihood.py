"""Log-probability of a row's reference under a model, for perplexity and bits per byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nlpkit.apps.pipeline.plan import encoder_of
from nlpkit.apps.tasks.task import Example, Task
from nlpkit.core.errors import InputError
from nlpkit.eval.metrics.base import Likelihood

if TYPE_CHECKING:
    from nlpkit.core.language_model import LanguageModel


def target_likelihood(lm: LanguageModel, task: Task, example: Example) -> Likelihood:
    """Score the target of a row after its prompt.

    The target is tokenized on its own, behind the prompt that the task's command renders: where a chat template ends
    the prompt, that is what the model would write. Behind a brief prompt it begins with a space, as training has it,
    whose token is scored with it. No end-of-sequence token is scored.

    Args:
        lm: The model.
        task: The task.
        example: A prepared row with a target.

    Returns:
        The target's log-probability, tokens and UTF-8 bytes.

    Raises:
        InputError: The row has no target.
        ContextOverflowError: Prompt and target do not fit the context.
    """
    target = task.target(example)
    if not target:
        raise InputError("The row has no target, whose probability was asked for. Add one, or leave the metric out.")
    encoder = encoder_of(lm)
    ids = encoder.target(task, example, target)
    score = lm.score([(encoder.prompt(task, example), ids)])[0]
    return Likelihood(score.logprob, len(ids), len(target.encode("utf-8")))
