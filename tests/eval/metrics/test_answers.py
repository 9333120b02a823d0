"""SQuAD and CMRC answer scores: hand-computed values, and a compact restatement of the published definitions."""

from __future__ import annotations

import random
import re
import string
from collections import Counter

import pytest

from nlpkit.core.errors import ConfigError, InputError
from nlpkit.eval.metrics.base import Sample
from nlpkit.eval.metrics.registry import get_metric
from nlpkit.eval.metrics.squad import answer_f1, cmrc_f1, cmrc_normalise, cmrc_tokens, normalise_answer
from nlpkit.eval.statistics.measure import measure


def value(name: str, samples: list[Sample], **options) -> float:
    return measure(get_metric(name, **options), samples).value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Cat!", "cat"),
        ("an apple a day", "apple day"),
        ("U.S.A.", "usa"),
        ("it's the-end", "its theend"),
        ("Athena", "athena"),
        ("“the” quote", "“ ” quote"),
        ("the", ""),
    ],
)
def test_normalisation(text: str, expected: str) -> None:
    assert normalise_answer(text) == expected


def oracle(prediction: str, golds: list[str]) -> tuple[float, float]:
    """SQuAD 2.0's definition of exact match and F1 for one question, restated."""

    def norm(s: str) -> list[str]:
        s = "".join(c for c in s.lower() if c not in string.punctuation)
        return re.sub(r"\b(a|an|the)\b", " ", s).split()

    golds = [g for g in golds if norm(g)] or [""]
    p = norm(prediction)
    f1s = []
    for g in map(norm, golds):
        if not g or not p:
            f1s.append(float(g == p))
            continue
        same = sum((Counter(g) & Counter(p)).values())
        f1s.append(2 * same / (len(p) + len(g)))
    return float(max(norm(g) == p for g in golds)), max(f1s)


def test_random_answers_equal_the_restated_definition() -> None:
    rng = random.Random(11)
    words = ["the", "a", "Cat", "cat.", "New", "York", "1,000", "an", "'s", "São", "-", "U.S."]
    samples, expected = [], []
    while len(samples) < 2000:
        golds = [" ".join(rng.choices(words, k=rng.randint(1, 4))) for _ in range(rng.randint(0, 3))]
        if golds and not any(normalise_answer(g) for g in golds):
            continue
        prediction = " ".join(rng.choices(words, k=rng.randint(0, 4)))
        samples.append(Sample(prediction, tuple(golds)))
        expected.append(oracle(prediction, golds))
    em = measure(get_metric("exact_match"), samples)
    f1 = measure(get_metric("squad_f1"), samples)
    assert em.stats[:, 0].tolist() == [e for e, _ in expected]
    assert f1.stats[:, 0].tolist() == pytest.approx([f for _, f in expected], abs=1e-12)


def first_version(prediction: str, golds: list[str]) -> tuple[float, float]:
    """SQuAD 1.1's definition, restated step by step: small letters, no ASCII punctuation, no articles, single blanks.

    The best of the references counts. Where no word is shared F1 is 0, even of two answers that have none.
    """

    def steps(text: str) -> str:
        small = text.lower()
        bare = "".join(char for char in small if char not in set(string.punctuation))
        without = re.sub(r"\b(a|an|the)\b", " ", bare)
        return " ".join(without.split())

    def f1(one: str, other: str) -> float:
        left, right = steps(one).split(), steps(other).split()
        shared = sum((Counter(left) & Counter(right)).values())
        if not shared:
            return 0.0
        precision, recall = shared / len(left), shared / len(right)
        return 2 * precision * recall / (precision + recall)

    return max(float(steps(prediction) == steps(gold)) for gold in golds), max(f1(prediction, g) for g in golds)


