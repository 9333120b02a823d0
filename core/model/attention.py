"""Masked self-attention: ``softmax(Q K^T / sqrt(d_k)) V``, with as few key/value heads as the model has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlpkit.core.model.cache import CacheRows
from nlpkit.core.model.config import ModelConfig
from nlpkit.core.model.layers import build_norm
from nlpkit.core.model.rope import rotate


@dataclass(frozen=True)
class Step:
    """What every layer of one kind (full or sliding attention) shares in one forward pass.

    Attributes:
        positions: Shape ``(batch, seq)``.
        rotary: Cos and sin, shape ``(batch, 1, seq, dim)`` each, or None for learned positions.
        mask: True = attend, broadcastable to ``(batch, 1, seq, keys)``; None = plainly causal over equal lengths.
        attend_all: Every query may see every key (a single query at the end of its row): no mask is needed.
        cache: Rows to extend, or None.
        fresh: The rows start at slot 0, so the new keys are all there are.
    """

    positions: Tensor
    rotary: tuple[Tensor, Tensor] | None
    mask: Tensor | None
    attend_all: bool
    cache: CacheRows | None
    fresh: bool


class Attend(Protocol):
    """A way to compute attention; `attend` is the usual one."""

    def __call__(self, layer: Attention, q: Tensor, k: Tensor, v: Tensor, step: Step) -> Tensor:
        """Attend.

        Args:
            layer: Says how many heads there are, and the scale and the cap of the scores.
            q: Queries, shape ``(batch, n_heads, seq, head_dim)``.
            k: Keys, shape ``(batch, n_kv_heads, keys, head_dim)``.
            v: Values, same shape.
            step: Says which keys each query may see.

        Returns:
            Shape ``(batch, n_heads, seq, head_dim)``.
        """
        ...


class Attention(nn.Module):
    """Multi-head attention with grouped queries (Vaswani et al. 2017; Ainslie et al. 2023, arXiv:2305.13245).

    Attributes:
        attend: How attention is computed between the projections; training sets its own.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.n_heads, self.n_kv_heads, self.head_dim = config.n_heads, config.n_kv_heads, config.head_dim
        self.scale = config.attn_scale if config.attn_scale is not None else config.head_dim**-0.5
        self.softcap = config.attn_softcap
        self.attend: Attend = attend
        q_width, kv_width = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        self.qkv: nn.Module | None = None
        self.q: nn.Module | None = nn.Linear(config.d_model, q_width, bias=config.qkv_bias)
        self.k: nn.Module | None = nn.Linear(config.d_model, kv_width, bias=config.qkv_bias)
        self.v: nn.Module | None = nn.Linear(config.d_model, kv_width, bias=config.qkv_bias)
        self.o: nn.Module = nn.Linear(q_width, config.d_model, bias=config.o_bias)
        self.qk_norm = config.qk_norm
        if config.qk_norm != "none":
            per_head = config.qk_norm == "head"
            self.q_norm = build_norm(config, self.head_dim if per_head else q_width)
            self.k_norm = build_norm(config, self.head_dim if per_head else kv_width)

    def project(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, shape ``(batch, heads, seq, head_dim)`` each, rotated.

        Args:
            x: Shape ``(batch, seq, d_model)``.
            rotary: Cos and sin, as in `Step`.
        """
        batch, seq, _ = x.shape
        heads, kv, dim = self.n_heads, self.n_kv_heads, self.head_dim
        if self.qkv is not None and self.qk_norm == "none":
            # One projection and one rotation for queries and keys together: fewer, larger operations.
            joint = self.qkv(x).view(batch, seq, heads + 2 * kv, dim).transpose(1, 2)
            qk = joint[:, : heads + kv]
            if rotary is not None:
                qk = rotate(qk, *rotary)
            return qk[:, :heads], qk[:, heads:], joint[:, heads + kv :]
        if self.qkv is not None:
            q, k, v = self.qkv(x).split((heads * dim, kv * dim, kv * dim), -1)
        elif self.q is not None and self.k is not None and self.v is not None:
            q, k, v = self.q(x), self.k(x), self.v(x)
        else:
            raise RuntimeError("an attention layer has neither fused nor separate projections")
        if self.qk_norm == "full":
            q, k = self.q_norm(q), self.k_norm(k)
        q = q.view(batch, seq, heads, dim)
        k = k.view(batch, seq, kv, dim)
        if self.qk_norm == "head":
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = q.transpose(1, 2), k.transpose(1, 2)
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        return q, k, v.view(batch, seq, kv, dim).transpose(1, 2)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Attend within each row, and keep keys and values where the step has a cache.

        Args:
            x: Shape ``(batch, seq, d_model)``.
            step: Positions, rotation, mask and cache of this pass.

        Returns:
            Shape ``(batch, seq, d_model)``.
        """
        q, k, v = self.project(x, step.rotary)
        if step.cache is not None:
            cached = step.cache.update(self.layer, step.positions, k, v)
            if not step.fresh:
                k, v = cached
        result: Tensor = self.o(self.attend(self, q, k, v, step).transpose(1, 2).flatten(2))
        return result


def attend(layer: Attention, q: Tensor, k: Tensor, v: Tensor, step: Step) -> Tensor:
    """Attend by PyTorch's fused kernels, or in plain products where scores are capped; see `Attend`."""
    batch, heads, seq, dim = q.shape
    if layer.softcap:
        mask = step.mask
        if mask is None and not step.attend_all:
            mask = causal_mask(seq, q.device)
        return attend_by_products(layer, q, k, v, mask)
    if seq == 1:
        # With one query a row, the heads that share keys act as so many queries: no key is ever repeated.
        grouped = q.reshape(batch, layer.n_kv_heads, heads // layer.n_kv_heads, dim)
        out = F.scaled_dot_product_attention(grouped, k, v, attn_mask=step.mask, scale=layer.scale)
        return out.reshape(batch, heads, 1, dim)
    # SDPA's own causal mask is aligned top-left: right only where queries and keys are equally many.
    return F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=step.mask,
        is_causal=step.mask is None and not step.attend_all,
        scale=layer.scale,
        enable_gqa=heads != layer.n_kv_heads,
    )


def causal_mask(seq: int, device: torch.device) -> Tensor:
    """Return what each of `seq` queries sees of as many keys, True = attend, shape ``(1, 1, seq, seq)``."""
    return torch.ones(seq, seq, dtype=torch.bool, device=device).tril()[None, None]


def attend_by_products(
    layer: Attention, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, dropout: float = 0.0
) -> Tensor:
    """Attend in plain products, as the definition says; arguments as in `Attend`.

    Args:
        layer: As there.
        q: As there.
        k: As there.
        v: As there.
        mask: True = attend, broadcastable to ``(batch, 1, seq, keys)``; None lets every query see every key.
        dropout: Probability of dropping a weight.
    """
    batch, heads, seq, dim = q.shape
    kv = layer.n_kv_heads
    # The heads that share keys act as so many more queries: no key is ever repeated.
    grouped = q.reshape(batch * kv, heads // kv, seq, dim)
    keys, values = k.reshape(batch * kv, -1, dim), v.reshape(batch * kv, -1, dim)
    scores = (grouped.flatten(1, 2) @ keys.transpose(-1, -2)).float() * layer.scale
    if layer.softcap:
        scores = layer.softcap * torch.tanh(scores / layer.softcap)
    if mask is not None:
        scores = scores.view(batch, kv, heads // kv, seq, -1)
        scores = scores.masked_fill(~mask.unsqueeze(2), torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, -1).to(v.dtype)
    if dropout:
        weights = F.dropout(weights, dropout)
    return (weights.view(batch * kv, heads // kv * seq, -1) @ values).view(batch, heads, seq, dim)
