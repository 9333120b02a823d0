"""Writing what was trained: our own model directory, or an adapter in PEFT's layout."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor

from nlpkit.core.files.write import into_directory
from nlpkit.core.formats.learned_tasks import FILE_NAME as LEARNED_TASKS
from nlpkit.core.formats.learned_tasks import write_learned_tasks
from nlpkit.core.formats.native import FORMAT_VERSION, NATIVE_CONFIG
from nlpkit.core.formats.peft.save import save_adapter
from nlpkit.core.model.gpt import GPT
from nlpkit.core.model.lora import LoraWeights, lora_layers

if TYPE_CHECKING:
    from nlpkit.core.chat.template import ChatTemplate
    from nlpkit.core.tokenizers.tokenizer import Tokenizer


def write_model(
    directory: Path,
    model: GPT,
    weights: Mapping[str, Tensor],
    *,
    tokenizer: Tokenizer,
    chat: ChatTemplate | None,
    dtype: torch.dtype,
    learned_tasks: Iterable[str] = (),
    learned: Iterable[Mapping[str, str]] = (),
) -> None:
    """Write a trained model into a directory that may hold other things, each file whole or not at all.

    Args:
        directory: Where to.
        model: Its shape, and the weights that were not trained.
        weights: Trained weights by name.
        tokenizer: Its tokenizer.
        chat: Its chat template, or None.
        dtype: Dtype on disk.
        learned_tasks: Tasks whose short prompts it learned.
        learned: Values of the tasks' options that it learned.

    Raises:
        OutputError: A file cannot be written.
    """
    tensors = {
        name: weights.get(name, parameter).detach().to("cpu", dtype).contiguous()
        for name, parameter in model.named_parameters()
    }
    with into_directory(directory, stale=[LEARNED_TASKS]) as aside:
        save = getattr(tokenizer, "save", None)
        if save is not None:
            save(aside)
        if chat is not None:
            chat.save(aside)
        values = {"format_version": FORMAT_VERSION, "model": model.config.to_dict()}
        (aside / NATIVE_CONFIG).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", "utf-8")
        write_learned_tasks(aside, learned_tasks, learned=learned)
        save_file(tensors, aside / "model.safetensors")


def write_adapter(
    directory: Path,
    model: GPT,
    weights: Mapping[str, Tensor],
    *,
    base_model: str | None,
    dropout: float,
    dtype: torch.dtype = torch.float32,
    learned_tasks: Iterable[str] = (),
    learned: Iterable[Mapping[str, str]] = (),
) -> None:
    """Write a trained adapter, each file whole or not at all.

    Args:
        directory: Where to.
        model: The adapted model.
        weights: Trained weights by name.
        base_model: What to name as the base model.
        dropout: Dropout of the adapter, for the record.
        dtype: Dtype on disk.
        learned_tasks: Tasks whose short prompts it learned.
        learned: Values of the tasks' options that it learned.

    Raises:
        OutputError: A file cannot be written.
    """
    updates = {
        name: LoraWeights(
            weights[f"{name}.lora_a"], weights[f"{name}.lora_b"], layer.scale, weights.get(f"{name}.magnitude")
        )
        for name, layer in lora_layers(model).items()
    }
    with into_directory(directory, stale=[LEARNED_TASKS]) as aside:
        save_adapter(aside, model.config, updates, base_model=base_model, dropout=dropout, dtype=dtype)
        write_learned_tasks(aside, learned_tasks, learned=learned)
