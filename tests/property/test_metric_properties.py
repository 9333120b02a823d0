"""What holds for every metric, whatever the texts."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.eval.metrics.base import Likelihood, Sample
from nlpkit.eval.metrics.registry import METRICS, get_metric
from nlpkit.eval.metrics.text import unicode_tokens
from nlpkit.eval.statistics.measure import Measurement, measure
from nlpkit.eval.statistics.significance import bootstrap_interval, paired_bootstrap

pytestmark = pytest.mark.property

TEXT_METRICS = ["bleu", "chrf", "chrf++", "ter", "rouge1", "rouge2", "rougeL", "rougeLsum", "exact_match", "squad_f1"]
LABEL_METRICS = ["accuracy", "macro_f1", "micro_f1", "mcc"]
FREE_METRICS = [
    "distinct1",
    "distinct2",
    "self_bleu",
    "repetition",
    "length_words",
    "length_chars",
    "compression_ratio",
]

word = st.sampled_from(["cat", "dog", "Haus", "Tür", "12", "sat.", "(on)", "mat", "running", "猫", "дом", "हिन्दी"])
line = st.lists(word, min_size=4, max_size=8).map(" ".join)
maybe_empty = st.lists(word, max_size=8).map(" ".join)
text_sample = st.builds(Sample, maybe_empty, st.lists(line, min_size=1, max_size=3).map(tuple))
label_sample = st.builds(Sample, st.sampled_from(["a", "b", "c", "", "d"]), st.sampled_from([("a",), ("b",), ("c",)]))
tags = st.lists(st.sampled_from(["O", "B-A0", "I-A0", "B-A1", "I-A1", "B-V"]), min_size=1, max_size=7).map(" ".join)
span_sample = st.builds(Sample, tags, tags.map(lambda tag: (tag,)))
likelihood = st.builds(Likelihood, st.floats(-50, 0), st.integers(1, 20), st.integers(1, 80))
likelihood_sample = st.builds(Sample, st.just(""), likelihood=likelihood)
form_sample = st.builds(Sample, maybe_empty, form=st.sampled_from(["haiku", "lines:1", "max_words:4"]))


def strategy(name: str) -> st.SearchStrategy[Sample]:
    for names, sample in ((LABEL_METRICS, label_sample), (["span_f1"], span_sample), (["form"], form_sample)):
        if name in names:
            return sample
    if name.startswith(("perplexity", "bits")):
        return likelihood_sample
    return text_sample


NAMES = [name for name in METRICS if not name.endswith("no_ans")]


def score(name: str, samples: list[Sample]) -> Measurement:
    options = {"tokenizer": "unicode"} if name.startswith("rouge") else {}
    options |= {"labels": ("a", "b", "c")} if name in LABEL_METRICS[1:] else {}
    return measure(get_metric(name, **options), samples)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_order_does_not_matter(name: str, data: st.DataObject) -> None:
    samples = data.draw(st.lists(strategy(name), min_size=2, max_size=6))
    order = data.draw(st.permutations(range(len(samples))))
    first, second = score(name, samples), score(name, [samples[i] for i in order])
    assert second.value == pytest.approx(first.value, rel=1e-9, abs=1e-9, nan_ok=True)
    assert second.segment_scores == pytest.approx(first.segment_scores[list(order)], rel=1e-9, abs=1e-9, nan_ok=True)
    assert second.signature == first.signature


@pytest.mark.parametrize("name", [name for name in NAMES if get_metric(name).independent])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_statistics_are_per_segment_and_add_up(name: str, data: st.DataObject) -> None:
    samples = data.draw(st.lists(strategy(name), min_size=1, max_size=6))
    whole = score(name, samples)
    parts = np.concatenate([score(name, [sample]).stats for sample in samples])
    assert np.array_equal(parts, whole.stats)
    doubled = score(name, samples + samples)
    assert np.array_equal(doubled.stats.sum(axis=0), 2 * whole.stats.sum(axis=0)) or doubled.stats.sum(
        axis=0
    ) == pytest.approx(2 * whole.stats.sum(axis=0))
    aggregated = whole.metric.aggregate(np.stack([whole.stats.sum(axis=0)] * 3).reshape(3, 1, -1))
    assert aggregated.shape == (3, 1)
    assert aggregated.ravel() == pytest.approx([whole.value] * 3, nan_ok=True)


@pytest.mark.parametrize("name", TEXT_METRICS)
@settings(max_examples=25, deadline=None)
@given(references=st.lists(st.lists(line, min_size=1, max_size=2), min_size=1, max_size=4), rng=st.randoms())
def test_an_identical_prediction_is_perfect(name: str, references: list[list[str]], rng: random.Random) -> None:
    samples = [Sample(rng.choice(own), tuple(own)) for own in references]
    best = 0.0 if name == "ter" else 100.0
    got = score(name, samples)
    assert got.value == pytest.approx(best)
    assert got.segment_scores == pytest.approx([best] * len(samples))


@pytest.mark.parametrize("name", TEXT_METRICS)
@given(references=st.lists(line, min_size=1, max_size=4))
@settings(max_examples=15, deadline=None)
def test_an_empty_prediction_scores_nothing(name: str, references: list[str]) -> None:
    worst = 100.0 if name == "ter" else 0.0
    assert score(name, [Sample("", (reference,)) for reference in references]).value == pytest.approx(worst)


@pytest.mark.parametrize("name", [*TEXT_METRICS, *LABEL_METRICS, "span_f1", "form"])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_scores_stay_on_their_scale(name: str, data: st.DataObject) -> None:
    samples = data.draw(st.lists(strategy(name), min_size=1, max_size=6))
    got = score(name, samples)
    low, high = (-100.0, 100.0) if name == "mcc" else (0.0, np.inf if name == "ter" else 100.0)
    assert low - 1e-9 <= got.value <= high + 1e-9


@pytest.mark.parametrize("name", [name for name in TEXT_METRICS if name not in {"ter", "bleu"}])
@settings(max_examples=20, deadline=None)
@given(sample=text_sample, extra=line)
def test_a_further_reference_never_hurts_a_segment(name: str, sample: Sample, extra: str) -> None:
    more = Sample(sample.prediction, (*sample.references, extra))
    assert score(name, [more]).value >= score(name, [sample]).value - 1e-9


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_intervals_and_tests_are_well_formed(name: str, data: st.DataObject) -> None:
    pairs = data.draw(st.lists(st.tuples(strategy(name), strategy(name)), min_size=2, max_size=6))
    first = score(name, [a for a, _ in pairs])
    second = score(name, [Sample(b.prediction, a.references, "", a.form, b.likelihood) for a, b in pairs])
    interval = bootstrap_interval(first.stats, first.metric, n_resamples=40)
    assert interval.low <= interval.high
    forth = paired_bootstrap(first.stats, second.stats, first.metric, n_resamples=40)
    back = paired_bootstrap(second.stats, first.stats, first.metric, n_resamples=40)
    assert 0 < forth.p_value <= 1
    assert forth.p_value == back.p_value
    assert forth.difference == pytest.approx(-back.difference)
    assert (forth.wins, forth.losses, forth.ties) == (back.losses, back.wins, back.ties)


@given(st.text(max_size=40))
def test_unicode_tokens_are_stable(text: str) -> None:
    tokens = unicode_tokens(text)
    assert all(token and not token.isspace() for token in tokens)
    assert unicode_tokens(" ".join(tokens)) == tokens
    assert unicode_tokens(f"  {text} ! ") == tokens


@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=60))
def test_unicode_tokens_of_ascii_are_those_of_rouge_score(text: str) -> None:
    from rouge_score.tokenize import tokenize

    assert unicode_tokens(text) == tokenize(text, None)
