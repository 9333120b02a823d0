"""Runs nlpkit's own `GPT` for the decode engine, short rows padded to the longest of a pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nlpkit.core.model.cache import CacheRows, KVCache, KVSegment
from nlpkit.core.model.gpt import GPT
from nlpkit.core.runners.growing import grown_states


class GPTRunner:
    """Runs our own `GPT` over a slot cache."""

    can_rewind = True

    def __init__(self, model: GPT, *, prefill_chunk: int = 2048, score_rows: int = 2048) -> None:
        """Wrap a model.

        Args:
            model: In evaluation mode.
            prefill_chunk: Most token positions in one forward pass: bounds the memory of activations.
            score_rows: Most positions whose logits are held at once when scoring.
        """
        self.model = model
        self.max_seq_len = model.config.max_seq_len
        self.vocab_size = model.config.vocab_size
        self.prefill_chunk = prefill_chunk
        self.score_rows = score_rows
        self._cache = KVCache(model.config, n_rows=0, dtype=model.dtype, device=model.device)

    def _run(self, ids: Tensor, positions: Tensor | None, window: CacheRows) -> Tensor:
        """Compute hidden states, shape ``(rows, seq, d_model)``, of the next tokens of a window on the cache."""
        return self.model.hidden(ids, positions=positions, cache=window, longest=window.n_slots)

    def _grown(
        self,
        cache: KVCache,
        rows: Sequence[int],
        tokens: Sequence[Sequence[int]],
        lengths: Sequence[int],
        wanted: Sequence[int] | None,
    ) -> Tensor:
        """Append tokens to rows that depend on their length; return the wanted states, by default the last of each."""
        wanted = [1] * len(tokens) if wanted is None else wanted
        return grown_states(self.model, self._run, cache, rows, tokens, lengths, wanted, at_once=self.prefill_chunk)

    @torch.inference_mode()
    def reserve(self, n_rows: int, n_slots: int = 0) -> None:
        """Make room for `n_rows` rows, keeping the rows there are; see `Runner.reserve`."""
        self._cache.reserve_rows(n_rows)
        self._cache.reserve(n_slots)

    @torch.inference_mode()
    def copy_row(self, source: int, target: int, length: int) -> None:
        """Let a row take the first `length` tokens of another."""
        self._cache.copy_row(source, target, length)

    @torch.inference_mode()
    def reorder(self, start_row: int, sources: Sequence[int], length: int) -> None:
        """Let rows ``start_row ..`` take the first `length` tokens of rows `sources`, all at once."""
        self._cache.reorder(start_row, sources, length)

    @torch.inference_mode()
    def save_segment(self, row: int, start: int, stop: int) -> KVSegment:
        """Return a copy of what a row holds of its tokens ``start .. stop - 1``."""
        return self._cache.read(row, start, stop)

    @torch.inference_mode()
    def load_segment(self, row: int, start: int, segment: KVSegment) -> bool:
        """Let a row hold a segment; see `Runner.load_segment`."""
        keys, values, have = self._cache.keys, segment.values, segment.keys
        if have.shape != values.shape or have.dtype != keys.dtype or values.dtype != keys.dtype:
            return False
        if (have.shape[0], have.shape[1], have.shape[3]) != (keys.shape[0], keys.shape[2], keys.shape[4]):
            return False
        self._cache.write(row, start, segment)
        return True

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
        if self._cache.growth is not None:
            # What padding makes of a row's length would count.
            growing = range(start_row, start_row + len(tokens))
            return self.model.logits(self._grown(self._cache, growing, tokens, lengths, wanted)).float()
        device = self.model.device
        n_rows, longest = len(tokens), max(map(len, tokens))
        if longest == 1 and wanted is None:
            ids = torch.tensor([[row[0]] for row in tokens], device=device)
            return self.model.logits(self._hidden(ids, start_row, list(lengths))[:, -1]).float()
        if wanted is None:
            wanted = [1] * n_rows
        if max(lengths) + longest > self.max_seq_len and n_rows > 1:
            # Padding behind a short row would point beyond the context: one row at a time needs none.
            return torch.cat(
                [self.extend(start_row + i, [tokens[i]], [lengths[i]], wanted=[wanted[i]]) for i in range(n_rows)]
            )
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in tokens], device=device)
        at = [
            (row, position)
            for row, count in enumerate(wanted)
            for position in range(len(tokens[row]) - count, len(tokens[row]))
        ]
        width = max(1, self.prefill_chunk // n_rows)
        out = torch.empty(len(at) if width < longest else 0, self.vocab_size, dtype=torch.float32, device=device)
        for chunk_start in range(0, longest, width):
            hidden = self._hidden(
                ids[:, chunk_start : chunk_start + width], start_row, [length + chunk_start for length in lengths]
            )
            here = [i for i, (_, position) in enumerate(at) if chunk_start <= position < chunk_start + width]
            if here:
                rows = torch.tensor([at[i][0] for i in here], device=device)
                columns = torch.tensor([at[i][1] - chunk_start for i in here], device=device)
                logits = self.model.logits(hidden[rows, columns]).float()
                if width >= longest:
                    return logits
                out[torch.tensor(here, device=device)] = logits
        return out

    def _hidden(self, ids: Tensor, start_row: int, starts: list[int]) -> Tensor:
        n_rows, seq = ids.shape
        longest = max(starts) + seq
        window = self._cache.rows(start_row, n_rows, n_slots=longest)
        if longest == seq:
            return self._run(ids, None, window)
        # Padding behind a short row is written too, to slots that its next tokens overwrite before any read.
        positions = torch.tensor(starts, device=ids.device)[:, None] + torch.arange(seq, device=ids.device)
        return self._run(ids, positions, window)

    @torch.inference_mode()
    def extend_with_hidden(
        self, start_row: int, tokens: Sequence[Sequence[int]], lengths: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        """Append tokens to consecutive rows; see `nlpkit.core.decode.strategies.contrastive.ShowsHidden`."""
        n_rows, longest = len(tokens), max(map(len, tokens))
        if self._cache.growth is not None:
            growing, sizes = range(start_row, start_row + n_rows), [len(part) for part in tokens]
            states = list(torch.split(self._grown(self._cache, growing, tokens, lengths, sizes), sizes))
            return self.model.logits(torch.stack([row[-1] for row in states])).float(), states
        if max(lengths) + longest > self.max_seq_len and n_rows > 1:
            # As in `extend`: padding would point beyond the context.
            alone = [self.extend_with_hidden(start_row + i, [tokens[i]], [lengths[i]]) for i in range(n_rows)]
            return torch.cat([logits for logits, _ in alone]), [part for _, parts in alone for part in parts]
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in tokens], device=self.model.device)
        width = max(1, self.prefill_chunk // n_rows)
        chunks = [
            self._hidden(ids[:, first : first + width], start_row, [length + first for length in lengths])
            for first in range(0, longest, width)
        ]
        hidden = [row[: len(part)] for row, part in zip(torch.cat(chunks, dim=1), tokens, strict=True)]
        return self.model.logits(torch.stack([row[-1] for row in hidden])).float(), hidden

    @torch.inference_mode()
    def logprobs(self, tokens: Sequence[Sequence[int]], starts: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Score tokens; see `Runner.logprobs`."""
        longest = max(map(len, tokens)) - 1
        rows_at_once = max(1, self.prefill_chunk // max(1, longest))
        results: list[tuple[Tensor, Tensor]] = []
        for first in range(0, len(tokens), rows_at_once):
            group = tokens[first : first + rows_at_once]
            begins = starts[first : first + rows_at_once]
            states = self._states([sequence[:-1] for sequence in group], [start - 1 for start in begins])
            for sequence, start, hidden in zip(group, begins, states, strict=True):
                results.append(self._score_row(hidden, sequence[start:]))
        return results

    def _states(self, tokens: Sequence[Sequence[int]], starts: Sequence[int]) -> Sequence[Tensor]:
        """Return each sequence's hidden states from ``starts`` on, shape ``(len - start, d_model)`` each."""
        device, width = self.model.device, max(map(len, tokens))
        if self._cache.growth is not None:
            alone = (self.model.hidden(torch.tensor([row], device=device))[0] for row in tokens)
            return [hidden[start:] for hidden, start in zip(alone, starts, strict=True)]
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in tokens], device=device)
        hidden = self.model.hidden(ids)
        return [hidden[i, start : len(row)] for i, (row, start) in enumerate(zip(tokens, starts, strict=True))]

    def _score_row(self, hidden: Tensor, targets: Sequence[int]) -> tuple[Tensor, Tensor]:
        wanted = torch.tensor(list(targets), dtype=torch.long, device=hidden.device)
        logprobs, greedy = [], []
        for start in range(0, len(targets), self.score_rows):
            logits = self.model.logits(hidden[start : start + self.score_rows]).float()
            part = wanted[start : start + self.score_rows]
            chosen = logits.gather(1, part[:, None])[:, 0]
            logprobs.append(chosen - logits.logsumexp(-1))
            greedy.append(logits.argmax(-1) == part)
        if not logprobs:
            return torch.zeros(0), torch.zeros(0, dtype=torch.bool)
        return torch.cat(logprobs).cpu(), torch.cat(greedy).cpu()
