"""The learning rate as a function of the step alone: nothing to save, nothing to restore."""

from __future__ import annotations

import bisect
import math

from nlpkit.core.train.config import TrainConfig


def warmup_steps(config: TrainConfig, total: int) -> int:
    """Return the steps of warm-up."""
    steps = config.warmup * total if config.warmup < 1 else config.warmup
    return min(round(steps), total)


def learning_rate(config: TrainConfig, step: int, total: int, *, warmup: int | None = None) -> float:
    """Return the learning rate of one step.

    Args:
        config: Peak, floor, warm-up and shape.
        step: The step, from 0.
        total: Steps of the whole training.
        warmup: Steps of warm-up; by default as `config` says.

    Returns:
        The rate: a linear rise over the warm-up, then the schedule's way down to ``lr * min_lr``.
    """
    if warmup is None:
        warmup = warmup_steps(config, total)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return config.lr * (config.min_lr + (1 - config.min_lr) * _shape(config, progress, warmup, total))


def decay_start(config: TrainConfig, total: int, *, warmup: int) -> int | None:
    """Return how many steps of ``wsd`` come before the rate begins to fall, or None where it never does."""
    if config.schedule != "wsd":
        return None
    steps = range(warmup, total)
    found = bisect.bisect_left(
        steps, True, key=lambda step: learning_rate(config, step, total, warmup=warmup) < config.lr
    )
    return steps[found] if found < len(steps) else None


def _shape(config: TrainConfig, progress: float, warmup: int, total: int) -> float:
    """Return where between floor (0) and peak (1) the rate is, `progress` of the way after the warm-up."""
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if config.schedule == "linear":
        return 1 - progress
    if config.schedule == "wsd":
        length = min(1.0, config.decay * total / max(1, total - warmup))
        return min(1.0, (1 - progress) / length)
    return 1.0
