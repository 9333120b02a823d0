"""The one `GPT`: a decoder-only transformer whose switches cover the open families."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nlpkit.core.model.attention import Attention, Step
from nlpkit.core.model.cache import CacheRows, KVCache
from nlpkit.core.model.config import ModelConfig
from nlpkit.core.model.growing import Span, boundaries
from nlpkit.core.model.layers import MLP, build_norm
from nlpkit.core.model.rope import Rotary

if TYPE_CHECKING:
    from nlpkit.core.quantization.kernel_pass import Kernels

SPAN = 2048
"""Most tokens of one row in a pass, where rows run one by one: bounds the memory of activations."""


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
        self.dropout = 0.0

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map ``(batch, seq, d_model)`` to the same shape."""
        return self.after(x, self.attn.attend(*self.before(x, step.rotary), step))

    def before(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Do what comes before attention: return queries, keys and values as `Attention.project` does."""
        return self.attn.project(self.attn_norm(x) if self.pre else x, rotary)

    def after(self, x: Tensor, attended: Tensor) -> Tensor:
        """Do what comes after attention.

        Args:
            x: What the block got, shape ``(batch, seq, d_model)``.
            attended: What `Attention.attend` returned.

        Returns:
            What the block gives, shape ``(batch, seq, d_model)``.
        """
        attended = self._dropped(self.attn.output(attended))
        if self.post:
            attended = self.attn_post_norm(attended)
        if self.parallel:
            return x + attended + self._dropped(self.mlp(self.mlp_norm(x)))
        x = x + attended
        mixed = self._dropped(self.mlp(self.mlp_norm(x) if self.pre else x))
        if self.post:
            mixed = self.mlp_post_norm(mixed)
        return x + mixed

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, training=self.training) if self.dropout else x


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
        # Both are for training alone: dropout on the embeddings; recomputing blocks in the backward pass.
        self.dropout = 0.0
        self.checkpointing = False
        # Compiled passes over quantized weights, for inference; see `nlpkit.core.quantization.kernel_library`.
        self.kernels: Kernels | None = None
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

    def _embedded(self, token_ids: Tensor, positions: Tensor) -> Tensor:
        x = F.embedding(token_ids, self.embed.weight)
        if self.config.embedding_scale != 1.0:
            # The factor is rounded to the model's dtype first, as the reference implementation of Gemma does.
            x = x * torch.tensor(self.config.embedding_scale, dtype=x.dtype, device=x.device)
        return x if self.pos_embed is None else x + self.pos_embed(positions)

    @property
    def runs_ragged(self) -> bool:
        """Whether rows should run without padding between them, by `hidden_ragged`."""
        # What padding makes of a row's length would count where rotations depend on it.
        return self.kernels is not None or self.config.depends_on_length

    def hidden_ragged(
        self,
        token_ids: Tensor,
        rows: Tensor,
        positions: Tensor,
        cache: KVCache,
        longest: int,
        *,
        wanted: Tensor | None = None,
        homes: Tensor | None = None,
    ) -> Tensor:
        """Do what `hidden` does, for tokens of several rows without any padding between them.

        Args:
            token_ids: Shape ``(tokens,)``.
            rows: Row of the cache of each token, same shape.
            positions: Position in its row of each token, same shape; those of one row in order.
            cache: Where keys and values go; it must have room.
            longest: One more than the largest position.
            wanted: The tokens whose states are wanted, by number and in order: the last layer leaves out the others.
                None is all.
            homes: The row in which each position of each token's text lies; see `Kernels.run`.

        Returns:
            Normalised hidden states, shape ``(tokens, d_model)``, or ``(wanted, d_model)``.
        """
        if cache.growth is not None:
            return self._grown(token_ids, rows, positions, cache, wanted)
        if self.kernels is None:
            raise RuntimeError("only compiled kernels run rows without padding")
        x, positions = self._embedded(token_ids, positions)[:, None], positions[:, None]
        rotary = (self._rotary, self._rotary_local)
        hidden = self.kernels.run(x, rows, positions, cache, rotary, longest=longest, wanted=wanted, homes=homes)
        return hidden[:, 0] if wanted is None else hidden

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
        """
        seq = token_ids.shape[1]
        fresh = positions is None
        if positions is None:
            positions = torch.arange(seq, device=token_ids.device).expand(token_ids.shape)
            longest = seq
        elif longest is None:
            longest = int(positions.max()) + 1
        if cache is not None and cache.cache.growth is not None and mask is None:
            rows = torch.arange(cache.start, cache.start + cache.count).repeat_interleave(seq)
            states = self._grown(token_ids.flatten(), rows, positions.flatten(), cache.cache, None)
            return states.view(*token_ids.shape, -1)
        return self._pass(token_ids, positions, mask, cache, longest=longest, fresh=fresh)

    def _grown(
        self, token_ids: Tensor, rows: Tensor, positions: Tensor, cache: KVCache, wanted: Tensor | None
    ) -> Tensor:
        """Do what `hidden_ragged` does where rotations depend on the length of sequences."""
        growth = cache.growth
        if growth is None:
            raise RuntimeError("the cache was made for another model")
        ids, starts, owners = token_ids.tolist(), positions.tolist(), rows.tolist()
        asked = range(len(ids)) if wanted is None else wanted.tolist()
        parts = []
        for begin, end in boundaries(owners):
            own = [i - begin + starts[begin] for i in asked if begin <= i < end]
            spans = growth.append(owners[begin], starts[begin], ids[begin:end], wanted=bool(own))
            parts.append((owners[begin], own, spans))
        rows_in_order = [row for row, _, _ in parts]
        single = all(len(spans) == 1 and spans[0].stop == spans[0].first + 1 for _, _, spans in parts)
        if single and rows_in_order == list(range(rows_in_order[0], rows_in_order[0] + len(parts))):
            # The usual step: one token more for each of neighbouring rows.
            at = torch.tensor([[spans[0].first] for _, _, spans in parts], device=self.device)
            lengths = torch.tensor([list(spans[0].lengths) for _, _, spans in parts], device=self.device)
            longest = max(spans[0].stop for _, _, spans in parts)
            window = cache.rows(rows_in_order[0], len(parts), n_slots=longest)
            fresh = longest == 1
            return self._pass(
                token_ids.to(self.device)[:, None], at, None, window, longest=longest, fresh=fresh, lengths=lengths
            )[:, 0]
        states = [self._spans(row, own, spans, cache) for row, own, spans in parts]
        return torch.cat(states) if states else torch.zeros(0, self.config.d_model, dtype=self.dtype)

    def _spans(self, row: int, wanted: list[int], spans: list[Span], cache: KVCache) -> Tensor:
        """Compute spans of one row; return the states at the wanted positions, shape ``(wanted, d_model)``."""
        found: list[Tensor] = []
        done = 0
        for span in spans:
            here = [position for position in wanted[done:] if position < span.stop]
            done += len(here)
            for first in range(span.first, span.stop, SPAN):
                stop = min(first + SPAN, span.stop)
                ids = torch.tensor([cache.growth.rows[row].ids[first:stop]] if cache.growth else [], device=self.device)
                lengths = torch.tensor([list(span.lengths[first - span.first : stop - span.first])], device=self.device)
                window = cache.rows(row, 1, n_slots=stop)
                at = torch.arange(first, stop, device=self.device)[None]
                hidden = self._pass(ids, at, None, window, longest=stop, fresh=first == 0, lengths=lengths)[0]
                chosen = [position - first for position in here if first <= position < stop]
                found.append(hidden[torch.tensor(chosen, dtype=torch.long, device=self.device)])
        return torch.cat(found) if found else torch.zeros(0, self.config.d_model, dtype=self.dtype, device=self.device)

    def _pass(
        self,
        token_ids: Tensor,
        positions: Tensor,
        mask: Tensor | None,
        cache: CacheRows | None,
        *,
        longest: int,
        fresh: bool,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Run the blocks over the given tokens; `lengths` are those of their sequences, None where positions tell."""
        seq = token_ids.shape[1]
        rotary = (self._rotary, self._rotary_local)
        if lengths is not None and self._rotary is not None and self._rotary_local is not None:
            own = self._rotary.of_lengths(lengths)
            local = own if self._rotary_local is self._rotary else self._rotary_local.of_lengths(lengths)
            rotary = (own, local)
        x = self._embedded(token_ids, positions)
        if self.kernels is not None and cache is not None and mask is None and not torch.is_grad_enabled():
            rows = torch.arange(cache.start, cache.start + cache.count).repeat_interleave(seq)
            return self.kernels.run(x, rows, positions, cache.cache, rotary, longest=longest)
        full, sliding = self._steps(positions, mask, cache, rotary, longest=longest, fresh=fresh)
        if self.dropout:
            x = F.dropout(x, self.dropout, training=self.training)
        for layer, block in enumerate(self.blocks):
            step = sliding if layer in self._sliding else full
            if self.checkpointing and self.training:
                x = checkpoint(block, x, step, use_reentrant=False)
            else:
                x = block(x, step)
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
