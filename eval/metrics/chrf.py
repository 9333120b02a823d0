"""chrF (Popović 2015) and chrF++ (Popović 2017), as sacrebleu computes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nlpkit.eval.metrics.base import BaseMetric, FloatArray, Sample, check_references, ratio
from nlpkit.eval.metrics.sacrebleu_adapter import extract_stats, render_signature
from nlpkit.eval.metrics.text import tokenized_notes

_CHAR_ORDER = 6
_BETA = 2


class Chrf(BaseMetric):
    """F2 over character n-grams up to 6, and for chrF++ word n-grams up to 2 as well; 0-100.

    Statistics per segment, for each order: n-grams of the prediction, of the reference, and in both. With several
    references, those of the reference with the best segment score. A segment's score is its score as a corpus of one.
    Score and signature equal sacrebleu's.
    """

    def __init__(self, *, word_order: int = 0, lowercase: bool = False) -> None:
        """Choose chrF or chrF++.

        Args:
            word_order: Longest word n-grams: 0 for chrF, 2 for chrF++.
            lowercase: Whether to ignore case.
        """
        from sacrebleu.metrics.chrf import CHRF

        self.name = "chrf" + "+" * word_order
        self._width = 3 * (_CHAR_ORDER + word_order)
        self._scorer = CHRF(char_order=_CHAR_ORDER, word_order=word_order, beta=_BETA, lowercase=lowercase)

    def segment_stats(self, samples: Sequence[Sample]) -> FloatArray:
        """Return sacrebleu's statistics, ``[n_segments, 3 * orders]``."""
        check_references(self.name, samples)
        return extract_stats(self._scorer, samples, width=self._width)

    def aggregate(self, stats: FloatArray) -> FloatArray:
        """Return chrF of summed statistics ``[..., 3 * orders]``: F2 of precision and recall averaged over orders.

        Only orders count that both the prediction and the reference have n-grams of.
        """
        counts = np.asarray(stats, dtype=np.float64).reshape(*np.shape(stats)[:-1], -1, 3)
        predicted, wanted, matched = counts[..., 0], counts[..., 1], counts[..., 2]
        usable = (predicted > 0) & (wanted > 0)
        orders = usable.sum(axis=-1).astype(np.float64)
        precision = ratio((ratio(matched, predicted, empty=0.0) * usable).sum(axis=-1), orders, empty=0.0)
        recall = ratio((ratio(matched, wanted, empty=0.0) * usable).sum(axis=-1), orders, empty=0.0)
        score: FloatArray = 100.0 * ratio((1 + _BETA**2) * precision * recall, _BETA**2 * precision + recall, empty=0.0)
        return score

    def signature(self, samples: Sequence[Sample]) -> str:
        """Return sacrebleu's signature string."""
        return render_signature(self._scorer, samples)

    def notes(self, samples: Sequence[Sample]) -> tuple[str, ...]:
        """Say when predictions look tokenized."""
        return tokenized_notes(samples)
