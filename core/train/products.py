"""Matrix products of training: of updates summed into their weights, and in fp32 on a CPU by oneDNN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlpkit.core.machine.processor import is_amd
from nlpkit.core.model.gpt import GPT
from nlpkit.core.model.lora import LoraLinear, product_apart


class _SummedProduct(torch.autograd.Function):
    """``x (W + scale * B A)^T`` with the sum made first, and gradients for ``x``, ``A`` and ``B`` alone.

    One wide product each way instead of one wide and two thin ones with an addition of the outputs, and no gradient as
    large as ``W``. In 16 bits the sum is rounded, as the weights of a fully trained 16-bit model are.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        narrow_b = (b * scale).to(x.dtype)
        wide = torch.addmm(weight, narrow_b, a.to(x.dtype))
        ctx.save_for_backward(x, wide, a, b)
        ctx.scale = scale
        return F.linear(x, wide, bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        x, wide, a, b = ctx.saved_tensors
        slope = grad_outputs[0]
        flat_slope, flat_x = slope.reshape(-1, slope.shape[-1]), x.reshape(-1, x.shape[-1])
        x_gradient = slope @ wide if ctx.needs_input_grad[0] else None
        low_slope = flat_slope @ (b * ctx.scale).to(x.dtype)
        low_x = F.linear(flat_x, (a * ctx.scale).to(x.dtype))
        return x_gradient, None, None, (low_slope.t() @ flat_x).to(a.dtype), (flat_slope.t() @ low_x).to(b.dtype), None


def summed_product(layer: LoraLinear, x: Tensor) -> Tensor:
    """Multiply by the sum of weight and update, the faster way for many tokens at once, where a layer allows it.

    Args:
        layer: An adapted layer. Dropout is on the update's input alone and DoRA needs the parts, so they run apart.
        x: Shape ``(..., in)``.

    Returns:
        Shape ``(..., out)``.
    """
    if not layer.training or layer.magnitude is not None or layer.dropout:
        return product_apart(layer, x)
    apply: Any = _SummedProduct.apply
    summed: Tensor = apply(x, layer.base.weight, layer.base.bias, layer.lora_a, layer.lora_b, layer.scale)
    return summed


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """Return ``x @ weight.T`` for ``x`` of shape ``(rows, in)`` and a weight of shape ``(out, in)``."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return out


class _OneDnnProduct(torch.autograd.Function):
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
        apply: Any = _OneDnnProduct.apply
        out: Tensor = apply(x, *(layer.weight for layer in self._layers))
        return out


class OneDnnLinear(nn.Linear):
    """A linear layer without bias whose products are oneDNN's, in both directions."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` to ``(..., out)`` in fp32."""
        apply: Any = _OneDnnProduct.apply
        out: Tensor = apply(x, self.weight)
        return out


def prefers_onednn() -> bool:
    """Tell whether oneDNN's fp32 products are the faster ones here, and right.

    PyTorch multiplies fp32 matrices by MKL, which runs its AVX-512 kernels on Intel's processors only.
    """
    backends = torch.backends.mkl.is_available(), torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not (all(backends) and is_amd()):
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
