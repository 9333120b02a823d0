"""Runs a quantized `GPT` by the compiled kernels: rows of any lengths side by side, without padding between them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nlpkit.core.decode.prefix_cache.order import SHORTEST, common_prefix
from nlpkit.core.model.cache import CacheRows, KVCache
from nlpkit.core.model.gpt import GPT
from nlpkit.core.quantization.kernel_pass import Kernels
from nlpkit.core.runners.gpt import GPTRunner


class KernelRunner(GPTRunner):
    """Runs a model over a slot cache by whole passes of the compiled kernels."""

    def __init__(self, model: GPT, kernels: Kernels, *, prefill_chunk: int = 2048, score_rows: int = 2048) -> None:
        """Wrap a model.

        Args:
            model: Quantized by the kernels.
            kernels: Passes through it; any number of runners may share them.
            prefill_chunk: Most tokens in one pass: bounds the memory of activations.
            score_rows: Most positions whose logits are held at once when scoring.
        """
        super().__init__(model, prefill_chunk=prefill_chunk, score_rows=score_rows)
        self._kernels = kernels

    @property
    def can_share(self) -> bool:
        """Whether sequences may go on from what lies in rows of others; see `strategies.forks.SharesRows`."""
        # Rows that depend on their length are computed anew as they grow, which another's keys cannot follow.
        return self._cache.growth is None

    @torch.inference_mode()
    def extend(
        self,
        start_row: int,
        tokens: Sequence[Sequence[int]],
        lengths: Sequence[int],
        *,
        wanted: Sequence[int] | None = None,
    ) -> Tensor:
        """Append tokens to consecutive rows; see `Runner.extend`."""
        rows = range(start_row, start_row + len(tokens))
        return self.model.logits(self._appended(self._cache, rows, tokens, lengths, wanted)).float()

    @torch.inference_mode()
    def extend_rows(
        self,
        rows: Sequence[int],
        tokens: Sequence[Sequence[int]],
        lengths: Sequence[int],
        *,
        homes: Tensor | None = None,
    ) -> Tensor:
        """Append tokens to any rows; see `strategies.forks.SharesRows`."""
        return self.model.logits(self._appended(self._cache, rows, tokens, lengths, None, homes)).float()

    @torch.inference_mode()
    def extend_with_hidden(
        self, start_row: int, tokens: Sequence[Sequence[int]], lengths: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        """Append tokens to consecutive rows; see `nlpkit.core.decode.strategies.contrastive.ShowsHidden`."""
        rows, sizes = range(start_row, start_row + len(tokens)), [len(part) for part in tokens]
        hidden = torch.split(self._appended(self._cache, rows, tokens, lengths, sizes), sizes)
        return self.model.logits(torch.stack([row[-1] for row in hidden])).float(), list(hidden)

    def _run(self, ids: Tensor, positions: Tensor | None, window: CacheRows) -> Tensor:
        if positions is None:
            positions = torch.arange(ids.shape[1]).expand(ids.shape)
        rows = torch.arange(window.start, window.start + window.count).repeat_interleave(ids.shape[1])
        lengths = None if window.lengths is None else window.lengths.flatten()
        hidden = self._kernels.hidden(
            ids.flatten(), rows, positions.flatten(), window.cache, longest=window.n_slots, lengths=lengths
        )
        return hidden.view(*ids.shape, -1)

    def _appended(
        self,
        cache: KVCache,
        rows: Sequence[int],
        tokens: Sequence[Sequence[int]],
        lengths: Sequence[int],
        wanted: Sequence[int] | None,
        homes: Tensor | None = None,
    ) -> Tensor:
        """Append tokens to rows of a cache.

        Args:
            cache: The cache.
            rows: Row of each sequence.
            tokens: For each, one or more ids.
            lengths: For each, its length before.
            wanted: For each, of how many of its last tokens states are wanted; None is 1 each.
            homes: See `Kernels.hidden`.

        Returns:
            Hidden states, sequence after sequence, shape ``(sum of wanted, d_model)``.
        """
        if cache.growth is not None:
            return self._grown(cache, rows, tokens, lengths, wanted)
        ids: list[int] = []
        places: list[int] = []
        positions: list[int] = []
        keep: list[int] = []
        for i, (row, part, length) in enumerate(zip(rows, tokens, lengths, strict=True)):
            ids += part
            places += [row] * len(part)
            positions += range(length, length + len(part))
            keep += range(len(ids) - (1 if wanted is None else wanted[i]), len(ids))
        longest = max(positions) + 1
        cache.reserve(longest)
        parts = []
        for first in range(0, len(ids), self.prefill_chunk):
            stop = first + self.prefill_chunk
            token_ids, at, slots = (torch.tensor(values[first:stop]) for values in (ids, places, positions))
            here = [i - first for i in keep if first <= i < stop]
            chosen = None if len(here) == len(token_ids) else torch.tensor(here, dtype=torch.int32)
            where = None if homes is None else homes[first:stop]
            parts.append(self._kernels.hidden(token_ids, at, slots, cache, longest=longest, wanted=chosen, homes=where))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _states(self, tokens: Sequence[Sequence[int]], starts: Sequence[int]) -> Sequence[Tensor]:
        cache = KVCache(self.model.config, n_rows=len(tokens), dtype=self.model.dtype, device=self.model.device)
        cache.reserve(max(map(len, tokens)))
        # Neighbours that begin alike take their beginning from the first of them, which is computed before the others.
        leaders, shared = [0] * len(tokens), [0] * len(tokens)
        for i in range(1, len(tokens)):
            common = min(common_prefix(tuple(tokens[leaders[i - 1]]), tuple(tokens[i])), starts[i])
            leaders[i], shared[i] = (leaders[i - 1], common) if common >= SHORTEST else (i, 0)
        states: dict[int, Tensor] = {}
        for followers in (False, True):
            chosen = [i for i in range(len(tokens)) if (leaders[i] != i) == followers and len(tokens[i]) > shared[i]]
            for i in chosen:
                cache.copy_row(leaders[i], i, shared[i])
            if not chosen:
                continue
            sizes = [len(tokens[i]) - starts[i] for i in chosen]
            hidden = self._appended(
                cache, chosen, [tokens[i][shared[i] :] for i in chosen], [shared[i] for i in chosen], sizes
            )
            states.update(zip(chosen, torch.split(hidden, sizes), strict=True))
        nothing = torch.zeros(0, self.model.config.d_model)
        return [states.get(i, nothing) for i in range(len(tokens))]
