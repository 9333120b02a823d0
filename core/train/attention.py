"""Attention of training: with dropout, and on a CPU in plain products, whose backward pass is the faster one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nlpkit.core.model.attention import Attention, Step, attend, attend_by_products, causal_mask

LONGEST = 64
"""Rows up to which computing the whole square costs less than leaving half of it out."""
_SMALLEST_PART = 64
"""Queries below which cutting attention into parts costs more than the keys that it leaves out."""


@dataclass(frozen=True)
class TrainingAttend:
    """Attends as training does; see `nlpkit.core.model.attention.Attend`.

    Rows without a cache are causal, whatever their mask says of later keys. With a cache, which is there in
    evaluation only, it is what the model itself does.

    Attributes:
        dropout: Probability of dropping an attention weight.
        products: Plain products instead of PyTorch's fused kernels.
    """

    dropout: float = 0.0
    products: bool = True

    def __call__(self, layer: Attention, q: Tensor, k: Tensor, v: Tensor, step: Step) -> Tensor:
        """Attend; arguments as `Attend` has them."""
        if step.cache is not None:
            return attend(layer, q, k, v, step)
        dropout = self.dropout if layer.training else 0.0
        if not self.products and not layer.softcap:
            return F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=step.mask,
                dropout_p=dropout,
                is_causal=step.mask is None,
                scale=layer.scale,
                enable_gqa=layer.n_heads != layer.n_kv_heads,
            )
        whole = layer.n_heads == layer.n_kv_heads and not layer.softcap and not dropout and step.mask is None
        if whole and q.shape[2] <= LONGEST and q.dtype == torch.float32 and not torch.compiler.is_compiling():
            return short_causal(q, k, v, scale=layer.scale)
        return _by_parts(layer, q, k, v, step.mask, dropout)


def _by_parts(layer: Attention, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Attend over equally many queries and keys, part by part: early queries never look at late keys."""
    seq = q.shape[2]
    if mask is None:
        mask = causal_mask(seq, q.device)
    n_parts = next((n for n in (4, 2) if seq % n == 0 and seq // n >= _SMALLEST_PART), 1)
    size = seq // n_parts
    parts = []
    for end in range(size, seq + 1, size):
        first = end - size
        seen = mask[:, :, first:end, :end]
        parts.append(attend_by_products(layer, q[:, :, first:end], k[:, :, :end], v[:, :, :end], seen, dropout=dropout))
    return torch.cat(parts, 2) if n_parts > 1 else parts[0]


class _ShortCausal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        seq, dim = q.shape[2:]
        queries, keys, values = (part.reshape(-1, seq, dim) for part in (q, k, v))
        future = torch.full((seq, seq), torch.finfo(q.dtype).min, dtype=q.dtype, device=q.device).triu(1)
        weights = torch.softmax(torch.baddbmm(future, queries, keys.transpose(1, 2), alpha=scale), -1)
        ctx.save_for_backward(queries, keys, values, weights)
        ctx.scale, ctx.shape = scale, q.shape
        return torch.bmm(weights, values).view(q.shape)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        queries, keys, values, weights = ctx.saved_tensors
        slope = grad_outputs[0].reshape(values.shape)
        values_slope = torch.bmm(weights.transpose(1, 2), slope)
        weights_slope = torch.bmm(slope, values.transpose(1, 2))
        scores_slope = torch.ops.aten._softmax_backward_data(weights_slope, weights, -1, weights.dtype)
        queries_slope = torch.bmm(scores_slope, keys).mul_(ctx.scale)
        keys_slope = torch.bmm(scores_slope.transpose(1, 2), queries).mul_(ctx.scale)
        return queries_slope.view(ctx.shape), keys_slope.view(ctx.shape), values_slope.view(ctx.shape), None


def short_causal(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
    """Attend causally within each row, once differentiable.

    Args:
        q: Queries, fp32, shape ``(batch, heads, seq, dim)``.
        k: Keys, same shape.
        v: Values, same shape.
        scale: Factor of the scores.

    Returns:
        Same shape.
    """
    apply: Any = _ShortCausal.apply
    out: Tensor = apply(q, k, v, scale)
    return out