CORNERS = [
    ("a-n apple", ["apple"], (1.0, 1.0)),  # punctuation goes first, so that an article may come out
    ("th.e cat", ["cat"], (1.0, 1.0)),
    ("the-cat", ["cat"], (0.0, 0.0)),  # ... and words may grow together
    ("The THE the cat", ["Cat"], (1.0, 1.0)),
    ("theatre", ["atre"], (0.0, 0.0)),
    ("an\u00a0apple", ["apple"], (1.0, 1.0)),
    ("apple\u3000 pie\u2028", ["apple pie"], (1.0, 1.0)),
    ("apple\u200bpie", ["apple pie"], (0.0, 0.0)),  # no white space
    ("l’eau", ["leau"], (0.0, 0.0)),  # a curly apostrophe is no ASCII punctuation
    ("l'eau", ["leau"], (1.0, 1.0)),
    ("«Paris»", ["Paris"], (0.0, 0.0)),
    ("東京。", ["東京"], (0.0, 0.0)),
    ("a東京", ["東京"], (0.0, 0.0)),  # letters of all scripts make a word
    ("a 東京", ["東京"], (1.0, 1.0)),
    ("São Paulo", ["sao paulo"], (0.0, 0.5)),
    ("SÃO PAULO", ["são paulo"], (1.0, 1.0)),
    ("cafe\u0301", ["caf\u00e9"], (0.0, 0.0)),  # no Unicode normalisation
    ("STRASSE", ["straße"], (0.0, 0.0)),  # small letters, no case folding
    ("İstanbul", ["i\u0307stanbul"], (1.0, 1.0)),
    ("$1,000.50", ["100050"], (1.0, 1.0)),
    ("-5", ["5"], (1.0, 1.0)),
    ("cat cat cat", ["cat"], (0.0, 0.5)),  # words count as often as they occur
    ("cat dog", ["cat", "dog cat"], (0.0, 1.0)),
    ("cat", ["dog", "a cat sat", "cat"], (1.0, 1.0)),
    ("", ["cat"], (0.0, 0.0)),
    ("the", ["cat"], (0.0, 0.0)),
    ("😀 the 😀", ["😀 😀"], (1.0, 1.0)),
]


@pytest.mark.parametrize(("prediction", "golds", "expected"), CORNERS)
def test_corners_of_both_versions(prediction: str, golds: list[str], expected: tuple[float, float]) -> None:
    assert first_version(prediction, golds) == pytest.approx(expected)
    assert oracle(prediction, golds) == pytest.approx(expected)
    samples = [Sample(prediction, tuple(golds))]
    scores = value("exact_match", samples), value("squad_f1", samples)
    assert scores == pytest.approx([100 * part for part in expected])


def test_any_characters_equal_both_versions() -> None:
    rng = random.Random(5)
    chars = [
        *"aA.,'-tThH e\u00e9ß東京ИЙи\u0301\u0307\u00a0\u2028\u3000\u200b😀1٣",
        "the ",
        " an ",
        "İ",
        "\x1f",
        "\t",
        "\n",
    ]
    compared = 0
    while compared < 1500:
        prediction, *golds = ("".join(rng.choices(chars, k=rng.randint(0, 9))) for _ in range(rng.randint(2, 4)))
        golds = [gold for gold in golds if normalise_answer(gold)]
        if not golds:
            continue
        samples = [Sample(prediction, tuple(golds))]
        scores = value("exact_match", samples), value("squad_f1", samples)
        for version in (first_version, oracle):
            assert scores == pytest.approx([100 * part for part in version(prediction, golds)]), (prediction, golds)
        compared += 1


def test_several_references_some_of_which_are_nothing() -> None:
    # The second version leaves those out that have no word, unless all of them are such.
    assert oracle("", ["the", "cat"]) == (0.0, 0.0)
    assert value("squad_f1", [Sample("", ("the", "cat"))]) == 0.0
    assert oracle("the", []) == (1.0, 1.0)
    assert value("exact_match", [Sample("the", ()), Sample("cat", ("cat",))]) == 100.0


def test_hand_computed_f1() -> None:
    assert answer_f1("the big black cat", "a black cat") == pytest.approx(0.8)
    assert answer_f1("dog", "cat") == 0.0
    assert value("squad_f1", [Sample("black cat", ("dog", "the black cat sat"))]) == pytest.approx(80.0)
    assert value("exact_match", [Sample("Black cat.", ("dog", "the black cat"))]) == 100.0


def test_unanswerable_questions() -> None:
    samples = [Sample("", ()), Sample("Paris", ()), Sample("Paris", ("paris",)), Sample("", ("rome",))]
    for name in ("exact_match", "squad_f1"):
        assert value(name, samples) == pytest.approx(50.0)
        assert value(f"{name}_has_ans", samples) == pytest.approx(50.0)
        assert value(f"{name}_no_ans", samples) == pytest.approx(50.0)
        assert value(f"{name}_no_ans", samples[:1]) == 100.0
        assert value(f"{name}_has_ans", samples[1:]) == pytest.approx(50.0)
    measured = measure(get_metric("squad_f1"), samples)
    assert measured.signature == "squad_f1|nrefs:1|norm:squad|unanswerable:yes|multi:max|agg:mean|nlpkit:1"
    assert "unanswerable:no" in measure(get_metric("squad_f1"), samples[2:]).signature


