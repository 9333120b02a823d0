"""Masked self-attention: ``softmax(Q K^T / sqrt(d_k)) V``, with as few key/value heads as the model has."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlpkit.core.model.cache import CacheRows
from nlpkit.core.model.config import ModelConfig
from nlpkit.core.model.layers import build_norm
from nlpkit.core.model.rope import rotate
from nlpkit.core.model.short_attention import LONGEST, short_causal

_SMALLEST_PART = 64
"""Queries below which cutting attention into parts costs more than the keys that it leaves out."""


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


class Attention(nn.Module):
    """Multi-head attention with grouped queries (Vaswani et al. 2017; Ainslie et al. 2023, arXiv:2305.13245)."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.n_heads, self.n_kv_heads, self.head_dim = config.n_heads, config.n_kv_heads, config.head_dim
        self.scale = config.attn_scale if config.attn_scale is not None else config.head_dim**-0.5
        self.softcap = config.attn_softcap
        # Set by training alone: a backward pass through plain products is the faster one on a CPU.
        self.plain = False
        self.dropout = 0.0
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

    def _plain(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        batch, heads, seq, dim = q.shape
        kv = self.n_kv_heads
        # The heads that share keys act as so many more queries: no key is ever repeated.
        grouped = q.reshape(batch * kv, heads // kv, seq, dim)
        keys, values = k.reshape(batch * kv, -1, dim), v.reshape(batch * kv, -1, dim)
        scores = (grouped.flatten(1, 2) @ keys.transpose(-1, -2)).float() * self.scale
        if self.softcap:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        if mask is not None:
            scores = scores.view(batch, kv, heads // kv, seq, -1)
            scores = scores.masked_fill(~mask.unsqueeze(2), torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, -1).to(v.dtype)
        if self.dropout:
            weights = F.dropout(weights, self.dropout, training=self.training)
        return (weights.view(batch * kv, heads // kv * seq, -1) @ values).view(batch, heads, seq, dim)

    def _plain_causal(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attend over equally many queries and keys, part by part: early queries never look at late keys.

        What `mask` allows is taken as causal: keys after a part's last query are left out, whatever it says of them.
        """
        seq = q.shape[2]
        if mask is None:
            mask = torch.ones(seq, seq, dtype=torch.bool, device=q.device).tril()[None, None]
        n_parts = next((n for n in (4, 2) if seq % n == 0 and seq // n >= _SMALLEST_PART), 1)
        size = seq // n_parts
        parts = []
        for end in range(size, seq + 1, size):
            rows = mask[:, :, end - size : end, :end]
            parts.append(self._plain(q[:, :, end - size : end], k[:, :, :end], v[:, :, :end], rows))
        return torch.cat(parts, 2) if n_parts > 1 else parts[0]

    def _is_short(self, q: Tensor) -> bool:
        whole = self.n_heads == self.n_kv_heads and not self.softcap and not self.dropout
        return whole and q.shape[2] <= LONGEST and q.dtype == torch.float32 and not torch.compiler.is_compiling()

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, step: Step) -> Tensor:
        batch, heads, seq, dim = q.shape
        if self.softcap or self.plain:
            if self.plain and step.cache is None:
                if step.mask is None and self._is_short(q):
                    return short_causal(q, k, v, scale=self.scale)
                return self._plain_causal(q, k, v, step.mask)
            mask = step.mask
            if mask is None and not step.attend_all:
                mask = torch.ones(seq, seq, dtype=torch.bool, device=q.device).tril()[None, None]
            return self._plain(q, k, v, mask)
        if seq == 1:
            # With one query a row, the heads that share keys act as so many queries: no key is ever repeated.
            grouped = q.reshape(batch, self.n_kv_heads, heads // self.n_kv_heads, dim)
            out = F.scaled_dot_product_attention(grouped, k, v, attn_mask=step.mask, scale=self.scale)
            return out.reshape(batch, heads, 1, dim)
        # SDPA's own causal mask is aligned top-left: right only where queries and keys are equally many.
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=step.mask,
            is_causal=step.mask is None and not step.attend_all,
            dropout_p=self.dropout if self.training else 0.0,
            scale=self.scale,
            enable_gqa=heads != self.n_kv_heads,
        )

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Attend within each row.

        Args:
            x: Shape ``(batch, seq, d_model)``.
            step: Positions, rotation, mask and cache of this pass.

        Returns:
            Shape ``(batch, seq, d_model)``.
        """
        return self.output(self.attend(*self.project(x, step.rotary), step))

    def output(self, attended: Tensor) -> Tensor:
        """Map the joined heads, shape ``(batch, seq, heads * head_dim)``, to ``(batch, seq, d_model)``."""
        result: Tensor = self.o(attended)
        return result

    def attend(self, q: Tensor, k: Tensor, v: Tensor, step: Step) -> Tensor:
        """Attend, and keep keys and values where the step has a cache.

        Args:
            q: Queries, shape ``(batch, n_heads, seq, head_dim)``.
            k: Keys, shape ``(batch, n_kv_heads, seq, head_dim)``.
            v: Values, same shape.
            step: Mask and cache of this pass.

        Returns:
            The heads joined, shape ``(batch, seq, n_heads * head_dim)``.
        """
        if step.cache is not None:
            cached = step.cache.update(self.layer, step.positions, k, v)
            if not step.fresh:
                k, v = cached
        return self._attend(q, k, v, step).transpose(1, 2).flatten(2)
