"""BLEU (Papineni et al. 2002), as sacrebleu computes it (Post 2018)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from nlpkit.core.errors import ConfigError, did_you_mean
from nlpkit.eval.metrics.base import BaseMetric, FloatArray, Sample, check_references, ratio
from nlpkit.eval.metrics.sacrebleu_adapter import extract_stats, render_signature
from nlpkit.eval.metrics.text import has_unsegmented, primary_language, tokenized_notes

TOKENIZERS = ("13a", "char", "flores101", "flores200", "intl", "ja-mecab", "ko-mecab", "none", "zh")
"""The tokenizers of sacrebleu that can be asked for."""

_BY_LANGUAGE = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}
_SUBWORD_URLS = {
    "flores101": "https://dl.fbaipublicfiles.com/fairseq/models/flores/sacrebleu_tokenizer_spm.model",
    "flores200": "https://tinyurl.com/flores200sacrebleuspm",
}


class Bleu(BaseMetric):
    """Corpus BLEU with up to 4-grams, exponential smoothing and sacrebleu's tokenizers; 0-100.

    The corpus score and the signature equal sacrebleu's. A segment's score is sacrebleu's sentence BLEU, that is, with
    effective order: n-gram orders that the sentence is too short for are left out.

    Statistics per segment (10): prediction length, closest reference length, matched n-grams for n = 1..4, n-grams of
    the prediction for n = 1..4. With several references, an n-gram may match as often as in the reference that has it
    most, and the reference length is the one closest to the prediction's.
    """

    def __init__(self, *, lang: str | None = None, tokenizer: str | None = None, lowercase: bool = False) -> None:
        """Choose the tokenizer.

        Args:
            lang: Target language; decides the tokenizer unless one is given: ``zh`` for Chinese, MeCab for Japanese
                and Korean where it is installed and ``char`` where it is not, ``13a`` for all others.
            tokenizer: One of `TOKENIZERS`.
            lowercase: Whether to ignore case.

        Raises:
            ConfigError: The tokenizer is unknown or not installed.
        """
        self.name = "bleu"
        self._lang = primary_language(lang)
        self._fallback = ""
        self._scorer, self.tokenizer = self._build(tokenizer, lowercase)

    def _build(self, tokenizer: str | None, lowercase: bool) -> tuple[Any, str]:
        if tokenizer is not None:
            return build_scorer(tokenizer, lowercase=lowercase), tokenizer
        wanted = _BY_LANGUAGE.get(self._lang or "", "13a")
        try:
            return build_scorer(wanted, lowercase=lowercase), wanted
        except ConfigError:
            self._fallback = wanted
            return build_scorer("char", lowercase=lowercase), "char"

    def segment_stats(self, samples: Sequence[Sample]) -> FloatArray:
        """Return sacrebleu's statistics, ``[n_segments, 10]``."""
        check_references(
            self.name,
            samples,
            is_empty=lambda text: not self._scorer._preprocess_segment(text).split(),
        )
        return extract_stats(self._scorer, samples, width=10)

    def aggregate(self, stats: FloatArray) -> FloatArray:
        """Return corpus BLEU of summed statistics ``[..., 10]``."""
        return bleu_from_stats(stats, effective_order=False)

    def segment_scores(self, stats: FloatArray) -> FloatArray:
        """Return sentence BLEU (effective order) of each row."""
        return bleu_from_stats(stats, effective_order=True)

    def signature(self, samples: Sequence[Sample]) -> str:
        """Return sacrebleu's signature string."""
        return render_signature(self._scorer, samples)

    def notes(self, samples: Sequence[Sample]) -> tuple[str, ...]:
        """Say when predictions look tokenized, or when the tokenizer does not suit the language."""
        notes = list(tokenized_notes(samples))
        if self._fallback:
            notes.append(
                f"The tokenizer {self._fallback!r} is not installed, so BLEU counts characters; such values are not "
                f"comparable with {self._fallback!r} ones. Install it with: pip install 'sacrebleu[{self._lang}]'."
            )
        elif self.tokenizer in {"13a", "intl", "none"} and has_unsegmented(r for s in samples for r in s.references):
            notes.append(
                f"The references are written without spaces, and the tokenizer {self.tokenizer!r} takes each run of "
                "text for one word. Give the target language, choose another tokenizer (char, flores200), or use chrf."
            )
        return tuple(notes)


