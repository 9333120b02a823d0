"""What a metric is: additive statistics per segment, and a function from their sum to a score.

Everything that says how certain a score is follows from that shape. The statistics of a corpus are the sum of its
segments' rows, so those of a resample are ``counts @ stats``, and ten thousand resamples are one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nlpkit.core.errors import InputError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Likelihood:
    """What a model thought of a text.

    Attributes:
        logprob: Sum of the log-probabilities of the scored tokens, in nats.
        n_tokens: How many tokens were scored.
        n_bytes: Length of the scored text in UTF-8 bytes.
    """

    logprob: float
    n_tokens: int
    n_bytes: int


@dataclass(frozen=True)
class Sample:
    """One segment to score. Its references belong to it, so they cannot be transposed or out of step.

    Attributes:
        prediction: The system's text, label, or space-separated tags.
        references: Acceptable answers. Empty means unanswerable to the question-answering metrics; the metrics that
            need no reference ignore it; all others refuse it.
        id: Name of the segment in error messages; empty when it has none.
        form: The form that was asked for (``haiku``, ``acrostic:ROSE``), for form adherence only.
        likelihood: For perplexity and bits per byte only.
    """

    prediction: str
    references: tuple[str, ...] = ()
    id: str = ""
    form: str = ""
    likelihood: Likelihood | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.prediction, str):
            raise InputError(f"A prediction must be a string, not {self.prediction!r}. Join or convert it first.")
        if not isinstance(self.references, tuple):
            raise InputError(
                f"References must be a tuple of strings, not {self.references!r} (a {type(self.references).__name__}). "
                "Write a single reference as ('text',)."
            )
        for reference in self.references:
            if not isinstance(reference, str):
                raise InputError(f"A reference must be a string, not {reference!r}. Convert it first.")


@dataclass(frozen=True)
class MetricResult:
    """A score that says what it is and how certain it is.

    Attributes:
        name: Name of the metric.
        value: Corpus score, on the metric's usual scale (0-100 unless its docstring says otherwise).
        signature: All that must be equal for two values to be comparable.
        n: Number of segments.
        low: Lower end of the confidence interval.
        high: Upper end of the confidence interval.
        level: Coverage of the interval.
        higher_is_better: Direction of the metric.
        notes: Things that the reader of the score should know, as whole sentences.
    """

    name: str
    value: float
    signature: str
    n: int
    low: float
    high: float
    level: float = 0.95
    higher_is_better: bool = True
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of this result: ``metric, value, low, high, signature, n``, and ``notes`` if any."""
        record: dict[str, Any] = {
            "metric": self.name,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "signature": self.signature,
            "n": self.n,
        }
        if self.notes:
            record["notes"] = list(self.notes)
        return record


class Metric(Protocol):
    """What a metric must offer. `BaseMetric` has the usual defaults.

    Attributes:
        name: Name in tables and on the command line.
        higher_is_better: False for error rates.
        independent: Whether a segment's statistics depend on that segment alone. Where they do not (`distinct1`,
            `self_bleu`), the metric's docstring says what its interval means.
    """

    name: str
    higher_is_better: bool
    independent: bool

    def bind(self, samples: Sequence[Sample]) -> Metric:
        """Settle what depends on the references: label set, tokenizer by script. Never looks at predictions."""
        ...

    def segment_stats(self, samples: Sequence[Sample]) -> FloatArray:
        """Return the additive statistics, ``[n_segments, k]``. Call it on a bound metric."""
        ...

    def aggregate(self, stats: FloatArray) -> FloatArray:
        """Turn summed statistics ``[..., k]`` into scores ``[...]``; NaN where the score is undefined."""
        ...

    def segment_scores(self, stats: FloatArray) -> FloatArray:
        """Turn the rows ``[n_segments, k]`` of `segment_stats` into one score each, ``[n_segments]``."""
        ...

    def signature(self, samples: Sequence[Sample]) -> str:
        """Return all that must be equal for two values to be comparable."""
        ...

    def notes(self, samples: Sequence[Sample]) -> tuple[str, ...]:
        """Return whole sentences that the reader of the score should know."""
        ...


class BaseMetric:
    """Defaults of `Metric`: nothing to bind, a segment scored as a corpus of one, nothing to note."""

    name: str = ""
    higher_is_better: bool = True
    independent: bool = True

    def bind(self, samples: Sequence[Sample]) -> Metric:
        """Return the metric itself."""
        return self  # type: ignore[return-value]

    def segment_stats(self, samples: Sequence[Sample]) -> FloatArray:
        """Return the additive statistics, ``[n_segments, k]``."""
        raise NotImplementedError

    def aggregate(self, stats: FloatArray) -> FloatArray:
        """Return ``100 * stats[..., 0] / stats[..., 1]``: the mean of what the segments have."""
        return 100.0 * ratio(stats[..., 0], stats[..., 1])

    def segment_scores(self, stats: FloatArray) -> FloatArray:
        """Score each segment as a corpus of one."""
        return self.aggregate(stats)

    def notes(self, samples: Sequence[Sample]) -> tuple[str, ...]:
        """Return nothing."""
        return ()


def ratio(numerator: FloatArray, denominator: FloatArray, *, empty: float = np.nan) -> FloatArray:
    """Divide elementwise, with `empty` where the denominator is 0.

    Args:
        numerator: Any shape.
        denominator: The same shape; never negative.
        empty: Value of 0/0.

    Returns:
        The quotients, in the same shape.
    """
    out = np.full(np.shape(denominator), empty, dtype=np.float64)
    np.divide(numerator, denominator, out=out, where=np.asarray(denominator) != 0)
    return out


def stack_rows(rows: Sequence[Sequence[float]], width: int) -> FloatArray:
    """Return statistics rows as a float64 array ``[n_segments, width]``, also when there are none."""
    return np.asarray(rows, dtype=np.float64).reshape(len(rows), width)


def segment_label(index: int, sample: Sample) -> str:
    """Name a segment in an error message: its position from 1, and its id where it has one."""
    return f"Segment {index + 1}" + (f" (id {sample.id!r})" if sample.id else "")


def check_references(
    name: str,
    samples: Sequence[Sample],
    *,
    is_empty: Callable[[str], bool] = lambda text: not text.strip(),
    hint: str = "Remove the row or mend the reference.",
    exactly_one: bool = False,
) -> None:
    """Refuse segments that cannot be scored against their references.

    Args:
        name: The metric's name.
        samples: All segments.
        is_empty: Whether nothing of a reference is left to compare with.
        hint: What to do about an empty reference.
        exactly_one: Whether more than one reference is refused too.

    Raises:
        InputError: A segment has no reference, an empty one, or too many.
    """
    for index, sample in enumerate(samples):
        label = segment_label(index, sample)
        if not sample.references:
            raise InputError(f"{label} has no reference, and {name} needs at least one. Add one or remove the row.")
        if exactly_one and len(sample.references) != 1:
            raise InputError(
                f"{label} has {len(sample.references)} references, and {name} compares with exactly one. "
                "Keep the right one."
            )
        for reference in sample.references:
            if is_empty(reference):
                raise InputError(
                    f"{label}: nothing of the reference {reference!r} is left once {name} has tokenized it, so any "
                    f"prediction would score 0. {hint}"
                )


def count_references(samples: Sequence[Sample]) -> str:
    """Return the ``nrefs`` of a signature: the number of references that all segments have, or ``var``."""
    counts = {len(sample.references) for sample in samples}
    return str(counts.pop()) if len(counts) == 1 else "var"
