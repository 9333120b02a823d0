"""Fusing projections for inference: one matrix product for q, k and v, and one for gate and up."""

from __future__ import annotations

import torch
from torch import nn

from nlpkit.core.model.gpt import GPT, Block


def _joined(layers: list[nn.Linear]) -> nn.Linear:
    """Stack linear layers along their output dimension."""
    with torch.device("meta"):
        joint = nn.Linear(layers[0].in_features, sum(layer.out_features for layer in layers), bias=False)
    joint.weight = nn.Parameter(torch.cat([layer.weight for layer in layers]), requires_grad=False)
    if layers[0].bias is not None:
        joint.bias = nn.Parameter(torch.cat([layer.bias for layer in layers]), requires_grad=False)
    return joint


def _plain(layers: list[nn.Module | None]) -> list[nn.Linear] | None:
    """Return the layers if all are plain linear ones, else None."""
    # The exact type: a subclass may add an adapter or hold its weights in another form.
    plain = [layer for layer in layers if isinstance(layer, nn.Linear) and type(layer) is nn.Linear]
    return plain if len(plain) == len(layers) else None


def fuse_projections(model: GPT) -> None:
    """Replace separate projections by joint ones, in place, one block at a time.

    The result computes the same function with fewer, larger matrix products. Weights that are not plain linear layers
    (quantized or adapted) are left as they are.

    Args:
        model: A model for inference.
    """
    for block in model.iter_blocks():
        fuse_block(block)


def fuse_block(block: Block) -> None:
    """Do what `fuse_projections` does to one block."""
    attn, mlp = block.attn, block.mlp
    parts = _plain([attn.q, attn.k, attn.v])
    if parts is not None:
        attn.qkv = _joined(parts)
        attn.q = attn.k = attn.v = None
    parts = _plain([mlp.gate, mlp.up])
    if parts is not None:
        mlp.gate_up = _joined(parts)
        mlp.gate, mlp.up = None, nn.Identity()
