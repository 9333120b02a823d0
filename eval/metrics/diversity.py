"""How varied texts are, within themselves and among each other. None of this says that a text is good."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Sequence

import numpy as np

from nlpkit.core.errors import InputError
from nlpkit.eval.metrics.base import BaseMetric, FloatArray, Sample, ratio, stack_rows
from nlpkit.eval.metrics.bleu import bleu_from_stats
from nlpkit.eval.metrics.text import UNICODE_TOKENIZER, unicode_tokens

Ngram = tuple[str, ...]


def ngrams(tokens: Sequence[str], n: int) -> list[Ngram]:
    """Return all n-grams of a token sequence, in order."""
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))


class Distinct(BaseMetric):
    """Distinct-n of the whole corpus (Li et al. 2016): different n-grams over all n-grams; a ratio, 0-1.

    It falls as a corpus grows, so compare corpora of one size only.

    Statistics per segment (2): the segment's share of the corpus's different n-grams, an n-gram found in d segments
    counting 1/d in each; and its number of n-grams. They add up to the exact value. For intervals and tests the shares
    stay as they are in the whole corpus: recounting n-grams in resamples with doubled segments would bias them all
    downwards. A segment's score is the distinct-n of its text alone counted with these shares.
    """

    independent = False

    def __init__(self, n: int) -> None:
        """Choose the length of the n-grams.

        Args:
            n: 1 or more.
        """
        self.name = f"distinct{n}"
        self._n = n

    def segment_stats(self, samples: Sequence[Sample]) -> FloatArray:
        """Return shared-out different n-grams, and n-grams, ``[n_segments, 2]``."""
        grams = [ngrams(unicode_tokens(sample.prediction), self._n) for sample in samples]
        spread = Counter(gram for segment in grams for gram in set(segment))
        return stack_rows([(sum(1 / spread[gram] for gram in set(own)), len(own)) for own in grams], 2)

    def aggregate(self, stats: FloatArray) -> FloatArray:
        """Return the ratio of summed statistics ``[..., 2]``; 0 for texts without any n-gram."""
        return ratio(stats[..., 0], stats[..., 1], empty=0.0)

    def signature(self, samples: Sequence[Sample]) -> str:
        """Return tokenizer and corpus size, on which the value depends."""
        return f"{self.name}|tok:{UNICODE_TOKENIZER}|case:lc|agg:corpus|n:{len(samples)}|nlpkit:1"


class SelfBleu(BaseMetric):
    """Self-BLEU (Zhu et al. 2018, Texygen): how much the texts resemble each other; 0-100, lower is more varied.

    The mean over texts of each text's sentence BLEU-4 (effective order, exponential smoothing, Unicode tokenizer, lower
    case) with all the other texts as references. Texts without a token score 0.

    Statistics per segment (2): its BLEU, 1. For intervals and tests the references stay all the other texts of the
    whole corpus, whatever the resample, which never has a text for its own reference.
    """

    higher_is_better = False
    independent = False

    def __init__(self) -> None:
        """Name the metric."""
        self.name = "self_bleu"

    def segment_stats(self, samples: Sequence[Sample]) -> FloatArray:
        """Return BLEU against the others, and 1, ``[n_segments, 2]``.

        Raises:
            InputError: There are fewer than two texts.
        """
        if len(samples) < 2:
            raise InputError(f"self_bleu compares texts with each other and got {len(samples)}. Give at least two.")
        tokens = [unicode_tokens(sample.prediction) for sample in samples]
        counts = [Counter(g for n in range(1, 5) for g in ngrams(own, n)) for own in tokens]
        most = _two_highest(counts)
        lengths = sorted(len(own) for own in tokens)
        rows = np.zeros((len(samples), 10))
        for index, (own, mine, row) in enumerate(zip(tokens, counts, rows, strict=True)):
            row[0], row[1] = len(own), _closest_other(lengths, len(own))
            for gram, count in mine.items():
                holder, highest, second = most[gram]
                row[1 + len(gram)] += min(count, second if holder == index else highest)
                row[5 + len(gram)] += count
        return np.stack([bleu_from_stats(rows, effective_order=True) / 100.0, np.ones(len(samples))], axis=-1)

    def signature(self, samples: Sequence[Sample]) -> str:
        """Return the definition of BLEU used, and corpus size, on which the value depends."""
        return (
            f"{self.name}|order:4|eff:yes|smooth:exp|tok:{UNICODE_TOKENIZER}|case:lc|refs:all-others|agg:mean"
            f"|n:{len(samples)}|nlpkit:1"
        )


def _two_highest(counts: Sequence[Counter[Ngram]]) -> dict[Ngram, tuple[int, int, int]]:
    """Return for each n-gram the text that has it most often, its count there, and the highest count elsewhere."""
    most: dict[Ngram, tuple[int, int, int]] = {}
    for index, own in enumerate(counts):
        for gram, count in own.items():
            holder, highest, second = most.get(gram, (-1, 0, 0))
            if count > highest:
                most[gram] = (index, count, highest)
            elif count > second:
                most[gram] = (holder, highest, count)
    return most


def _closest_other(lengths: Sequence[int], own: int) -> int:
    """Return the length closest to `own` among the sorted lengths with one `own` taken out; the shorter if tied."""
    at = bisect.bisect_left(lengths, own)
    neighbours = [lengths[i] for i in (at - 1, at + 1) if 0 <= i < len(lengths)]
    return min(neighbours, key=lambda length: (abs(length - own), length))


class Repetition(BaseMetric):
    """Repeated 4-grams within a text (seq-rep-4 of Welleck et al. 2020); a ratio, 0-1, lower is better.

    The mean over texts of ``1 - different 4-grams / 4-grams``. Texts too short to have one are left out.

    Statistics per segment (2): the text's ratio, 1; both 0 for texts that are too short.
    """

    higher_is_better = False

    def __init__(self, *, n: int = 4) -> None:
        """Choose the length of the n-grams.

        Args:
            n: 4 as published.
        """
        self.name = "repetition" if n == 4 else f"repetition{n}"
        self._n = n

    def segment_stats(self, samples: Sequence[Sample]) -> FloatArray:
        """Return the share of repeated n-grams and 1, ``[n_segments, 2]``."""
        rows = []
        for sample in samples:
            grams = ngrams(unicode_tokens(sample.prediction), self._n)
            rows.append((1 - len(set(grams)) / len(grams), 1.0) if grams else (0.0, 0.0))
        return stack_rows(rows, 2)

    def aggregate(self, stats: FloatArray) -> FloatArray:
        """Return the mean of summed statistics ``[..., 2]``; 0 when all texts are too short."""
        return ratio(stats[..., 0], stats[..., 1], empty=0.0)

    def signature(self, samples: Sequence[Sample]) -> str:
        """Return order and tokenizer."""
        return f"{self.name}|order:{self._n}|tok:{UNICODE_TOKENIZER}|case:lc|agg:mean|nlpkit:1"

    def notes(self, samples: Sequence[Sample]) -> tuple[str, ...]:
        """Say how many texts were too short to count."""
        n = sum(len(unicode_tokens(sample.prediction)) < self._n for sample in samples)
        return (f"{n} of {len(samples)} texts have fewer than {self._n} tokens and are left out.",) if n else ()
