"""Diverse beam search (Vijayakumar et al. 2016, arXiv:1610.02424): groups of beams that keep apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def penalize_taken(scores: Tensor, taken: Sequence[int], penalty: float) -> Tensor:
    """Lower the scores of tokens that earlier groups took at this step (the paper's Hamming diversity).

    The penalty decides which hypotheses a group keeps. It does not stay in their totals, so that scores are
    log-probabilities in every group.

    Args:
        scores: Shape ``(rows, vocab_size)``.
        taken: Tokens that earlier groups took at this step, one for each of their live hypotheses.
        penalty: Nats for each time that a token was taken.

    Returns:
        Shape ``(rows, vocab_size)``.
    """
    if not taken or not penalty:
        return scores
    index = torch.tensor(list(taken), dtype=torch.long, device=scores.device)
    amounts = torch.full((1, len(taken)), -penalty, dtype=scores.dtype, device=scores.device)
    return scores.index_add(1, index, amounts.expand(scores.shape[0], -1))
