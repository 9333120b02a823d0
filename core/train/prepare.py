"""Getting a model ready to train: precision, dropout, attention, recomputation, compilation."""

from __future__ import annotations

import functools
import shutil
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nlpkit.core.errors import ConfigError
from nlpkit.core.machine.allocator import keep_freed_memory
from nlpkit.core.machine.compiler import find_compiler
from nlpkit.core.model.attention import Step
from nlpkit.core.model.gpt import GPT, Block
from nlpkit.core.model.lora import lora_layers
from nlpkit.core.train.attention import TrainingAttend
from nlpkit.core.train.config import TrainConfig
from nlpkit.core.train.products import prefers_onednn, summed_product, use_onednn

WORTH_COMPILING = 2e14
"""Floating point operations from which on compiling saves more time than it takes (it takes about a minute)."""


@dataclass(frozen=True)
class PreparedModel:
    """What was done to a model.

    Attributes:
        compiled: Whether its blocks are compiled.
        notes: What a user should know.
    """

    compiled: bool
    notes: tuple[str, ...] = ()


def has_compiler(device: torch.device) -> bool:
    """Tell whether torch can compile kernels for the device here."""
    if device.type == "cpu":
        return find_compiler() is not None or shutil.which("cl") is not None
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return bool(has_triton())
    return False


def prepare_model(model: GPT, config: TrainConfig, *, n_tokens: float, masters: bool = True) -> PreparedModel:
    """Set a model up for training, in place.

    Args:
        model: In fp32, or with frozen weights in bf16 already.
        config: The training configuration.
        n_tokens: Slots that will go through the model in all, to decide whether compiling is worth it.
        masters: Whether the bf16 weights of a model that is trained in bf16 live in the model, with masters beside
            them; otherwise the model stays in fp32 (for autocast and FSDP).

    Returns:
        What was done.

    Raises:
        ConfigError: Compilation was asked for and there is no compiler.
    """
    if model.device.type == "cpu":
        keep_freed_memory()
    if config.dtype == "bf16" and masters:
        for layer in lora_layers(model).values():
            layer.base.to(torch.bfloat16)
        for name, parameter in model.named_parameters():
            if "lora_" not in name and not name.endswith(".magnitude"):
                parameter.data = parameter.data.to(torch.bfloat16)
    on_cpu = model.device.type == "cpu"
    if config.dropout:
        _drop(model, config.dropout)
    for block in model.iter_blocks():
        if on_cpu or config.dropout:
            block.attn.attend = TrainingAttend(dropout=config.dropout, products=on_cpu)
        if config.checkpointing:
            block.forward = functools.partial(_recomputed, block)  # type: ignore[method-assign]
    # Autocast would see neither the sum nor its gradients.
    if masters or config.dtype == "fp32":
        for layer in lora_layers(model).values():
            layer.product = summed_product
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    if config.compile == "off" or (config.compile == "auto" and 6 * n_parameters * n_tokens < WORTH_COMPILING):
        run_eagerly(model, config)
        return PreparedModel(False)
    if not has_compiler(model.device):
        if config.compile == "on":
            raise ConfigError(
                "There is no C++ compiler to compile the model with. Install g++ or clang, or leave --compile at auto."
            )
        run_eagerly(model, config)
        return PreparedModel(False, ("there is no C++ compiler here, so the model runs uncompiled: slower, but right",))
    for block in model.iter_blocks():
        block.compile(dynamic=False)
    return PreparedModel(True)


def _drop(model: GPT, probability: float) -> None:
    """Drop values of what goes into the blocks, and of what attention and MLP add."""

    def of_input(block: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return F.dropout(args[0], probability, training=block.training), *args[1:]

    def of_output(layer: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        return F.dropout(out, probability, training=layer.training)

    model.blocks[0].register_forward_pre_hook(of_input)
    for block in model.iter_blocks():
        block.attn.register_forward_hook(of_output)
        block.mlp.register_forward_hook(of_output)


def _recomputed(block: Block, x: Tensor, step: Step) -> Tensor:
    """Run a block so that the backward pass computes its activations anew."""
    if not block.training:
        return Block.forward(block, x, step)
    out: Tensor = checkpoint(functools.partial(Block.forward, block), x, step, use_reentrant=False)
    return out


def run_eagerly(model: GPT, config: TrainConfig) -> None:
    """Let the blocks run uncompiled, from the start or after compiling failed, in place."""
    for block in model.iter_blocks():
        block._compiled_call_impl = None
    if model.device.type == "cpu" and config.dtype == "fp32" and prefers_onednn():
        use_onednn(model)
