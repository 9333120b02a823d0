"""ROUGE (Lin 2004), as the `rouge_score` package computes it, with a tokenizer for every script."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from nlpkit.core.errors import ConfigError, did_you_mean
from nlpkit.eval.metrics.base import (
    BaseMetric,
    FloatArray,
    Metric,
    Sample,
    check_references,
    count_references,
    stack_rows,
)
from nlpkit.eval.metrics.text import (
    UNICODE_TOKENIZER,
    letters_lost,
    primary_language,
    split_sentences,
    tokenized_notes,
    unicode_tokens,
)

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
TOKENIZERS = ("rouge_score", "unicode")
SPLITS = ("newline", "sentence")
_MAX_LETTERS_LOST = 0.01


class Rouge(BaseMetric):
    """Mean over segments of the ROUGE F-measure; 0-100.

    `rouge1` and `rouge2` count shared n-grams, `rougeL` takes the longest common subsequence, and `rougeLsum` the union
    of the longest common subsequences of the summary's lines (Lin 2004, section 3.2). With several references, each
    segment takes the one with the highest F-measure.

    The tokenizer of `rouge_score` knows ``a-z`` and ``0-9`` only: it scores Chinese 0 and cuts ``Tür`` in two. It is
    used for English, where segments equal `rouge_score` bit for bit; other languages get `unicode_tokens`. Without a
    language the references decide: more than 1% of letters beyond ``a-z`` calls for the Unicode tokenizer. The
    signature names the one used.

    Statistics per segment (2): F-measure, 1.
    """

    def __init__(
        self,
        kind: str,
        *,
        lang: str | None = None,
        tokenizer: str | None = None,
        stemmer: bool = False,
        split: str = "newline",
    ) -> None:
        """Choose kind, tokenizer and sentence splitting.

        Args:
            kind: One of `KINDS`.
            lang: Language of the references; decides the tokenizer unless one is given.
            tokenizer: One of `TOKENIZERS`, or None to choose by language or script.
            stemmer: Whether to strip English suffixes (Porter) from words over three letters.
            split: Where the sentences of `rougeLsum` end: at a ``newline``, as `rouge_score` has it, or where
                `split_sentences` finds a ``sentence`` end.

        Raises:
            ConfigError: A choice is unknown, or the stemmer is asked for without the English tokenizer.
        """
        for what, value, known in (("kind", kind, KINDS), ("split", split, SPLITS)):
            if value not in known:
                raise ConfigError(f"ROUGE has no {what} {value!r}. {did_you_mean(value, known)}")
        if tokenizer is not None and tokenizer not in TOKENIZERS:
            raise ConfigError(f"ROUGE has no tokenizer {tokenizer!r}. {did_you_mean(tokenizer, TOKENIZERS)}")
        language = primary_language(lang)
        if tokenizer is None and language is not None:
            tokenizer = "rouge_score" if language == "en" else "unicode"
        self.name = kind
        self.tokenizer = tokenizer
        self._stemmer = stemmer
        self._split = split
        self._scorer: Any = None
        if tokenizer is not None:
            self._build()

    def bind(self, samples: Sequence[Sample]) -> Metric:
        """Choose the tokenizer by the script of the references, where it is still open."""
        if self.tokenizer is not None:
            return self
        lost = letters_lost(reference for sample in samples for reference in sample.references)
        tokenizer = "unicode" if lost > _MAX_LETTERS_LOST else "rouge_score"
        return Rouge(self.name, tokenizer=tokenizer, stemmer=self._stemmer, split=self._split)

    def _build(self) -> None:
        from rouge_score import rouge_scorer

        if self._stemmer and self.tokenizer != "rouge_score":
            raise ConfigError(
                "The stemmer is for English (tokenizer 'rouge_score'), and these references are tokenized with "
                "'unicode'. Leave the stemmer out, or choose the tokenizer 'rouge_score' if the text is English."
            )
        tokenizer = UnicodeTokenizer() if self.tokenizer == "unicode" else None
        logger = logging.getLogger("absl")
        level = logger.level
        logger.setLevel(logging.WARNING)  # "Using default tokenizer."
        try:
            self._scorer = rouge_scorer.RougeScorer(  # type: ignore[no-untyped-call]
                [self.name], use_stemmer=self._stemmer, tokenizer=tokenizer
            )
        finally:
            logger.setLevel(level)

    def _tokens(self, text: str) -> list[str]:
        tokens: list[str] = self._scorer._tokenizer.tokenize(text)
        return tokens

    def _prepared(self, text: str) -> str:
        if self.name == "rougeLsum" and self._split == "sentence":
            return "\n".join(split_sentences(text))
        return text

    def segment_stats(self, samples: Sequence[Sample]) -> FloatArray:
        """Return F-measure and 1 for each segment, ``[n_segments, 2]``."""
        self._require_bound()
        check_references(
            self.name,
            samples,
            is_empty=lambda text: not self._tokens(text),
            hint="If it is not English, give its language or the tokenizer 'unicode'; else remove the row.",
        )
        rows = []
        for sample in samples:
            prediction = self._prepared(sample.prediction)
            references = [self._prepared(reference) for reference in sample.references]
            rows.append((self._scorer.score_multi(references, prediction)[self.name].fmeasure, 1.0))
        return stack_rows(rows, 2)

    def signature(self, samples: Sequence[Sample]) -> str:
        """Return references, case, tokenizer, stemmer, splitting, and the versions behind them."""
        self._require_bound()
        parts = [
            self.name,
            f"nrefs:{count_references(samples)}",
            "case:lc",
            f"tok:{UNICODE_TOKENIZER if self.tokenizer == 'unicode' else 'rouge_score'}",
            f"stem:{'porter' if self._stemmer else 'no'}",
            *([f"split:{self._split}"] if self.name == "rougeLsum" else []),
            "multi:max",
            "agg:mean",
            f"rouge_score:{version('rouge-score')}",
            "nlpkit:1",
        ]
        return "|".join(parts)

    def notes(self, samples: Sequence[Sample]) -> tuple[str, ...]:
        """Say when predictions look tokenized, or when ROUGE-Lsum has nothing to sum over."""
        notes = list(tokenized_notes(samples))
        if self.name == "rougeLsum" and self._split == "newline":
            texts = [text for sample in samples for text in (sample.prediction, *sample.references)]
            if texts and not any("\n" in text.strip() for text in texts):
                notes.append(
                    "No text has a line break, so rougeLsum takes each for one sentence and equals rougeL. "
                    "Put each sentence on its own line, or choose the split 'sentence'."
                )
        return tuple(notes)

    def _require_bound(self) -> None:
        if self._scorer is None:
            raise ConfigError(
                "The tokenizer of this ROUGE is still open. Call bind(samples), or give lang or tokenizer."
            )


class UnicodeTokenizer:
    """`unicode_tokens` in the shape that `rouge_score` expects of a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text."""
        return unicode_tokens(text)
