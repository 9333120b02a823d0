"""Runs nlpkit's own `GPT` for the decode engine."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nlpkit.core.decode.prefix_cache.order import SHORTEST, common_prefix
from nlpkit.core.model.cache import KVCache, KVSegment
from nlpkit.core.model.gpt import GPT


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
        if self.model.runs_ragged:
            return self._extend_ragged(range(start_row, start_row + len(tokens)), tokens, lengths, wanted)
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

    @property
    def can_share(self) -> bool:
        """Whether sequences may go on from what lies in rows of others; see `strategies.forks.SharesRows`."""
        # Rows that depend on their length are computed anew as they grow, which another's keys cannot follow.
        return self.model.runs_ragged and not self.model.config.depends_on_length

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
        return self._extend_ragged(rows, tokens, lengths, None, homes)

    def _extend_ragged(
        self,
        rows: Sequence[int],
        tokens: Sequence[Sequence[int]],
        lengths: Sequence[int],
        wanted: Sequence[int] | None,
        homes: Tensor | None = None,
    ) -> Tensor:
        """Append tokens without padding short rows."""
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
        self._cache.reserve(longest)
        parts = []
        for first in range(0, len(ids), self.prefill_chunk):
            stop = first + self.prefill_chunk
            token_ids, at, slots = (torch.tensor(values[first:stop]) for values in (ids, places, positions))
            here = [i - first for i in keep if first <= i < stop]
            chosen = None if len(here) == len(token_ids) else torch.tensor(here, dtype=torch.int32)
            where = None if homes is None else homes[first:stop]
            hidden = self.model.hidden_ragged(token_ids, at, slots, self._cache, longest, wanted=chosen, homes=where)
            parts.append(hidden)
        return self.model.logits(parts[0] if len(parts) == 1 else torch.cat(parts)).float()

    def _hidden(self, ids: Tensor, start_row: int, starts: list[int]) -> Tensor:
        n_rows, seq = ids.shape
        if not any(starts):
            return self.model.hidden(ids, cache=self._cache.rows(start_row, n_rows, n_slots=seq))
        # Padding behind a short row is written too, to slots that its next tokens overwrite before any read.
        longest = max(starts) + seq
        positions = torch.tensor(starts, device=ids.device)[:, None] + torch.arange(seq, device=ids.device)
        window = self._cache.rows(start_row, n_rows, n_slots=longest)
        return self.model.hidden(ids, positions=positions, cache=window, longest=longest)

    @torch.inference_mode()
    def extend_with_hidden(
        self, start_row: int, tokens: Sequence[Sequence[int]], lengths: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        """Append tokens to consecutive rows; see `nlpkit.core.decode.strategies.contrastive.ShowsHidden`."""
        n_rows, longest = len(tokens), max(map(len, tokens))
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
        if not self.model.runs_ragged:
            ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in tokens], device=device)
            hidden = self.model.hidden(ids)
            return [hidden[i, start : len(row)] for i, (row, start) in enumerate(zip(tokens, starts, strict=True))]
        cache = KVCache(self.model.config, n_rows=len(tokens), dtype=self.model.dtype, device=device)
        cache.reserve(width)
        # Neighbours that begin alike take their beginning from the first of them, which is computed before the others.
        leaders, shared = [0] * len(tokens), [0] * len(tokens)
        for i in range(1, len(tokens)):
            common = min(common_prefix(tuple(tokens[leaders[i - 1]]), tuple(tokens[i])), starts[i])
            leaders[i], shared[i] = (leaders[i - 1], common) if common >= SHORTEST else (i, 0)
        states: dict[int, Tensor] = {}
        for followers in (False, True):
            chosen = [i for i in range(len(tokens)) if (leaders[i] != i) == followers]
            for i in chosen:
                cache.copy_row(leaders[i], i, shared[i])
            at = [(tokens[i][place], i, place) for i in chosen for place in range(shared[i], len(tokens[i]))]
            if not at:
                continue
            wanted = torch.tensor([n for n, (_, i, place) in enumerate(at) if place >= starts[i]], dtype=torch.int32)
            flat, rows, positions = torch.tensor(at, dtype=torch.long).unbind(1)
            hidden = self.model.hidden_ragged(flat, rows, positions, cache, width, wanted=wanted)
            sizes = [len(tokens[i]) - starts[i] for i in chosen]
            states.update(zip(chosen, torch.split(hidden, sizes), strict=True))
        return [states[i] for i in range(len(tokens))]

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
