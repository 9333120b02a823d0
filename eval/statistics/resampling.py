"""The random draws behind intervals and tests, in blocks that bound the memory.

They are the draws that sacrebleu 2.x makes from the same seed, though it holds them all at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from nlpkit.eval.metrics.base import FloatArray

DEFAULT_SEED = 12345
"""The seed of sacrebleu."""

BLOCK_CELLS = 1 << 21
"""Cells of a matrix of counts held at once: 16 MB as float64."""


def resample_counts(n: int, n_resamples: int, seed: int) -> Iterator[FloatArray]:
    """Yield how often each segment is drawn in each bootstrap resample.

    Drawing an array of indices in blocks of rows gives the numbers of drawing it whole, since the generator keeps an
    unused half-word between calls.

    Args:
        n: Number of segments, at least 1.
        n_resamples: Number of resamples.
        seed: Seed of the draw.

    Yields:
        Blocks ``[block, n]`` that together have `n_resamples` rows, each row summing to `n`.
    """
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK_CELLS // n)
    for done in range(0, n_resamples, block):
        rows = min(block, n_resamples - done)
        draws = rng.integers(0, n, size=(rows, n))
        draws += n * np.arange(rows)[:, None]
        yield np.bincount(draws.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def swap_masks(n: int, n_trials: int, seed: int) -> Iterator[FloatArray]:
    """Yield which segments keep their system in each trial of a randomization test.

    Booleans are cut from 32-bit words, and what is left of a word is not kept between calls: a draw must use whole
    words to be the same in blocks.

    Args:
        n: Number of segments, at least 1.
        n_trials: Number of trials.
        seed: Seed of the draw.

    Yields:
        Blocks ``[block, n]`` of 0 and 1 that together have `n_trials` rows.
    """
    rng = np.random.default_rng(seed)
    unit = 32 // math.gcd(n, 32)
    rows = max(1, BLOCK_CELLS // n)
    draw = max(1, rows // unit) * unit
    for done in range(0, n_trials, draw):
        masks = rng.integers(2, size=(min(draw, n_trials - done), n), dtype=bool)
        for start in range(0, len(masks), rows):
            yield masks[start : start + rows].astype(np.float64)
