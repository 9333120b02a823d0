"""Segment statistics and signatures straight from sacrebleu, for BLEU, chrF and TER alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nlpkit.core.errors import InputError
from nlpkit.eval.metrics.base import FloatArray, Sample, stack_rows


def reference_streams(samples: Sequence[Sample]) -> list[list[str | None]]:
    """Lay the references out as sacrebleu wants them: one list per reference, None where a segment has fewer."""
    depth = max((len(sample.references) for sample in samples), default=0)
    return [[sample.references[i] if i < len(sample.references) else None for sample in samples] for i in range(depth)]


def extract_stats(scorer: Any, samples: Sequence[Sample], *, width: int) -> FloatArray:
    """Return sacrebleu's own statistics per segment.

    Args:
        scorer: A sacrebleu metric object.
        samples: The segments; each has at least one reference.
        width: Number of statistics.

    Returns:
        The statistics ``[n_segments, width]``, as float64: counts stay exact whatever the resample.
    """
    if not samples:
        return stack_rows([], width)
    rows = scorer._extract_corpus_statistics([sample.prediction for sample in samples], reference_streams(samples))
    return stack_rows(rows, width)


def render_signature(scorer: Any, samples: Sequence[Sample]) -> str:
    """Return the signature string that sacrebleu prints for a score of these segments.

    Args:
        scorer: A sacrebleu metric object; only its number of references is set.
        samples: The segments.

    Returns:
        sacrebleu's string, with nothing added.

    Raises:
        InputError: There are no segments.
    """
    if not samples:
        raise InputError("There is nothing to score: no segments were given.")
    counts = {len(sample.references) for sample in samples}
    scorer.num_refs = counts.pop() if len(counts) == 1 else -1
    return str(scorer.get_signature())
