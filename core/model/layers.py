"""Norms and the MLP."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlpkit.core.model.config import ModelConfig


class RMSNorm(nn.Module):
    """``x / sqrt(mean(x^2) + eps) * (offset + weight)`` (Zhang and Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, width: int, *, eps: float, offset: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of `x`, any shape ``(..., width)``."""
        if self.offset:
            # A bf16 sum of 1 and a small weight would lose most of the weight's bits.
            scale = self.weight.float() + self.offset
            return F.rms_norm(x.float(), (x.shape[-1],), scale, self.eps).to(x.dtype)
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class LayerNorm(nn.Module):
    """Layer normalisation with bias (Ba et al. 2016, arXiv:1607.06450)."""

    def __init__(self, width: int, *, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of `x`, any shape ``(..., width)``."""
        return F.layer_norm(x, (x.shape[-1],), self.weight, self.bias, self.eps)


def build_norm(config: ModelConfig, width: int) -> nn.Module:
    """Return the configuration's norm over `width` dimensions."""
    if config.norm == "layer":
        return LayerNorm(width, eps=config.norm_eps)
    return RMSNorm(width, eps=config.norm_eps, offset=config.norm_offset)


class MLP(nn.Module):
    """``down(act(up(x)))``, or ``down(act(gate(x)) * up(x))`` when gated (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.kind = config.activation
        self.gate_up: nn.Module | None = None
        self.gate: nn.Module | None = None
        if config.gated_mlp:
            self.gate = nn.Linear(config.d_model, config.d_ff, bias=config.mlp_bias)
        self.up: nn.Module = nn.Linear(config.d_model, config.d_ff, bias=config.mlp_bias)
        self.down: nn.Module = nn.Linear(config.d_ff, config.d_model, bias=config.mlp_bias)

    def activate(self, x: Tensor) -> Tensor:
        """Apply the non-linearity element by element."""
        if self.kind == "silu":
            return F.silu(x)
        if self.kind == "relu":
            return F.relu(x)
        return F.gelu(x, approximate="tanh" if self.kind == "gelu_tanh" else "none")

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, seq, d_model)`` to the same shape."""
        hidden: Tensor
        if self.gate_up is not None:
            gate, up = self.gate_up(x).chunk(2, -1)
            hidden = self.activate(gate) * up
        elif self.gate is not None:
            hidden = self.activate(self.gate(x)) * self.up(x)
        else:
            hidden = self.activate(self.up(x))
        result: Tensor = self.down(hidden)
        return result
