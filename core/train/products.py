"""Matrix products of fp32 training on a CPU, by oneDNN where the default library is the slower one."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nlpkit.core.model.gpt import GPT


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """Return ``x @ weight.T`` for ``x`` of shape ``(rows, in)`` and a weight of shape ``(out, in)``."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        ctx.save_for_backward(rows, weight)
        ctx.shape, ctx.sizes = x.shape, [part.shape[0] for part in weights]
        return _product(rows, weight).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        (slope,) = grad_outputs
        slope = slope.reshape(-1, slope.shape[-1])
        wanted = ctx.needs_input_grad
        x_slope = _product(slope, weight.t().contiguous()).view(ctx.shape) if wanted[0] else None
        if not any(wanted[1:]):
            return x_slope, *([None] * len(ctx.sizes))
        return x_slope, *(slope.t() @ rows).split(ctx.sizes)


class JointLinear(nn.Module):
    """Linear layers of one input, without biases, as one product of oneDNN's; the parameters stay the layers' own."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        """Join `layers`, whose outputs come one after the other."""
        super().__init__()
        # In a tuple the layers are no children: they belong to the module that they were taken from.
        self._layers = tuple(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` to ``(..., sum of the layers' outputs)`` in fp32."""
        apply: Any = _Linear.apply
        out: Tensor = apply(x, *(layer.weight for layer in self._layers))
        return out


class OneDnnLinear(nn.Linear):
    """A linear layer without bias whose products are oneDNN's, in both directions."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` to ``(..., out)`` in fp32."""
        apply: Any = _Linear.apply
        out: Tensor = apply(x, self.weight)
        return out


def _is_amd() -> bool:
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text("ascii", "replace")[:4096]
    except OSError:
        return "AuthenticAMD" in platform.processor()


def prefers_onednn() -> bool:
    """Tell whether oneDNN's fp32 products are the faster ones here, and right.

    PyTorch multiplies fp32 matrices by MKL, which runs its AVX-512 kernels on Intel's processors only.
    """
    backends = torch.backends.mkl.is_available(), torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not (all(backends) and _is_amd()):
        return False
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    x, weight = torch.linspace(-1, 1, 96).view(3, 32), torch.linspace(0, 1, 512).view(16, 32)
    try:
        return bool(torch.allclose(_product(x, weight), x @ weight.t(), atol=1e-5))
    except (AttributeError, RuntimeError):
        return False


def _suitable(*layers: nn.Module | None) -> list[nn.Linear]:
    """Return the layers if all are plain, in fp32 and without bias, else none."""
    # The exact type: a subclass may compute something else.
    plain = [
        layer
        for layer in layers
        if isinstance(layer, nn.Linear) and type(layer) is nn.Linear and getattr(layer, "bias", None) is None
    ]
    fp32 = all(layer.weight.dtype == torch.float32 for layer in plain)
    return plain if fp32 and len(plain) == len(layers) else []


def use_onednn(model: GPT) -> None:
    """Let the linear layers of the blocks multiply by oneDNN, in place; their parameters stay as they are.

    What shares its input (queries, keys and values; gate and up) becomes one product.
    """
    for block in model.iter_blocks():
        attn, mlp = block.attn, block.mlp
        projections, gates = _suitable(attn.q, attn.k, attn.v), _suitable(mlp.gate, mlp.up)
        if attn.qkv is None and projections:
            attn.qkv = JointLinear(projections)
        if mlp.gate_up is None and gates:
            mlp.gate_up = JointLinear(gates)
        for layer in (*_suitable(attn.o), *_suitable(mlp.down)):
            layer.__class__ = OneDnnLinear
