"""What is to be measured, and what was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Decode = Callable[[Sequence[Sequence[int]], int], None]
"""Decodes exactly so many tokens greedily for each of some prompts of equal length."""


@dataclass(frozen=True, kw_only=True)
class BenchPlan:
    """What to measure.

    Attributes:
        engine: A name of `ENGINES`.
        model: Path of the model.
        dtype: Weights' dtype; ``auto`` is the engine's default.
        batches: Batch sizes.
        prompt_tokens: Length of the prefill prompt.
        new_tokens: Tokens to decode per row.
        runs: Repetitions; the median counts.
        threads: CPU threads.
    """

    engine: str
    model: str
    dtype: str = "auto"
    batches: tuple[int, ...] = (1, 8, 32)
    prompt_tokens: int = 512
    new_tokens: int = 64
    runs: int = 3
    threads: int = 1


@dataclass(frozen=True, kw_only=True)
class BenchLine:
    """One engine at one batch size.

    Attributes:
        engine: The engine.
        dtype: Dtype it ran in.
        batch: Rows decoded at once.
        prefill_tokens_per_s: Prompt tokens read per second, one prompt alone.
        decode_tokens_per_s: Tokens written per second, all rows together.
        load_s: Seconds to load the model, imports not included.
        first_token_s: Seconds from the process's start to the first token, imports and loading included.
        peak_memory_bytes: Greatest resident size of the process.
    """

    engine: str
    dtype: str
    batch: int
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    load_s: float
    first_token_s: float
    peak_memory_bytes: int
