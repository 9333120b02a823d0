"""Rows whose rotations depend on their length, each computed as `nlpkit.core.model.growing` says."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nlpkit.core.model.cache import CacheRows, KVCache
from nlpkit.core.model.gpt import GPT
from nlpkit.core.model.growing import GrowingSpan

Run = Callable[[Tensor, Tensor | None, CacheRows], Tensor]
"""Computes hidden states ``(rows, seq, d_model)`` of ids ``(rows, seq)`` at such positions; None counts from 0."""


def grown_states(
    model: GPT,
    run: Run,
    cache: KVCache,
    rows: Sequence[int],
    tokens: Sequence[Sequence[int]],
    lengths: Sequence[int],
    wanted: Sequence[int],
    *,
    at_once: int,
) -> Tensor:
    """Append tokens to rows of a cache.

    Args:
        model: Its rotations depend on the length of sequences.
        run: How passes through it are run.
        cache: Where keys and values go.
        rows: Row of the cache of each sequence.
        tokens: For each, the ids to append.
        lengths: For each, its length before.
        wanted: For each, of how many of its last tokens hidden states are wanted.
        at_once: Most tokens of one row in a pass: bounds the memory of activations.

    Returns:
        The states that are wanted, sequence after sequence, shape ``(sum of wanted, d_model)``.

    Raises:
        RuntimeError: The cache was made for a model of another kind.
    """
    growth, device = cache.growth, model.device
    if growth is None:
        raise RuntimeError("the cache was made for another model")
    parts = [
        growth.append(row, length, ids, wanted=count > 0)
        for row, ids, length, count in zip(rows, tokens, lengths, wanted, strict=True)
    ]
    single = all(len(spans) == 1 and spans[0].stop == spans[0].first + 1 for spans in parts)
    if single and list(rows) == list(range(rows[0], rows[0] + len(rows))):
        # The usual step: one token more for each of neighbouring rows.
        ids = torch.tensor([[part[-1]] for part in tokens], device=device)
        positions = torch.tensor([[spans[0].first] for spans in parts], device=device)
        longest = max(spans[0].stop for spans in parts)
        computed_for = torch.tensor([list(spans[0].lengths) for spans in parts], device=device)
        window = cache.rows(rows[0], len(rows), n_slots=longest, lengths=computed_for)
        return run(ids, None if longest == 1 else positions, window)[:, 0]
    states = [torch.zeros(0, model.config.d_model, dtype=model.dtype, device=device)]
    for row, spans, count in zip(rows, parts, wanted, strict=True):
        ids = torch.tensor([growth.rows[row].ids], device=device)
        next_wanted = ids.shape[1] - count
        for first, stop, own in (piece for span in spans for piece in _pieces(span, at_once)):
            positions = torch.arange(first, stop, device=device)[None]
            window = cache.rows(row, 1, n_slots=stop, lengths=torch.tensor([own], device=device))
            hidden = run(ids[:, first:stop], positions if first else None, window)[0]
            # A span may begin anew at the first token: what was wanted before it is there already.
            if next_wanted < stop:
                states.append(hidden[max(first, next_wanted) - first :])
                next_wanted = stop
    return torch.cat(states)


def _pieces(span: GrowingSpan, at_once: int) -> list[tuple[int, int, list[int]]]:
    """Return first position, one past the last, and lengths, of pieces of a span of at most so many tokens."""
    cuts = [(first, min(first + at_once, span.stop)) for first in range(span.first, span.stop, at_once)]
    return [(first, stop, list(span.lengths[first - span.first : stop - span.first])) for first, stop in cuts]
