"""Accuracy, F1 and Matthews correlation of single labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nlpkit.core.errors import ConfigError, InputError, did_you_mean
from nlpkit.eval.metrics.base import (
    BaseMetric,
    FloatArray,
    Metric,
    Sample,
    check_references,
    count_references,
    ratio,
    stack_rows,
)

KINDS = ("macro_f1", "micro_f1", "mcc")


class Accuracy(BaseMetric):
    """Share of segments whose prediction equals one of the references, compared as whole stripped strings; 0-100.

    Statistics per segment (2): 1 if correct, 1.
    """

    def __init__(self, *, lowercase: bool = False) -> None:
        """Choose whether case matters.

        Args:
            lowercase: Whether to ignore case.
        """
        self.name = "accuracy"
        self._lowercase = lowercase

    def segment_stats(self, samples: Sequence[Sample]) -> FloatArray:
        """Return correctness and 1 for each segment, ``[n_segments, 2]``."""
        check_references(self.name, samples)
        rows = []
        for sample in samples:
            prediction = _label(sample.prediction, self._lowercase)
            correct = any(prediction == _label(reference, self._lowercase) for reference in sample.references)
            rows.append((float(correct), 1.0))
        return stack_rows(rows, 2)

    def signature(self, samples: Sequence[Sample]) -> str:
        """Return references and case."""
        case = "lc" if self._lowercase else "mixed"
        return f"{self.name}|nrefs:{count_references(samples)}|case:{case}|multi:any|agg:mean|nlpkit:1"


class LabelScore(BaseMetric):
    """Scores that need the counts of every label.

    `macro_f1` is the unweighted mean of the labels' F1 over those that occur; `micro_f1` is F1 over all decisions
    together, where an empty prediction abstains (it costs recall, not precision), and equals accuracy when nothing
    abstains; both 0-100. `mcc` is 100 times the Matthews correlation for several classes, the R_K of Gorodkin (2004),
    -100 to 100, and 0 where it is undefined (one label only).

    The labels are those of the references unless given. Predictions that are none of them count together as one further
    label, which is always wrong; `macro_f1` does not average over it, so two systems are averaged over the same labels.

    Statistics per segment (``3 L + 2`` for L labels): for each label, true positives, predictions, references; then
    predictions outside the labels, and abstentions. A segment's score is 100 if it is right, else 0.
    """

    def __init__(self, kind: str, *, labels: Sequence[str] = (), lowercase: bool = False) -> None:
        """Choose the score.

        Args:
            kind: One of `KINDS`.
            labels: The labels; `bind` finds them in the references where none are given.
            lowercase: Whether to ignore case.

        Raises:
            ConfigError: The kind is unknown.
        """
        if kind not in KINDS:
            raise ConfigError(f"There is no label score {kind!r}. {did_you_mean(kind, KINDS)}")
        self.name = kind
        self._lowercase = lowercase
        self.labels = tuple(sorted({_label(label, lowercase) for label in labels}))

    def bind(self, samples: Sequence[Sample]) -> Metric:
        """Take the label set from the references, where none was given."""
        if self.labels:
            return self
        check_references(self.name, samples, exactly_one=True)
        labels = {sample.references[0] for sample in samples}
        return LabelScore(self.name, labels=sorted(labels), lowercase=self._lowercase)

    def segment_stats(self, samples: Sequence[Sample]) -> FloatArray:
        """Return the counts of each segment, ``[n_segments, 3 * n_labels + 2]``."""
        check_references(self.name, samples, exactly_one=True)
        if not self.labels:
            raise ConfigError(f"The labels of {self.name} are not known yet. Call bind(samples), or give labels.")
        index = {label: i for i, label in enumerate(self.labels)}
        stats = np.zeros((len(samples), 3 * len(index) + 2))
        for row, sample in zip(stats, samples, strict=True):
            predicted, wanted = (
                _label(sample.prediction, self._lowercase),
                _label(sample.references[0], self._lowercase),
            )
            if wanted not in index:
                raise InputError(
                    f"The reference label {wanted!r} is not among the labels given ({', '.join(self.labels)}). "
                    "Add it or mend the row."
                )
            row[3 * index[wanted] + 2] = 1
            if predicted in index:
                row[3 * index[predicted] + 1] = 1
                row[3 * index[wanted]] = predicted == wanted
            else:
                row[-2 if predicted else -1] = 1
        return stats

    def aggregate(self, stats: FloatArray) -> FloatArray:
        """Return the score of summed counts ``[..., 3 * n_labels + 2]``."""
        stats = np.asarray(stats, dtype=np.float64)
        counts = stats[..., :-2].reshape(*stats.shape[:-1], -1, 3)
        hits, predicted, wanted = counts[..., 0], counts[..., 1], counts[..., 2]
        outside, abstained = stats[..., -2], stats[..., -1]
        if self.name == "micro_f1":
            decisions = predicted.sum(-1) + outside + wanted.sum(-1)
            return 200.0 * ratio(hits.sum(-1), decisions)
        if self.name == "macro_f1":
            occurs = (predicted + wanted) > 0
            f1 = 2.0 * ratio(hits, predicted + wanted, empty=0.0)
            return 100.0 * ratio((f1 * occurs).sum(-1), occurs.sum(-1).astype(np.float64))
        return _matthews(hits, predicted, wanted, outside + abstained)

    def segment_scores(self, stats: FloatArray) -> FloatArray:
        """Return 100 for right and 0 for wrong, ``[n_segments]``."""
        hits: FloatArray = 100.0 * stats[..., 0:-2:3].sum(axis=-1)
        return hits

    def signature(self, samples: Sequence[Sample]) -> str:
        """Return case and number of labels."""
        case = "lc" if self._lowercase else "mixed"
        scale = "|scale:100" if self.name == "mcc" else ""
        return f"{self.name}|nrefs:{count_references(samples)}|case:{case}|labels:{len(self.labels)}{scale}|nlpkit:1"

    def notes(self, samples: Sequence[Sample]) -> tuple[str, ...]:
        """Say how many predictions are none of the labels."""
        known = set(self.labels)
        n = sum(_label(sample.prediction, self._lowercase) not in known for sample in samples)
        return (f"{n} of {len(samples)} predictions are none of the {len(known)} labels.",) if n else ()


def _label(text: str, lowercase: bool) -> str:
    return text.strip().casefold() if lowercase else text.strip()


def _matthews(hits: FloatArray, predicted: FloatArray, wanted: FloatArray, other: FloatArray) -> FloatArray:
    """Return 100 R_K; `other` counts the predictions that are none of the labels, as one further label."""
    n = wanted.sum(-1)
    covariance = hits.sum(-1) * n - (predicted * wanted).sum(-1)
    spread_predicted = n**2 - (predicted**2).sum(-1) - other**2
    spread_wanted = n**2 - (wanted**2).sum(-1)
    return 100.0 * ratio(covariance, np.sqrt(np.maximum(spread_predicted * spread_wanted, 0.0)), empty=0.0)