def test_a_subset_without_questions_is_refused() -> None:
    with pytest.raises(InputError, match="none of the 1 is"):
        value("exact_match_no_ans", [Sample("a1", ("a1",))])
    with pytest.raises(InputError, match="needs answerable"):
        value("squad_f1_has_ans", [Sample("a1")])


def test_subset_interval_survives_resamples_without_it() -> None:
    samples = [Sample("", ()), *(Sample("x", ("x",)) for _ in range(5))]
    result = measure(get_metric("squad_f1_no_ans"), samples).result(n_resamples=200)
    assert (result.value, result.low, result.high) == (100.0, 100.0, 100.0)


def test_answers_that_normalise_to_nothing() -> None:
    assert value("exact_match", [Sample("cat", ("the", "cat"))]) == 100.0
    for answer in ("A", "The", "a the", "+", "?!", "-"):
        for metric in ("exact_match", "squad_f1"):
            scored = [
                value(metric, [Sample(said, (answer,))]) for said in (answer, answer.lower(), "cat", "", "an", "...")
            ]
            assert scored == [100.0, 100.0, 0.0, 0.0, 0.0, 0.0]
    assert value("squad_f1", [Sample("vitamin A.", ("A",))]) == pytest.approx(200 / 3)
    assert value("exact_match", [Sample("A.", ("A", "the"))]) == 100.0
    assert value("exact_match", [Sample("", ("",)), Sample("x", (" ",))]) == 50.0
    assert value("exact_match", [Sample("《》", ("《》",)), Sample("", ("，",))], lang="zh") == 50.0
    rows = [Sample("A", ("A",)), Sample("x", ("x",)), Sample("b", ("B", "the"))]
    assert value("squad_f1", rows) == 100.0
    (note,) = get_metric("squad_f1").notes(rows)
    assert "1 of the answers" in note
    assert "'A'" in note
    assert get_metric("squad_f1").notes(rows[1:]) == ()
    # The subset with answers holds it, too.
    assert value("squad_f1_has_ans", [Sample("A", ("A",)), Sample("x", ())]) == 100.0


def test_cmrc_tokens_and_normalisation() -> None:
    assert cmrc_normalise(" 《泡泡堂》，iPhone-15。") == "泡泡堂iphone15"
    assert cmrc_tokens("韩国Nexon开发，2.0 beta版") == ["韩", "国", "nexon", "开", "发", "2.0", "beta", "版"]


def test_cmrc_scores() -> None:
    # The longest common run is 北京大学 (4 of 6 and 4 of 4), however many other characters are shared.
    assert cmrc_f1("中国北京大学", "北京大学") == pytest.approx(0.8)
    assert cmrc_f1("北京的大学", "北京大学") == pytest.approx(2 * (2 / 5) * (2 / 4) / (2 / 5 + 2 / 4))
    assert cmrc_f1("上海", "北京") == 0.0
    samples = [Sample("北京大学。", ("清华大学", "北京大学"))]
    assert value("exact_match", samples, lang="zh") == 100.0
    assert value("squad_f1", samples, lang="zh") == 100.0
    assert "norm:cmrc2018" in measure(get_metric("squad_f1", lang="zh-CN"), samples).signature
    assert value("exact_match", samples) == 0.0
    assert any("zh" in note for note in measure(get_metric("squad_f1"), samples).notes)


def test_cmrc_equals_a_restated_definition() -> None:
    rng = random.Random(2)
    pieces = [*"北京大学中国人民", "iPhone", "15", "，", "。", "-", " ", "《", "ab"]

    def longest_run(x: list[str], y: list[str]) -> int:
        runs = {tuple(x[i:j]) for i in range(len(x)) for j in range(i + 1, len(x) + 1)}
        return max((len(r) for r in runs if any(tuple(y[k : k + len(r)]) == r for k in range(len(y)))), default=0)

    for _ in range(400):
        prediction, gold = ("".join(rng.choices(pieces, k=rng.randint(1, 9))) for _ in range(2))
        p, g = cmrc_tokens(prediction), cmrc_tokens(gold)
        if not p or not g:
            continue
        run = longest_run(p, g)
        assert cmrc_f1(prediction, gold) == pytest.approx(2 * run / (len(p) + len(g)))


def test_unknown_normalisation() -> None:
    with pytest.raises(ConfigError, match="'squad'"):
        get_metric("squad_f1", tokenizer="squat")
