"""F1 of labelled spans, as CoNLL scores semantic roles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nlpkit.core.errors import InputError
from nlpkit.eval.metrics.base import BaseMetric, FloatArray, Sample, check_references, ratio, segment_label, stack_rows

LabelSpan = tuple[int, int, str]


def read_spans(tags: Sequence[str]) -> set[LabelSpan]:
    """Read the spans of a BIO tag sequence, mending malformed ones as the CoNLL-2000 script (conlleval) does.

    An ``I-X`` that does not continue an ``X`` begins a new span, whether it follows ``O``, another type or the start.

    Args:
        tags: ``O``, ``B-X`` or ``I-X`` each; anything else counts as ``O``.

    Returns:
        The spans as (first token, one past the last token, type).
    """
    spans: set[LabelSpan] = set()
    start, current = 0, ""
    for position, tag in enumerate([*tags, "O"]):
        prefix, dash, label = tag.partition("-")
        inside = bool(dash and label) and prefix in {"B", "I"}
        if current and (not inside or prefix == "B" or label != current):
            spans.add((start, position, current))
            current = ""
        if inside and not current:
            start, current = position, label
    return spans


class SpanF1(BaseMetric):
    """Micro F1 over spans that agree in both boundaries and in label; 0-100.

    Prediction and reference are BIO tags separated by spaces. Spans labelled ``V`` are left out unless asked for: the
    verb is given with the question in CoNLL-2005 and 2012. Continuations (``C-ARG1``) and references (``R-ARG1``) are
    labels of their own. Where neither side has a span the score is 100.

    Statistics per segment (3): spans in both, in the prediction, in the reference.
    """

    def __init__(self, *, exclude: Sequence[str] = ("V",)) -> None:
        """Choose the labels to leave out.

        Args:
            exclude: Span labels that are not scored.
        """
        self.name = "span_f1"
        self._exclude = frozenset(exclude)

    def _spans(self, text: str) -> set[LabelSpan]:
        return {span for span in read_spans(text.split()) if span[2] not in self._exclude}

    def segment_stats(self, samples: Sequence[Sample]) -> FloatArray:
        """Return the span counts of each segment, ``[n_segments, 3]``."""
        check_references(self.name, samples, exactly_one=True)
        rows = []
        for index, sample in enumerate(samples):
            for tag in sample.references[0].split():
                if tag != "O" and tag[:2] not in {"B-", "I-"}:
                    raise InputError(
                        f"{segment_label(index, sample)}: the reference tag {tag!r} is not BIO. "
                        "Write O, B-LABEL or I-LABEL for each token, separated by spaces."
                    )
            predicted, wanted = self._spans(sample.prediction), self._spans(sample.references[0])
            rows.append((len(predicted & wanted), len(predicted), len(wanted)))
        return stack_rows(rows, 3)

    def aggregate(self, stats: FloatArray) -> FloatArray:
        """Return F1 of summed span counts ``[..., 3]``."""
        stats = np.asarray(stats, dtype=np.float64)
        return 100.0 * ratio(2 * stats[..., 0], stats[..., 1] + stats[..., 2], empty=1.0)

    def signature(self, samples: Sequence[Sample]) -> str:
        """Return scheme, and the labels left out."""
        excluded = ",".join(sorted(self._exclude)) or "none"
        return f"{self.name}|nrefs:1|scheme:bio|malformed:conlleval|exclude:{excluded}|agg:micro|nlpkit:1"

    def notes(self, samples: Sequence[Sample]) -> tuple[str, ...]:
        """Say how many predictions have another number of tags than their reference."""
        n = sum(len(s.prediction.split()) != len(s.references[0].split()) for s in samples if s.references)
        if not n:
            return ()
        return (f"{n} of {len(samples)} predictions have another number of tags than their reference.",)
