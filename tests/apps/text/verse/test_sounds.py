"""Sounds of words: syllables and rhymes by the dictionary, and what is done about words that it lacks."""

from __future__ import annotations

import pytest

from nlpkit.apps.text.verse import sounds
from nlpkit.apps.text.verse.sounds import is_certain, nearest, rhymes, rhyming_words, syllables, words_of


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("an old silent pond", {5}),
        ("A frog jumps into the pond —", {7}),
        ("poem", {2}),
        ("fire", {1, 2}),
        ("our den", {2, 3}),
        ("down upon us", {4}),
        ("the queue’s end", {3}),
        ("the fox's den", {4}),
        ("", {0}),
        ("12 !", {0}),
        ("山の夜", {3}),
    ],
)
def test_syllables(line: str, counts: set[int]) -> None:
    assert counts <= syllables(line)
    assert max(syllables(line)) == max(counts)


def test_the_nearest_possible_count_is_told() -> None:
    assert (nearest("our den", 2), nearest("our den", 9)) == (2, 3)


def test_unknown_words_are_certain_where_both_rules_agree() -> None:
    assert is_certain("gloomling")
    assert not is_certain("untrimmed")
    assert syllables("untrimmed") == {1, 2}


@pytest.mark.parametrize(
    ("one", "other", "rhyme"),
    [
        ("night", "light", True),
        ("Night", "LIGHT", True),
        ("through", "blue", True),
        ("cough", "though", False),
        ("sea", "see", False),
        ("rain", "rain", False),
        ("rain", "untrimmed", False),
    ],
)
def test_rhymes(one: str, other: str, rhyme: bool) -> None:
    assert rhymes(one, other) is rhyme
    assert (other.casefold() in rhyming_words(one)) is rhyme


def test_words_of_a_line() -> None:
    assert words_of("Don’t go, O'Neill -- 3 times!") == ["don't", "go", "o'neill", "times"]


def test_without_the_dictionaries_syllables_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounds, "has_sounds", lambda: False)
    sounds._counts.cache_clear()
    try:
        assert syllables("fire") == {1}
    finally:
        sounds._counts.cache_clear()
