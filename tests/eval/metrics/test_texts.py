"""Perplexity, diversity, length, compression and form; the Unicode tokenizer."""

from __future__ import annotations

import math
import random

import pytest
from sacrebleu.metrics.bleu import BLEU

from nlpkit.core.errors import InputError
from nlpkit.eval.metrics.base import Likelihood, Sample
from nlpkit.eval.metrics.form import check_form
from nlpkit.eval.metrics.registry import get_metric
from nlpkit.eval.metrics.text import primary_language, split_sentences, unicode_tokens
from nlpkit.eval.statistics.measure import build_samples, measure


def value(name: str, texts: list[str]) -> float:
    return measure(get_metric(name), build_samples(texts)).value


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("It's 3.5% up!", ["it", "s", "3", "5", "up"]),
        ("Die Tür, groß", ["die", "tür", "groß"]),
        ("Die Tu\u0308r", ["die", "tür"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("今天iPhone好", ["今", "天", "iphone", "好"]),
        ("น้ำดี", ["น้", "ำ", "ดี"]),
        ("می\u200cخواهم", ["میخواهم"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("ひらがなカタ", ["ひ", "ら", "が", "な", "カ", "タ"]),
        ("…!? ", []),
        ("\u0301a", ["a"]),
        ("\u304b\u3099", ["が"]),
    ],
)
def test_unicode_tokens(text: str, tokens: list[str]) -> None:
    assert unicode_tokens(text) == tokens


def test_unicode_tokens_can_keep_case() -> None:
    assert unicode_tokens("The Cat", lowercase=False) == ["The", "Cat"]


def test_sentences() -> None:
    text = 'He left. "Why?" she asked… Nobody knew.\n今天很好。明天呢？「好！」他说。'
    assert split_sentences(text) == [
        "He left.",
        '"Why?"',
        "she asked…",
        "Nobody knew.",
        "今天很好。",
        "明天呢？",
        "「好！」他说。",
    ]


def test_primary_language() -> None:
    assert [primary_language(tag) for tag in ("en-GB", "zho_Hans", "jpn_Jpan", "Korean", "de", "", None)] == [
        "en",
        "zh",
        "ja",
        "ko",
        "de",
        None,
        None,
    ]


def test_perplexity_and_bits_per_byte() -> None:
    samples = [
        Sample("", likelihood=Likelihood(-6.0, 3, 10)),
        Sample("", likelihood=Likelihood(-2.0, 1, 6)),
    ]
    assert measure(get_metric("perplexity"), samples).value == pytest.approx(math.exp(2.0))
    assert measure(get_metric("bits_per_byte"), samples).value == pytest.approx(8.0 / math.log(2) / 16)
    assert measure(get_metric("perplexity"), samples).segment_scores == pytest.approx([math.exp(2.0)] * 2)
    assert not get_metric("perplexity").higher_is_better


@pytest.mark.parametrize(
    "likelihood", [None, Likelihood(-1.0, 0, 0), Likelihood(1.0, 1, 1), Likelihood(math.nan, 1, 1)]
)
@pytest.mark.parametrize("name", ["perplexity", "bits_per_byte"])
def test_likelihoods_are_checked(name: str, likelihood: Likelihood | None) -> None:
    with pytest.raises(InputError, match="Segment 1"):
        measure(get_metric(name), [Sample("", likelihood=likelihood)])


def test_distinct_is_exact_over_the_corpus() -> None:
    rng = random.Random(1)
    texts = [" ".join(rng.choices("abcdefgh", k=rng.randint(0, 9))) for _ in range(60)]
    for n in (1, 2):
        grams = [tuple(text.split()[i : i + n]) for text in texts for i in range(len(text.split()) - n + 1)]
        assert value(f"distinct{n}", texts) == pytest.approx(len(set(grams)) / len(grams), rel=1e-12)
    assert value("distinct1", ["a a b"]) == pytest.approx(2 / 3)
    assert value("distinct2", ["x"]) == 0.0


def test_self_bleu_equals_sentence_bleu_against_all_others() -> None:
    rng = random.Random(2)
    texts = [" ".join(rng.choices("abcde", k=rng.randint(0, 10))) for _ in range(12)]
    scorer = BLEU(tokenize="none", effective_order=True, force=True)
    scores = []
    for i, text in enumerate(texts):
        others = [other for j, other in enumerate(texts) if j != i]
        scores.append(scorer.sentence_score(text, others).score)
    assert measure(get_metric("self_bleu"), build_samples(texts)).segment_scores == pytest.approx(scores, abs=1e-9)
    assert value("self_bleu", texts) == pytest.approx(sum(scores) / len(scores))
    assert value("self_bleu", ["one two three four five"] * 3) == pytest.approx(100.0)
    with pytest.raises(InputError, match="at least two"):
        value("self_bleu", ["alone"])


def test_repetition() -> None:
    assert value("repetition", ["a b c d e f g"]) == 0.0
    assert value("repetition", ["a b c d a b c d"]) == pytest.approx(1 / 5)
    assert value("repetition", ["go go go go go go"]) == pytest.approx(2 / 3)
    measured = measure(get_metric("repetition"), build_samples(["go go go go go go", "short"]))
    assert measured.value == pytest.approx(2 / 3)
    assert measured.notes == ("1 of 2 texts have fewer than 4 tokens and are left out.",)


def test_length_and_compression() -> None:
    assert value("length_words", ["one two", "three", "今天"]) == pytest.approx(5 / 3)
    assert value("length_chars", [" ab ", "c"]) == pytest.approx(1.5)
    assert value("compression_ratio", ["spam " * 200]) > 20
    assert value("compression_ratio", ["".join(map(chr, range(33, 120)))]) < 1.1


@pytest.mark.parametrize(
    ("text", "form", "holds"),
    [
        ("an old silent pond\na frog jumps in\nsplash", "haiku", [True]),
        ("one\n\ntwo\n\nthree\n", "haiku", [True]),
        ("one\ntwo", "haiku", [False]),
        ("x\n" * 14, "sonnet", [True]),
        ("Roses\nOver\n 'Sea\nÉlan", "acrostic:Rose", [True, True]),
        ("Roses\nOver\nUs", "acrostic:ROSE", [False, False]),
        ("Ann: hello\nBen: bye", "dialogue", [True]),
        ("“Hello,” she said.\n“Bye.”", "dialogue", [True]),
        ("He left. She stayed.", "dialogue", [False]),
        ("one two three", "max_words:3+min_words:4", [True, False]),
        ("", "max_words:3", [False]),
        ("a\nb", "lines:2", [True]),
        ("  ", "story", [False]),
    ],
)
def test_forms(text: str, form: str, holds: list[bool]) -> None:
    assert [fact.holds for fact in check_form(text, form)] == holds


@pytest.mark.parametrize("form", ["haikuu", "lines", "lines:x", "acrostic", "acrostic:12", "haiku+"])
def test_unknown_forms_are_refused(form: str) -> None:
    with pytest.raises(InputError):
        check_form("x", form)


def test_form_adherence() -> None:
    samples = [Sample("a\nb\nc", form="haiku"), Sample("a", form="haiku"), Sample("whatever")]
    assert measure(get_metric("form"), samples).value == pytest.approx(50.0)
    with pytest.raises(InputError, match="No segment asks"):
        measure(get_metric("form"), samples[2:])
    with pytest.raises(InputError, match=r"Segment 1 \(id 'w'\).*haiku"):
        measure(get_metric("form"), [Sample("a", form="haikuu", id="w")])
