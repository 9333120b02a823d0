"""Translation edit rate (Snover et al. 2006), as sacrebleu computes it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nlpkit.core.errors import ConfigError, did_you_mean
from nlpkit.eval.metrics.base import BaseMetric, FloatArray, Sample, check_references, ratio
from nlpkit.eval.metrics.sacrebleu_adapter import extract_stats, render_signature
from nlpkit.eval.metrics.text import has_unsegmented, tokenized_notes

TOKENIZERS = ("tercom", "tercom-asian")
"""``tercom`` splits at spaces, as sacrebleu's default does; ``tercom-asian`` normalises and splits CJK characters."""


class Ter(BaseMetric):
    """Edits (insert, delete, substitute, shift) per reference word, times 100; lower is better, over 100 is possible.

    Statistics per segment (2): edits to the closest reference, mean length of the references. A segment's score is its
    score as a corpus of one. Score and signature equal sacrebleu's.
    """

    higher_is_better = False

    def __init__(self, *, tokenizer: str | None = None, lowercase: bool = True) -> None:
        """Choose how text is cut into words.

        Args:
            tokenizer: One of `TOKENIZERS`; ``tercom`` unless given.
            lowercase: Whether to ignore case, as TER usually does.

        Raises:
            ConfigError: The tokenizer is unknown.
        """
        from sacrebleu.metrics.ter import TER

        self.name = "ter"
        self.tokenizer = tokenizer or TOKENIZERS[0]
        if self.tokenizer not in TOKENIZERS:
            raise ConfigError(f"TER has no tokenizer {tokenizer!r}. {did_you_mean(self.tokenizer, TOKENIZERS)}")
        asian = self.tokenizer == "tercom-asian"
        self._scorer = TER(normalized=asian, asian_support=asian, case_sensitive=not lowercase)

    def segment_stats(self, samples: Sequence[Sample]) -> FloatArray:
        """Return sacrebleu's statistics, ``[n_segments, 2]``."""
        check_references(self.name, samples, is_empty=lambda text: not self._scorer._preprocess_segment(text).split())
        return extract_stats(self._scorer, samples, width=2)

    def aggregate(self, stats: FloatArray) -> FloatArray:
        """Return TER of summed statistics ``[..., 2]``."""
        stats = np.asarray(stats, dtype=np.float64)
        return 100.0 * ratio(stats[..., 0], stats[..., 1])

    def signature(self, samples: Sequence[Sample]) -> str:
        """Return sacrebleu's signature string."""
        return render_signature(self._scorer, samples)

    def notes(self, samples: Sequence[Sample]) -> tuple[str, ...]:
        """Say when predictions look tokenized, or when words cannot be told apart by spaces."""
        notes = list(tokenized_notes(samples))
        if self.tokenizer == "tercom" and has_unsegmented(r for s in samples for r in s.references):
            notes.append(
                "The references are written without spaces, and TER takes each run of text for one word. "
                "Use the tokenizer 'tercom-asian' for Chinese and Japanese, or chrf."
            )
        return tuple(notes)
