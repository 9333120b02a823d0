"""The one `GPT`: a decoder-only transformer whose switches cover the open families."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlpkit.core.model.attention import Attention, Step
from nlpkit.core.model.cache import CacheRows
from nlpkit.core.model.config import ModelConfig
from nlpkit.core.model.layers import MLP, build_norm
from nlpkit.core.model.rope import Rotary


class Block(nn.Module):
    """Attention and MLP around a residual stream, with the norms where the family puts them."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.parallel = config.parallel_residual
        self.pre = config.norm_placement in ("pre", "sandwich")
        self.post = config.norm_placement in ("post", "sandwich")
        if self.pre:
            self.attn_norm = build_norm(config, config.d_model)
            self.mlp_norm = build_norm(config, config.d_model)
        if self.post:
            self.attn_post_norm = build_norm(config, config.d_model)
            self.mlp_post_norm = build_norm(config, config.d_model)
        self.attn = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map ``(batch, seq, d_model)`` to the same shape."""
        attended: Tensor = self.attn(self.attn_norm(x) if self.pre else x, step)
        if self.post:
            attended = self.attn_post_norm(attended)
        if self.parallel:
            mixed: Tensor = self.mlp(self.mlp_norm(x))
            return x + attended + mixed
        x = x + attended
        mixed = self.mlp(self.mlp_norm(x) if self.pre else x)
        if self.post:
            mixed = self.mlp_post_norm(mixed)
        return x + mixed


def _embedding(count: int, width: int) -> nn.Embedding:
    # Given a weight, torch draws none: on the meta device that alone takes a second of imports.
    return nn.Embedding(count, width, _weight=torch.empty(count, width))


class GPT(nn.Module):
    """A GPT: token embedding, blocks of masked self-attention and MLP, final norm, output head.

    Build it under ``torch.device("meta")`` and assign loaded weights; nothing is initialised here.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = _embedding(config.vocab_size, config.d_model)
        self.pos_embed: nn.Embedding | None = None
        if config.positions == "learned":
            self.pos_embed = _embedding(config.max_seq_len, config.d_model)
        self.blocks = nn.ModuleList([Block(config, layer) for layer in range(config.n_layers)])
        self.final_norm = build_norm(config, config.d_model)
        self.head: nn.Module | None = None
        if not config.tied_head:
            self.head = nn.Linear(config.d_model, config.vocab_size, bias=config.head_bias)
        self._sliding = frozenset(config.sliding_layers)
        self._rotary: Rotary | None = None
        self._rotary_local: Rotary | None = None
        if config.positions == "rope":
            self._rotary = Rotary(config.rope, head_dim=config.head_dim, max_seq_len=config.max_seq_len)
            self._rotary_local = self._rotary
            if config.rope_local is not None:
                self._rotary_local = Rotary(config.rope_local, head_dim=config.head_dim, max_seq_len=config.max_seq_len)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the residual stream."""
        return self.final_norm.weight.dtype  # type: ignore[return-value]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embed.weight.device

    def iter_blocks(self) -> Iterator[Block]:
        """Yield the blocks, first to last."""
        for block in self.blocks:
            if isinstance(block, Block):
                yield block

    def _steps(
        self,
        positions: Tensor,
        mask: Tensor | None,
        cache: CacheRows | None,
        rotary_of: tuple[Rotary | None, Rotary | None],
        *,
        longest: int,
        fresh: bool,
    ) -> tuple[Step, Step]:
        """Build what full and sliding layers share: masks and rotations."""
        batch, seq = positions.shape
        attend_all = False
        n_keys = seq
        if cache is not None and not fresh:
            n_keys = cache.n_slots
            if mask is None:
                if seq == 1 and batch == 1 and n_keys == longest:
                    attend_all = True
                else:
                    slots = torch.arange(n_keys, device=positions.device)
                    mask = slots <= positions[:, None, :, None]
        rotary = local_rotary = None
        own, local = rotary_of
        if own is not None:
            rotary = local_rotary = own.cos_sin(positions, longest=longest, dtype=self.dtype)
            if local is not None and local is not own:
                local_rotary = local.cos_sin(positions, longest=longest, dtype=self.dtype)
        full = Step(positions, rotary, mask, attend_all, cache, fresh)
        window = self.config.sliding_window
        if not self._sliding or window is None or max(n_keys, longest) <= window:
            return full, Step(positions, local_rotary, mask, attend_all, cache, fresh)
        slots = torch.arange(n_keys, device=positions.device)
        if cache is not None and not fresh:
            queries, near = positions, slots > positions[:, None, :, None] - window
        else:
            # Slots are not positions where rows are packed; what lies in other rows is masked anyhow.
            queries = slots.expand(batch, seq)
            near = positions[:, None, None, :] > positions[:, None, :, None] - window
        if mask is None:
            mask = slots <= queries[:, None, :, None]
        return full, Step(positions, local_rotary, mask & near, False, cache, fresh)

    def embedded(self, token_ids: Tensor, positions: Tensor) -> Tensor:
        """Return what goes into the first block: tokens, scaled, and learned positions.

        Args:
            token_ids: Any shape.
            positions: Same shape.

        Returns:
            That shape, then ``d_model``.
        """
        x = F.embedding(token_ids, self.embed.weight)
        if self.config.embedding_scale != 1.0:
            # The factor is rounded to the model's dtype first, as the reference implementation of Gemma does.
            x = x * torch.tensor(self.config.embedding_scale, dtype=x.dtype, device=x.device)
        return x if self.pos_embed is None else x + self.pos_embed(positions)

    def rotary_for(self, lengths: Tensor | None) -> tuple[Rotary | None, Rotary | None]:
        """Return the rotations of full and of sliding layers, one and the same where they agree; None without.

        Args:
            lengths: Length of the sequence that each token is computed for; None where positions tell.
        """
        full, sliding = self._rotary, self._rotary_local
        if lengths is None or full is None or sliding is None:
            return full, sliding
        own = full.of_lengths(lengths)
        return own, own if sliding is full else sliding.of_lengths(lengths)

    def hidden(
        self,
        token_ids: Tensor,
        *,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        cache: CacheRows | None = None,
        longest: int | None = None,
    ) -> Tensor:
        """Run everything but the output head.

        Args:
            token_ids: Shape ``(batch, seq)``.
            positions: Shape ``(batch, seq)``; None counts from 0.
            mask: True = attend, broadcastable to ``(batch, 1, seq, keys)``; None is causal: each query sees the keys
                at or before its own position (with a cache) or index (without).
            cache: Rows to extend; token i of row b is written at slot ``positions[b, i]``. With `positions` None the
                rows start afresh at slot 0.
            longest: One more than the largest position, if the caller knows it (saves a synchronisation).

        Returns:
            Normalised hidden states, shape ``(batch, seq, d_model)``.

        Raises:
            RuntimeError: The model depends on the length of sequences, and the rows of the cache do not say for which.
        """
        seq = token_ids.shape[1]
        fresh = positions is None
        if positions is None:
            positions = torch.arange(seq, device=token_ids.device).expand(token_ids.shape)
            longest = seq
        elif longest is None:
            longest = int(positions.max()) + 1
        lengths = None if cache is None else cache.lengths
        if lengths is None and cache is not None and cache.cache.growth is not None:
            raise RuntimeError("rows that depend on their length need to be told for which length they are computed")
        rotary = self.rotary_for(lengths)
        full, sliding = self._steps(positions, mask, cache, rotary, longest=longest, fresh=fresh)
        x = self.embedded(token_ids, positions)
        for layer, block in enumerate(self.blocks):
            x = block(x, sliding if layer in self._sliding else full)
        result: Tensor = self.final_norm(x)
        return result

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the output head.

        Args:
            hidden: Shape ``(..., d_model)``.

        Returns:
            Logits in the model's dtype, shape ``(..., vocab_size)``.
        """
        logits: Tensor = F.linear(hidden, self.embed.weight) if self.head is None else self.head(hidden)
        if self.config.logit_softcap:
            logits = self.config.logit_softcap * torch.tanh(logits / self.config.logit_softcap)
        return logits

    def forward(
        self,
        token_ids: Tensor,
        *,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        cache: CacheRows | None = None,
    ) -> Tensor:
        """Return the logits of every position, shape ``(batch, seq, vocab_size)``; arguments as `hidden`."""
        return self.logits(self.hidden(token_ids, positions=positions, mask=mask, cache=cache))
