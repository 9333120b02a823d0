"""From an opened model file to a `GPT` that is ready to run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from nlpkit.core.errors import ModelFileError, TokenizerError
from nlpkit.core.model.config import ModelConfig
from nlpkit.core.model.gpt import GPT
from nlpkit.core.tokenizers.tokenizer import Tokenizer

_MOST_LISTED = 12


def _listed(title: str, lines: list[str]) -> list[str]:
    if not lines:
        return []
    shown = ", ".join(lines[:_MOST_LISTED])
    more = f" and {len(lines) - _MOST_LISTED} more" if len(lines) > _MOST_LISTED else ""
    return [f"{title}: {shown}{more}."]


def _block(name: str) -> str:
    """Return the block that a parameter belongs to, or nothing."""
    parts = name.split(".", 2)
    return ".".join(parts[:2]) if parts[0] == "blocks" else ""


def assign_weights(
    model: nn.Module,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    where: str,
    finish: Callable[[nn.Module], None] | None = None,
) -> None:
    """Put loaded tensors into a module built on ``meta``, without copying them.

    Args:
        model: The module.
        tensors: Names as in the module's state dictionary, and values.
        where: The file, for the error.
        finish: Called with each of the module's blocks as soon as it has all its weights.

    Raises:
        ModelFileError: Weights are missing, unexpected or of the wrong shape; all are named at once.
    """
    waiting = dict(model.named_parameters())
    left = Counter(_block(name) for name in waiting)
    unexpected: list[str] = []
    shapes: list[str] = []
    seen: set[str] = set()
    for name, tensor in tensors:
        if name in seen:
            unexpected.append(f"{name} (twice)")
            continue
        seen.add(name)
        parameter = waiting.get(name)
        if parameter is None:
            unexpected.append(name)
            continue
        if parameter.shape != tensor.shape:
            shapes.append(f"{name} is {tuple(tensor.shape)}, should be {tuple(parameter.shape)}")
            continue
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, nn.Parameter(tensor, requires_grad=False))
        block = _block(name)
        left[block] -= 1
        if finish is not None and block and not left[block]:
            finish(model.get_submodule(block))
    missing = [name for name in waiting if name not in seen]
    problems = [
        *_listed("Missing", missing),
        *_listed("Unexpected", unexpected),
        *_listed("Wrong shape", shapes),
    ]
    if problems:
        raise ModelFileError(
            f"The weights in {where} do not fit the model that its configuration describes. {' '.join(problems)} "
            "Check that the weights and the configuration belong together."
        )


def _one_copy(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Leave out the head of a model with tied weights; where it is the only copy, it is the embedding.

    Some programs store both, others (``safetensors.torch.save_model``) whichever name comes first.
    """
    head: Tensor | None = None
    embedding = False
    for name, tensor in tensors:
        if name == "head.weight":
            head = tensor
        else:
            embedding = embedding or name == "embed.weight"
            yield name, tensor
    if head is not None and not embedding:
        yield "embed.weight", head


def build_model(
    config: ModelConfig,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    where: str,
    finish: Callable[[nn.Module], None] | None = None,
) -> GPT:
    """Build a model around loaded weights; no parameter is ever initialised or copied.

    Args:
        config: Its shape.
        tensors: Internal names and values, in the dtype to run in.
        where: The file, for errors.
        finish: Called with each block as soon as it has its weights, so that what is made of them takes their place
            before the next ones are read.

    Returns:
        The model in evaluation mode, gradients off.

    Raises:
        ModelFileError: The weights do not fit the configuration.
    """
    with torch.device("meta"):
        model = GPT(config)
    assign_weights(model, _one_copy(tensors) if config.tied_head else tensors, where=where, finish=finish)
    return model.eval()


def check_vocabulary(tokenizer: Tokenizer, vocab_size: int, *, where: str) -> None:
    """Refuse a tokenizer whose ids go beyond the embedding.

    Args:
        tokenizer: The tokenizer.
        vocab_size: Rows of the embedding.
        where: The model, for the error.

    Raises:
        TokenizerError: The tokenizer has more ids than the model.
    """
    if tokenizer.vocab_size > vocab_size:
        raise TokenizerError(
            f"The tokenizer of {where} has {tokenizer.vocab_size} ids, the model's embedding {vocab_size} rows: they "
            "do not belong together."
        )
