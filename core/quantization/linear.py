"""Linear layers with weights of eight or four bits, by torch's own kernels."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

QuantKind = Literal["int8", "int4"]
GROUP = 32
_ROWS_AT_ONCE = 4096


class Int8Linear(nn.Module):
    """A linear layer with int8 weights and one bf16 scale per output."""

    weight: Tensor
    scales: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Quantize `weight`, shape ``(out, in)``."""
        super().__init__()
        levels = torch.empty(weight.shape, dtype=torch.int8)
        scales = torch.empty(weight.shape[0], dtype=torch.bfloat16)
        # By parts: a wide copy of a large head would be the peak of all memory.
        for start in range(0, weight.shape[0], _ROWS_AT_ONCE):
            wide = weight[start : start + _ROWS_AT_ONCE].float()
            scale = wide.abs().amax(1).clamp(min=1e-12) / 127
            levels[start : start + len(wide)] = wide.div_(scale[:, None]).round_().to(torch.int8)
            scales[start : start + len(wide)] = scale.to(torch.bfloat16)
        self.register_buffer("weight", levels)
        self.register_buffer("scales", scales)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` in bf16 to ``(..., out)``."""
        flat = x.reshape(-1, x.shape[-1])
        out: Tensor = torch.ops.aten._weight_int8pack_mm(flat, self.weight, self.scales).view(*x.shape[:-1], -1)
        return out if self.bias is None else out + self.bias


class Int4Linear(nn.Module):
    """A linear layer with 4-bit weights in groups of 32 inputs."""

    weight: Tensor
    scales_and_zeros: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Quantize `weight`, shape ``(out, in)``, by rounding to 16 levels between each group's least and greatest."""
        super().__init__()
        levels = torch.empty(weight.shape, dtype=torch.int32)
        parts = []
        # By parts, as above.
        for start in range(0, weight.shape[0], _ROWS_AT_ONCE // 4):
            groups = weight[start : start + _ROWS_AT_ONCE // 4].float().view(-1, weight.shape[1] // GROUP, GROUP)
            low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
            scale = (high - low).clamp(min=1e-8) / 15
            here = (groups - low).div_(scale).round_().clamp_(0, 15)
            levels[start : start + len(here)] = here.view(len(here), -1)
            # The kernel computes (level - 8) * scale + zero.
            parts.append(torch.stack([scale.squeeze(2), (low + 8 * scale).squeeze(2)], -1))
        pairs = torch.cat(parts).transpose(0, 1)
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 1)
        self.register_buffer("weight", packed)
        self.register_buffer("scales_and_zeros", pairs.contiguous().to(torch.bfloat16))
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` in bf16 to ``(..., out)``."""
        flat = x.reshape(-1, x.shape[-1])
        out: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(flat, self.weight, GROUP, self.scales_and_zeros)
        out = out.view(*x.shape[:-1], -1)
        return out if self.bias is None else out + self.bias


def smoke_test(kind: QuantKind) -> bool:
    """Tell whether this machine's PyTorch runs the kernel and gets a small product right."""
    weight = torch.linspace(-1, 1, 64 * 64).view(64, 64).to(torch.bfloat16)
    x = torch.ones(2, 64, dtype=torch.bfloat16)
    layer = Int8Linear(weight, None) if kind == "int8" else Int4Linear(weight, None)
    try:
        out = layer(x)
    except RuntimeError:
        return False
    return bool((out.float() - F.linear(x, weight).float()).abs().max() < 2.0)
