"""Fusing projections for inference: one matrix product for q, k and v, and one for gate and up."""

from __future__ import annotations

import torch
from torch import nn

from nlpkit.core.model.gpt import GPT


def _joined(layers: list[nn.Linear]) -> nn.Linear:
    """Stack linear layers along their output dimension."""
    with torch.device("meta"):
        joint = nn.Linear(layers[0].in_features, sum(layer.out_features for layer in layers), bias=False)
    joint.weight = nn.Parameter(torch.cat([layer.weight for layer in layers]), requires_grad=False)
    if layers[0].bias is not None:
        joint.bias = nn.Parameter(torch.cat([layer.bias for layer in layers]), requires_grad=False)
    return joint


def fuse_projections(model: GPT) -> None:
    """Replace separate projections by joint ones, in place, one block at a time.

    The result computes the same function with fewer, larger matrix products. Weights that are not plain linear layers
    (quantized or adapted) are left as they are.

    Args:
        model: A model for inference.
    """
    for block in model.blocks:
        attn, mlp = block.attn, block.mlp
        parts = [attn.q, attn.k, attn.v]
        if all(type(part) is nn.Linear for part in parts):
            attn.qkv = _joined(parts)
            attn.q = attn.k = attn.v = None
        if type(mlp.gate) is nn.Linear and type(mlp.up) is nn.Linear:
            mlp.gate_up = _joined([mlp.gate, mlp.up])
            mlp.gate, mlp.up = None, nn.Identity()
