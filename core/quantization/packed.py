"""bf16 linear layers in the layout that oneDNN's kernels want, so that no product has to rearrange its weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nlpkit.core.model.gpt import GPT, Block

ROWS_HINT = 32
"""Rows of the products that the layout is chosen for: a batch in decoding."""
LARGEST_COPY = 256 << 20
"""Bytes of an embedding up to which a packed copy of it serves as the head of a model with tied weights."""


class PackedLinear(nn.Module):
    """A frozen bf16 linear layer whose weight was rearranged once, by ``mkldnn::_reorder_linear_weight``."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Rearrange `weight`, shape ``(out, in)``."""
        super().__init__()
        # No buffer: the opaque layout can be neither cast nor moved.
        self._weight: Any = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS_HINT)
        self.bias = bias
        self.out_features, self.in_features = weight.shape

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` in bf16 to ``(..., out)``."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self.bias, "none", [], "")
        return out


def can_pack() -> bool:
    """Tell whether this machine's PyTorch packs bf16 weights and multiplies by them right."""
    weight = torch.linspace(-1, 1, 64 * 64).view(64, 64).to(torch.bfloat16)
    x = torch.linspace(0, 1, 2 * 64).view(2, 64).to(torch.bfloat16)
    try:
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        out = PackedLinear(weight, None)(x)
    except (AttributeError, RuntimeError):
        return False
    return bool(torch.allclose(out.float(), x.float() @ weight.float().t(), atol=0.1, rtol=0.02))


def _packed(layer: nn.Linear) -> PackedLinear:
    bias = None if layer.bias is None else layer.bias.detach()
    return PackedLinear(layer.weight.detach(), bias)


@torch.inference_mode()
def pack_block(block: Block) -> None:
    """Pack the linear layers of one block on the CPU; the kernels must be there."""
    for owner in (block.attn, block.mlp):
        for name, child in list(owner.named_children()):
            if type(child) is nn.Linear:
                setattr(owner, name, _packed(child))


@torch.inference_mode()
def pack_model(model: GPT) -> bool:
    """Pack the linear layers of a bf16 model on the CPU, in place, one at a time.

    Args:
        model: A model for inference.

    Returns:
        Whether it was done: not for other dtypes and devices, nor where the kernels are missing.
    """
    if model.device.type != "cpu" or model.dtype != torch.bfloat16 or not can_pack():
        return False
    for block in model.iter_blocks():
        pack_block(block)
    if type(model.head) is nn.Linear:
        model.head = _packed(model.head)
    elif model.head is None and model.embed.weight.nbytes <= LARGEST_COPY:
        model.head = PackedLinear(model.embed.weight.detach(), None)
    return True
