"""The likeliest next tokens of many hypotheses at once: log-probabilities, bans, and the best of each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nlpkit.core.decode import processors
from nlpkit.core.decode.guide import allowed_masks
from nlpkit.core.decode.processors import process

if TYPE_CHECKING:
    from nlpkit.core.decode.hypothesis import Hypothesis

_BLOCK = 64
"""Tokens of which only the best is looked at first."""
_FEWEST_BLOCKS = 64


@dataclass
class Ranking:
    """What a pass says about the tokens that may follow each of some hypotheses.

    Attributes:
        token_ids: The likeliest tokens of each row, best first.
        values: Their log-probabilities under the processed distribution, in nats.
        raw_values: The same under the model's own distribution.
        offsets: What is still to be added to the `values` of each row, and to `ranked`.
        alternatives: For each row the likeliest tokens of the model's own distribution and their log-probabilities;
            none where its request does not want any.
    """

    token_ids: list[list[int]]
    values: list[list[float]]
    raw_values: list[list[float]]
    offsets: list[float]
    alternatives: list[tuple[tuple[int, float], ...]]
    _raw: Tensor
    _ranked: Tensor

    def of(self, row: int, token_ids: Sequence[int]) -> list[tuple[float, float]]:
        """Return processed and raw log-probabilities of some tokens of a row, the former without the row's offset."""
        at = torch.tensor(list(token_ids), dtype=torch.long, device=self._raw.device)
        return list(zip(self._ranked[row, at].tolist(), self._raw[row, at].tolist(), strict=True))


def rank(logits: Tensor, texts: Sequence[Hypothesis], *, most: int) -> Ranking:
    """Rank the tokens that may come next.

    What a row gets does not depend on the others.

    Args:
        logits: fp32, shape ``(rows, vocab_size)``; not changed.
        texts: For each row, the text that goes on.
        most: Tokens wanted of each row.

    Returns:
        At most so many tokens of each row; banned ones have the value ``-inf``.

    Raises:
        ConfigError: As `nlpkit.core.decode.processors.process`, or a constraint came to a dead end.
    """
    raw = torch.log_softmax(logits, -1)
    alternatives: list[tuple[tuple[int, float], ...]] = [()] * len(texts)
    processed: list[int] = []
    by_bans: dict[frozenset[int], list[int]] = {}
    for row, text in enumerate(texts):
        if text.config.logprobs is not None:
            best = raw[row].topk(min(text.config.logprobs, raw.shape[-1]))
            alternatives[row] = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        if text.is_processed:
            processed.append(row)
        else:
            by_bans.setdefault(text.special.banned(text.config, len(text.token_ids)), []).append(row)
    ranked = raw
    if processed:
        ranked = raw.clone()
        masks = allowed_masks([texts[row].guide for row in processed], logits)
        for row, mask in zip(processed, masks, strict=True):
            text = texts[row]
            part = process(logits[row], text.request, text.token_ids, text.special, allowed=mask)
            ranked[row] = torch.log_softmax(part, -1)
    offsets = torch.zeros(len(texts))
    for banned, rows in by_bans.items():
        if banned:
            offsets[rows] = _ban(ranked, rows, sorted(banned))
    values, token_ids = best_tokens(ranked, most)
    listed = values.tolist()
    return Ranking(
        token_ids.tolist(),
        listed,
        raw.gather(1, token_ids).tolist() if ranked is not raw else listed,
        offsets.tolist(),
        alternatives,
        raw,
        ranked,
    )


def _ban(logprobs: Tensor, rows: Sequence[int], banned: Sequence[int]) -> Tensor:
    """Take tokens out of some rows; return what makes the log-probabilities of the others those of a distribution."""
    at = torch.tensor(rows, device=logprobs.device)
    ids = torch.tensor(banned, device=logprobs.device)
    taken = logprobs[at[:, None], ids].exp().sum(-1)
    logprobs[at[:, None], ids] = processors.NEVER
    offsets = -torch.log1p(-taken)
    # Where little is left, 1 - taken is not known well enough.
    for i in (taken > 0.5).nonzero()[:, 0].tolist():
        offsets[i] = -logprobs[rows[i]].logsumexp(-1)
    return offsets.nan_to_num(posinf=0.0).cpu()


def best_tokens(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest values of each row and their places, best first.

    In a long row, they lie in the k blocks with the largest maxima: only those are sorted.

    Args:
        values: Shape ``(rows, n)``.
        k: How many; more than there are is all.

    Returns:
        Values and places, shape ``(rows, min(k, n))`` each.
    """
    n_rows, n = values.shape
    k = min(k, n)
    n_blocks = n // _BLOCK
    if n % _BLOCK or n_blocks < max(_FEWEST_BLOCKS, 4 * k):
        best = values.topk(k, dim=-1)
        return best.values, best.indices
    blocks = values.view(n_rows, n_blocks, _BLOCK)
    chosen = blocks.amax(-1).topk(k, dim=-1, sorted=False).indices
    inside = blocks.gather(1, chosen[:, :, None].expand(-1, -1, _BLOCK)).flatten(1)
    best = inside.topk(k, dim=-1)
    return best.values, chosen.gather(1, best.indices // _BLOCK) * _BLOCK + best.indices % _BLOCK
