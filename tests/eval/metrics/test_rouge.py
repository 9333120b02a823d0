"""ROUGE against rouge_score, and where rouge_score would be silently wrong."""

from __future__ import annotations

import random

import pytest
from rouge_score import rouge_scorer

from nlpkit.core.errors import ConfigError, InputError
from nlpkit.eval.metrics.base import Sample
from nlpkit.eval.metrics.registry import get_metric
from nlpkit.eval.statistics.measure import build_samples, measure

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
VOCABULARY = [
    word
    for text in (
        "The running dogs quickly jumped over 12 lazy foxes' dens, re-entering well-known territories; U.S. officials",
        "said (on Monday) that policies were being reconsidered. Communities naturally relating to 3.5% growth don't",
    )
    for word in text.split()
]


def make_text(rng: random.Random) -> str:
    lines = [" ".join(rng.choices(VOCABULARY, k=rng.randint(1, 9))) for _ in range(rng.randint(1, 4))]
    return rng.choice(["\n", " ", "\n\n"]).join(lines)


@pytest.mark.parity
@pytest.mark.parametrize("stemmer", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_segments_are_bit_equal_to_rouge_score(kind: str, stemmer: bool) -> None:
    rng = random.Random(f"{kind} {stemmer}")
    samples = []
    for _ in range(150):
        references = tuple(make_text(rng) for _ in range(rng.randint(1, 3)))
        samples.append(Sample(make_text(rng) if rng.random() > 0.05 else "", references))
    got = measure(get_metric(kind, lang="en", stemmer=stemmer), samples)
    theirs = rouge_scorer.RougeScorer([kind], use_stemmer=stemmer)
    expected = [theirs.score_multi(s.references, s.prediction)[kind].fmeasure for s in samples]
    assert got.stats[:, 0].tolist() == expected
    assert got.value == pytest.approx(100 * sum(expected) / len(expected), rel=1e-12)
    # Without a language, English is recognised by its script.
    assert measure(get_metric(kind, stemmer=stemmer), samples).signature == got.signature


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "text",
    [
        "今天天气很好，我们去公园。",
        "आज मौसम बहुत अच्छा है",
        "วันนี้อากาศดีมาก",
        "Сегодня хорошая погода",
        "오늘 날씨가 좋다",
        "الطقس جميل اليوم",
        "သည်နေ့ရာသီဥတုကောင်း",
    ],
)
def test_identical_texts_of_any_script_score_full_marks(kind: str, text: str) -> None:
    got = measure(get_metric(kind), [Sample(text, (text,))])
    assert got.value == pytest.approx(100.0)
    assert "tok:nlpkit-unicode-1" in got.signature


def test_words_are_not_cut_at_umlauts() -> None:
    sample = [Sample("die Tür", ("die Tür ist zu",))]
    assert measure(get_metric("rouge1", lang="de"), sample).value == pytest.approx(100 * 2 / 3)
    # rouge_score sees die, t, r in the prediction: three of five reference tokens.
    assert measure(get_metric("rouge1", tokenizer="rouge_score"), sample).value == pytest.approx(75.0)


def test_a_stray_accent_keeps_english_with_rouge_score() -> None:
    text = (
        "The committee met at the café on Monday and agreed to postpone all decisions. It will convene again in spring."
    )
    text += " Nobody objected to the proposal."
    assert "tok:rouge_score" in measure(get_metric("rouge1"), [Sample(text, (text,))]).signature


@pytest.mark.parametrize("kind", KINDS)
def test_a_reference_without_tokens_is_refused(kind: str) -> None:
    samples = [Sample("a", ("a",), id="x1"), Sample("好", ("好",), id="x2")]
    with pytest.raises(InputError, match=r"Segment 2 \(id 'x2'\).*'unicode'"):
        measure(get_metric(kind, lang="en"), samples)
    with pytest.raises(InputError, match="Segment 1"):
        measure(get_metric(kind, lang="fr"), [Sample("oui", ("…",))])


def test_lsum_splits_at_newlines_and_says_so() -> None:
    prediction, reference = "Cats sleep. Dogs bark.", "Dogs bark. Cats sleep."
    flat = measure(get_metric("rougeLsum", lang="en"), [Sample(prediction, (reference,))])
    assert flat.value == pytest.approx(50.0)
    assert "split:newline" in flat.signature
    assert any("line break" in note for note in flat.notes)
    split = measure(get_metric("rougeLsum", lang="en", split="sentence"), [Sample(prediction, (reference,))])
    assert split.value == pytest.approx(100.0)
    assert "split:sentence" in split.signature
    lines = [Sample(prediction.replace(". ", ".\n"), (reference.replace(". ", ".\n"),))]
    assert measure(get_metric("rougeLsum", lang="en"), lines).value == pytest.approx(100.0)
    assert measure(get_metric("rougeLsum", lang="en"), lines).notes == ()


def test_hand_computed_values() -> None:
    sample = build_samples(["the cat was found under the bed"], ["the cat was under the bed"])
    assert measure(get_metric("rouge1", lang="en"), sample).value == pytest.approx(100 * 12 / 13)
    assert measure(get_metric("rouge2", lang="en"), sample).value == pytest.approx(100 * 8 / 11)
    assert measure(get_metric("rougeL", lang="en"), sample).value == pytest.approx(100 * 12 / 13)


def test_signature_names_what_matters() -> None:
    got = measure(get_metric("rougeL", lang="en", stemmer=True), build_samples(["a"], ["a"], ["b"])).signature
    assert got == "rougeL|nrefs:2|case:lc|tok:rouge_score|stem:porter|multi:max|agg:mean|rouge_score:0.1.2|nlpkit:1"


def test_the_stemmer_is_for_english() -> None:
    with pytest.raises(ConfigError, match="English"):
        get_metric("rouge1", lang="de", stemmer=True)
    with pytest.raises(ConfigError, match="English"):
        measure(get_metric("rouge1", stemmer=True), [Sample("好", ("好",))])


def test_unbound_metric_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="bind"):
        get_metric("rouge1").segment_stats([Sample("a", ("a",))])
    with pytest.raises(ConfigError, match="split"):
        get_metric("rougeLsum", split="word")
