"""Choosing the next token of each row.

The random number of a step depends on the request's seed, the completion's index and the step alone, so a row's
sample never depends on its neighbours, on batching or on the order of arrival.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nlpkit.core.decode import processors
from nlpkit.core.decode.config import DecodeConfig


def uniform(seed: int, index: int, step: int) -> float:
    """Return the number in [0, 1) for one step, from the counter-based generator Philox (Salmon et al. 2011)."""
    return float(np.random.Generator(np.random.Philox(key=seed, counter=[step, index, 0, 0])).random())


def truncate(logits: Tensor, configs: Sequence[DecodeConfig]) -> Tensor:
    """Apply temperature, top-k, typical, top-p and min-p, in this order, each row with its own settings.

    Args:
        logits: Shape ``(rows, vocab_size)``, fp32.
        configs: One per row, temperatures above 0.

    Returns:
        Shape ``(rows, vocab_size)``.
    """

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=logits.dtype, device=logits.device)

    logits = logits / column([config.temperature for config in configs])[:, None]
    if any(config.top_k for config in configs):
        ks = torch.tensor([config.top_k for config in configs], device=logits.device)
        logits = processors.keep_top_k(logits, ks)
    if any(config.typical_p < 1 for config in configs):
        logits = processors.keep_typical(logits, column([config.typical_p for config in configs]))
    if any(config.top_p < 1 for config in configs):
        logits = processors.keep_top_p(logits, column([config.top_p for config in configs]))
    if any(config.min_p > 0 for config in configs):
        logits = processors.keep_min_p(logits, column([config.min_p for config in configs]))
    return logits


def sample(logits: Tensor, numbers: Sequence[float]) -> list[int]:
    """Draw one token a row by inverting the cumulative distribution, in order of token id.

    Args:
        logits: Shape ``(rows, vocab_size)``.
        numbers: One uniform number in [0, 1) per row.

    Returns:
        One token id per row; never one whose probability is 0.
    """
    probs = torch.softmax(logits, -1)
    if probs.device.type == "mps":  # it has no 64-bit floats, and near 1 a 32-bit sum is too coarse
        probs = probs.cpu()
    cumulative = probs.double().cumsum(-1)
    targets = torch.tensor(list(numbers), dtype=torch.float64, device=probs.device)[:, None] * cumulative[:, -1:]
    chosen = torch.searchsorted(cumulative, targets, right=True).clamp(max=logits.shape[-1] - 1)[:, 0]
    # A number just below 1 may round past the last possible token.
    certain = probs.argmax(-1)
    possible = probs.gather(1, chosen[:, None])[:, 0] > 0
    ids: list[int] = torch.where(possible, chosen, certain).tolist()
    return ids


def draw_seed() -> int:
    """Return a fresh random seed."""
    return secrets.randbits(63)