def build_scorer(tokenizer: str, *, lowercase: bool) -> Any:
    """Make sacrebleu's BLEU object.

    Args:
        tokenizer: One of `TOKENIZERS`.
        lowercase: Whether to ignore case.

    Returns:
        A `sacrebleu.metrics.BLEU`.

    Raises:
        ConfigError: The tokenizer is unknown, not installed, or would have to be downloaded.
    """
    if tokenizer not in TOKENIZERS:
        raise ConfigError(f"BLEU has no tokenizer {tokenizer!r}. {did_you_mean(tokenizer, TOKENIZERS)}")
    from sacrebleu.metrics.bleu import BLEU

    if tokenizer in _SUBWORD_URLS:
        _require_subword_model(tokenizer)
    try:
        # force: sacrebleu would log its warning about tokenized text; `notes` says it instead.
        return BLEU(lowercase=lowercase, tokenize=tokenizer, force=True)
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            f"The BLEU tokenizer {tokenizer!r} is not installed. Install it with: "
            f"pip install 'sacrebleu[{tokenizer[:2]}]', or choose another tokenizer such as 'char'."
        ) from error


def _require_subword_model(tokenizer: str) -> None:
    """Refuse a tokenizer whose model file is not there: sacrebleu would fetch it from the network without asking."""
    from sacrebleu.utils import SACREBLEU_DIR

    url = _SUBWORD_URLS[tokenizer]
    path = os.path.join(SACREBLEU_DIR, "models", os.path.basename(url))
    if not os.path.isfile(path):
        raise ConfigError(
            f"The BLEU tokenizer {tokenizer!r} needs a model file that is not on this machine. Download {url} and save "
            f"it as {path} (the environment variable SACREBLEU sets another folder), or choose another tokenizer."
        )


def bleu_from_stats(stats: FloatArray, *, effective_order: bool) -> FloatArray:
    """Compute BLEU from its sufficient statistics, for many corpora at once.

    ``BP * exp(mean_n log p_n)`` with ``BP = min(1, exp(1 - ref_len / sys_len))``; the k-th order without a match gets
    ``p_n = 1 / (2^k * total_n)`` (NIST smoothing, method 3 of Chen and Cherry 2014).

    Args:
        stats: ``[..., 10]`` as in `Bleu`.
        effective_order: Whether orders without any n-gram in the prediction are left out of the mean. Otherwise they
            make the score 0.

    Returns:
        BLEU, 0-100, ``[...]``.
    """
    stats = np.asarray(stats, dtype=np.float64)
    sys_len, ref_len = stats[..., 0], stats[..., 1]
    correct, total = stats[..., 2:6], stats[..., 6:10]
    possible = np.logical_and.accumulate(total > 0, axis=-1)
    missed = possible & (correct == 0)
    smoothed = np.where(missed, np.exp2(-np.cumsum(missed, axis=-1)), correct)
    precision = ratio(100.0 * smoothed, np.where(possible, total, 0.0), empty=1.0)
    orders = possible.sum(axis=-1) if effective_order else np.full(sys_len.shape, correct.shape[-1])
    mean_log = ratio(np.log(precision).sum(axis=-1), orders.astype(np.float64), empty=0.0)
    with np.errstate(over="ignore"):
        penalty = np.exp(np.minimum(0.0, 1.0 - ratio(ref_len, sys_len, empty=np.inf)))
    defined = (correct > 0).any(axis=-1) & (effective_order | possible[..., -1])
    return np.where(defined, penalty * np.exp(mean_log), 0.0)
