"""Planted overlap is found, nothing else is."""

from __future__ import annotations

import random

import pytest

from nlpkit.core.errors import ConfigError, InputError
from nlpkit.eval.data.contamination import find_overlap
from nlpkit.eval.metrics.text import unicode_tokens

WORDS = [f"word{i}" for i in range(5000)]


def make_text(rng: random.Random, n: int) -> str:
    return " ".join(rng.choices(WORDS, k=n))


def test_planted_runs_are_found_at_the_right_length() -> None:
    rng = random.Random(1)
    train = [make_text(rng, 60) for _ in range(50)]
    test = [make_text(rng, 40) for _ in range(6)]
    run13, run8 = train[7].split()[20:33], train[31].split()[0:8]
    test[2] = " ".join([*test[2].split()[:10], *run13, *test[2].split()[10:]])
    test[4] = " ".join([*run8, *test[4].split()])
    long, short = find_overlap(iter(train), test)
    assert (long.n, long.n_test, long.n_train, long.n_too_short) == (13, 6, 50, 0)
    assert long.indices == {2}
    assert long.share == pytest.approx(1 / 6)
    row = long.rows[0]
    assert [(hit.position, hit.ngram, hit.train_index) for hit in row.hits] == [(10, " ".join(run13), 7)]
    assert row.coverage == pytest.approx(13 / 53)
    assert short.indices == {2, 4}
    assert [hit.position for hit in short.rows[0].hits] == [10, 11, 12, 13, 14, 15]
    assert short.rows[1].hits[0].train_index == 31


def test_equals_brute_force() -> None:
    rng = random.Random(2)
    train = [" ".join(rng.choices("abcd", k=rng.randint(0, 30))) for _ in range(20)]
    test = [" ".join(rng.choices("abcd", k=rng.randint(0, 12))) for _ in range(30)]
    for report in find_overlap(train, test, orders=(1, 3, 5, 7)):
        n = report.n
        grams: dict[tuple[str, ...], int] = {}
        for i, text in enumerate(train):
            words = text.split()
            for j in range(len(words) - n + 1):
                grams.setdefault(tuple(words[j : j + n]), i)
        expected = {}
        for i, text in enumerate(test):
            words = text.split()
            hits = [(j, grams[g]) for j in range(len(words) - n + 1) if (g := tuple(words[j : j + n])) in grams]
            if hits:
                expected[i] = hits
        assert {row.index: [(h.position, h.train_index) for h in row.hits] for row in report.rows} == expected
        assert report.n_too_short == sum(len(text.split()) < n for text in test)


def test_case_punctuation_and_composition_do_not_hide_overlap() -> None:
    train = ["Er sagte: „Die Tür bleibt, wie immer, zu!“ Dann ging er."]
    test = ["er sagte die tu\u0308r BLEIBT wie immer zu dann"]
    assert find_overlap(train, test, orders=(8,))[0].rows[0].coverage == 1.0


def test_scripts_without_spaces_are_compared_by_character() -> None:
    report = find_overlap(
        ["据悉，今天北京的天气非常好，适合出行。"], ["今天北京的天气非常好", "明天上海的天气不太好"], orders=(8,)
    )[0]
    assert report.indices == {0}
    assert report.rows[0].hits[0].ngram == " ".join(unicode_tokens("今天北京的天气非"))


def test_word_order_matters() -> None:
    text = "one two three four five six seven eight"
    report = find_overlap([text], [" ".join(reversed(text.split())), text], orders=(8,))[0]
    assert report.indices == {1}


def test_short_and_empty_texts() -> None:
    (report,) = find_overlap(["", "a b"], ["", "a b"], orders=(3,))
    assert (report.rows, report.n_too_short, report.share) == ((), 2, 0.0)
    (report,) = find_overlap([], ["a b c d"], orders=(3,))
    assert (report.rows, report.n_train) == ((), 0)


def test_bad_arguments() -> None:
    with pytest.raises(ConfigError, match="13 and 8"):
        find_overlap(["a"], ["a"], orders=())
    with pytest.raises(ConfigError):
        find_overlap(["a"], ["a"], orders=(0,))
    with pytest.raises(InputError):
        find_overlap(["a"], [])
