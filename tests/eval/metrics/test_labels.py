"""Accuracy, F1 and Matthews correlation of labels; F1 of spans."""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import pytest

from nlpkit.core.errors import ConfigError, InputError
from nlpkit.eval.metrics.base import Sample
from nlpkit.eval.metrics.registry import get_metric
from nlpkit.eval.metrics.spans import read_spans
from nlpkit.eval.statistics.measure import build_samples, measure


def value(name: str, predicted: list[str], wanted: list[str], **options) -> float:
    return measure(get_metric(name, **options), build_samples(predicted, wanted)).value


def random_labels(rng: random.Random, extra: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
    labels = ["pos", "neg", "neutral", "mixed"][: rng.randint(1, 4)]
    n = rng.randint(1, 40)
    return rng.choices([*labels, *extra], k=n), rng.choices(labels, k=n)


def test_macro_f1_averages_over_the_labels_of_the_references() -> None:
    rng = random.Random(1)
    for _ in range(200):
        predicted, wanted = random_labels(rng, extra=("gibberish",))
        f1s = []
        for label in set(wanted):
            hits = sum(p == w == label for p, w in zip(predicted, wanted, strict=True))
            f1s.append(2 * hits / (predicted.count(label) + wanted.count(label)))
        assert value("macro_f1", predicted, wanted) == pytest.approx(100 * sum(f1s) / len(f1s))


def test_micro_f1_is_accuracy_unless_something_abstains() -> None:
    rng = random.Random(2)
    for _ in range(100):
        predicted, wanted = random_labels(rng, extra=("gibberish",))
        assert value("micro_f1", predicted, wanted) == pytest.approx(value("accuracy", predicted, wanted))
    # One right of one decision: precision 1, recall 1/2.
    assert value("micro_f1", ["pos", ""], ["pos", "neg"]) == pytest.approx(100 * 2 / 3)


def test_matthews_is_the_correlation_of_indicator_variables() -> None:
    """R_K is the Pearson correlation of one-hot codes, with covariances summed over the classes."""
    rng = random.Random(3)
    for _ in range(200):
        predicted, wanted = random_labels(rng, extra=("gibberish",))
        got = value("mcc", predicted, wanted)
        predicted = [p if p in wanted else "other" for p in predicted]
        labels = sorted(set(predicted) | set(wanted))
        x = np.array([[p == label for label in labels] for p in predicted], dtype=float)
        y = np.array([[w == label for label in labels] for w in wanted], dtype=float)
        x, y = x - x.mean(0), y - y.mean(0)
        spread = math.sqrt((x**2).sum() * (y**2).sum())
        expected = 100 * (x * y).sum() / spread if spread > 1e-12 else 0.0
        assert got == pytest.approx(expected, abs=1e-9)


def test_matthews_of_two_labels_by_hand() -> None:
    predicted = ["y"] * 6 + ["n"] * 4
    wanted = ["y"] * 5 + ["n"] * 3 + ["y"] * 2
    tp, fp, fn, tn = 5, 1, 2, 2
    expected = (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert value("mcc", predicted, wanted) == pytest.approx(100 * expected)


def test_labels_are_stripped_and_case_is_kept_unless_asked() -> None:
    assert value("accuracy", [" Pos "], ["Pos"]) == 100.0
    assert value("accuracy", ["pos"], ["Pos"]) == 0.0
    assert value("accuracy", ["pos"], ["Pos"], lowercase=True) == 100.0
    assert value("macro_f1", ["pos", "NEG"], ["Pos", "neg"], lowercase=True) == 100.0


def test_label_scores_take_one_reference_and_known_labels() -> None:
    with pytest.raises(InputError, match="exactly one"):
        measure(get_metric("macro_f1"), [Sample("a", ("a", "b"))])
    with pytest.raises(InputError, match="'b' is not among the labels"):
        value("mcc", ["a"], ["b"], labels=("a", "c"))
    with pytest.raises(ConfigError, match="bind"):
        get_metric("mcc").segment_stats([Sample("a", ("a",))])


def test_labels_go_into_the_signature_and_strays_into_the_notes() -> None:
    measured = measure(get_metric("macro_f1"), build_samples(["a", "I think a", ""], ["a", "b", "c"]))
    assert measured.signature == "macro_f1|nrefs:1|case:mixed|labels:3|nlpkit:1"
    assert measured.notes == ("2 of 3 predictions are none of the 3 labels.",)
    assert measured.segment_scores.tolist() == [100.0, 0.0, 0.0]
    # Two systems have the same labels whatever they predict.
    assert measure(get_metric("macro_f1"), build_samples(["x", "y", "z"], ["a", "b", "c"])).stats.shape == (3, 11)


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("B-A0 I-A0 O B-A1", {(0, 2, "A0"), (3, 4, "A1")}),
        ("B-A0 B-A0", {(0, 1, "A0"), (1, 2, "A0")}),
        ("I-A0 I-A0", {(0, 2, "A0")}),
        ("O I-A0 O", {(1, 2, "A0")}),
        ("B-A0 I-A1 I-A1", {(0, 1, "A0"), (1, 3, "A1")}),
        ("B-A0 nonsense I-A0", {(0, 1, "A0"), (2, 3, "A0")}),
        ("B-C-ARG1 I-C-ARG1", {(0, 2, "C-ARG1")}),
        ("B- O", set()),
        ("", set()),
    ],
)
def test_reading_spans(tags: str, spans: set) -> None:
    assert read_spans(tags.split()) == spans


def test_span_f1_by_hand() -> None:
    wanted = ["B-A0 I-A0 B-V O B-A1", "B-V B-A1 I-A1"]
    predicted = ["B-A0 I-A0 B-V B-A1 I-A1", "B-V B-A1 I-A1"]
    # Without V: two of three predicted spans are right, two of three wanted ones found.
    assert value("span_f1", predicted, wanted) == pytest.approx(100 * 2 / 3)
    assert value("span_f1", predicted, wanted, exclude=()) == pytest.approx(100 * 4 / 5)
    assert "exclude:V" in measure(get_metric("span_f1"), build_samples(predicted, wanted)).signature


def test_span_f1_of_odd_predictions() -> None:
    assert value("span_f1", ["O O"], ["O O"]) == 100.0
    assert value("span_f1", ["no idea what you mean"], ["B-A0 O"]) == 0.0
    assert measure(get_metric("span_f1"), build_samples(["O"], ["B-A0 O"])).notes != ()
    with pytest.raises(InputError, match="not BIO"):
        value("span_f1", ["O"], ["A0 O"])


def test_span_f1_equals_sets_of_spans() -> None:
    rng = random.Random(4)
    tags = ["O", "B-A0", "I-A0", "B-A1", "I-A1", "B-V"]
    hits = predicted_total = wanted_total = 0
    predicted = [" ".join(rng.choices(tags, k=6)) for _ in range(200)]
    wanted = [" ".join(rng.choices(tags, k=6)) for _ in range(200)]
    for p, w in zip(predicted, wanted, strict=True):
        mine = Counter(s for s in read_spans(p.split()) if s[2] != "V")
        theirs = Counter(s for s in read_spans(w.split()) if s[2] != "V")
        hits += sum((mine & theirs).values())
        predicted_total += sum(mine.values())
        wanted_total += sum(theirs.values())
    assert value("span_f1", predicted, wanted) == pytest.approx(200 * hits / (predicted_total + wanted_total))
