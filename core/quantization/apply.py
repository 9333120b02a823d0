"""Quantization of linear layers for CPU inference, through our compiled kernels or PyTorch's own.

With the kernels of `kernel_library`, weights have one scale (and at 4 bits one smallest value) per group of 32
inputs. With PyTorch's, ``int8`` keeps one scale per output row; ``int4`` one scale and zero point per group of 32
inputs (the layout of ``torch.ops.aten._weight_int4pack_mm_for_cpu``), and activations stay in bf16.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from nlpkit.core.errors import ConfigError
from nlpkit.core.model.config import ModelConfig
from nlpkit.core.model.gpt import GPT, Block
from nlpkit.core.model.lora import LoraWeights
from nlpkit.core.quantization.kernel_library import Library
from nlpkit.core.quantization.kernel_linear import KernelLinear, fits_kernels
from nlpkit.core.quantization.linear import GROUP, Int4Linear, Int8Linear, QuantKind


def quantized_linear(layer: nn.Linear, kind: QuantKind, library: Library | None = None) -> nn.Module:
    """Return a quantized stand-in for one linear layer; int8 where the 4-bit layout does not fit its shape.

    Args:
        layer: The layer.
        kind: ``int8`` or ``int4``.
        library: Compiled kernels to do it with, for layers that fit them.

    Returns:
        A module that computes the same up to rounding.
    """
    bias = layer.bias.detach() if layer.bias is not None else None
    if library is not None:
        return KernelLinear(library, layer.weight.detach(), bias, bits=4 if kind == "int4" else 8)
    fits = layer.in_features % GROUP == 0 and layer.out_features % 16 == 0
    if kind == "int4" and fits:
        return Int4Linear(layer.weight.detach(), bias)
    return Int8Linear(layer.weight.detach(), bias)


def quantize_model(model: GPT, kind: QuantKind, library: Library | None = None) -> None:
    """Quantize all linear layers of a bf16 model on the CPU, in place, the head in int8.

    Embedding and norms stay in bf16: they are read by the row. The head is kept in int8 even for ``int4``, since the
    last product decides between tokens.

    Args:
        model: A model in bf16 on the CPU, its projections fused.
        kind: ``int8`` or ``int4``.
        library: Compiled kernels to do it with, if they fit its shape; `Kernels` then runs whole passes.

    Raises:
        ConfigError: The model is elsewhere or of another dtype.
    """
    if model.device.type != "cpu" or model.dtype != torch.bfloat16:
        raise ConfigError(
            f"{kind} weights run on the CPU over bf16 activations; the model is on {model.device.type} in "
            f"{model.dtype}."
        )
    library = library if fits_kernels(model.config) else None
    for block in model.iter_blocks():
        quantize_block(block, kind, library)
    if model.head is None:
        # A quantized copy of the embedding serves as the head of a model with tied weights.
        weight = model.embed.weight.detach()
        model.head = Int8Linear(weight, None) if library is None else KernelLinear(library, weight, None, bits=8)
    elif isinstance(model.head, nn.Linear):
        model.head = quantized_linear(model.head, "int8", library)


def quantize_block(block: Block, kind: QuantKind, library: Library | None = None) -> None:
    """Quantize the linear layers of one block that are not quantized yet; a library must fit the model's shape."""
    for owner in (block.attn, block.mlp):
        for name, child in list(owner.named_children()):
            if isinstance(child, nn.Linear):
                setattr(owner, name, quantized_linear(child, kind, library))


def joined_parts(config: ModelConfig) -> dict[str, dict[str, int]]:
    """Return outputs of the layers of a block, by name, for each of the layers that `fuse_block` makes of them."""
    heads, kv_heads = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    up = {"mlp.gate": config.d_ff, "mlp.up": config.d_ff} if config.gated_mlp else {"mlp.up": config.d_ff}
    return {
        "attn.qkv": {"attn.q": heads, "attn.k": kv_heads, "attn.v": kv_heads},
        "attn.o": {"attn.o": config.d_model},
        "mlp.gate_up" if config.gated_mlp else "mlp.up": up,
        "mlp.down": {"mlp.down": config.d_model},
    }


def add_low_rank(model: GPT, updates: Mapping[str, LoraWeights]) -> None:
    """Put low-rank updates beside the weights of a model's blocks.

    Args:
        model: Its blocks are quantized by the compiled kernels; `Kernels` of it are made afterwards.
        updates: Updates by module name, such as ``blocks.3.attn.q``; without magnitudes.
    """
    joined = joined_parts(model.config)
    for number, block in enumerate(model.iter_blocks()):
        for path, parts in joined.items():
            layer = block.get_submodule(path)
            if isinstance(layer, KernelLinear):
                layer.add_low_rank([updates.get(f"blocks.{number}.{name}") for name in parts], list(parts.values()))
