"""Passages are pieces of the text in their places, and the right ones come first."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlpkit.apps.asking.passages import PASSAGE_WORDS, Ranking, search_terms, split_passages
from nlpkit.core.errors import InputError

TEXTS = {
    "bees": "Honey bees live in colonies.\n\nThe queen lays two thousand eggs a day. Workers collect nectar.",
    "bread": "Sourdough is raised by wild yeasts. The starter is fed with flour.",
    "brücken": "Die Brücke wurde 1904 gebaut. Zwei Pfeiler sind beschädigt.",
}


def ranking() -> Ranking:
    passages = [one for n, text in enumerate(TEXTS.values()) for one in split_passages(text, source=n)]
    return Ranking(passages, list(TEXTS))


@given(
    st.lists(
        st.sampled_from(["Some words stand here. ", "One! ", "\n\n", "word " * 70, "x" * 300, "Ende.\n"]), max_size=30
    )
)
def test_passages_stand_where_they_say_and_leave_nothing_out(pieces: list[str]) -> None:
    text = "".join(pieces)
    found = split_passages(text, source=7)
    covered = [False] * len(text)
    for one in found:
        assert one.source == 7
        assert text[one.start : one.start + len(one.text)] == one.text
        covered[one.start : one.start + len(one.text)] = [True] * len(one.text)
    assert all(done or char.isspace() for done, char in zip(covered, text, strict=True))
    assert [one.start for one in found] == sorted(one.start for one in found)


def test_passages_are_about_as_long_as_they_should_be() -> None:
    text = " ".join(f"Sentence {n} has six words." for n in range(100))
    found = split_passages(text)
    assert all(PASSAGE_WORDS / 2 < len(one.text.split()) <= PASSAGE_WORDS for one in found[:-1])
    # Two of one paragraph share a sentence.
    assert all(first.start + len(first.text) > second.start for first, second in pairwise(found))


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("How many eggs does the queen lay?", "queen"),
        ("What is a starter fed with?", "starter"),
        ("Wann wurden die Brücken gebaut?", "1904"),
        # The name of the text alone.
        ("bread", "Sourdough"),
    ],
)
def test_what_a_question_is_about_comes_first(question: str, expected: str) -> None:
    (best, score), *_ = ranking().best(question, most=3)
    assert expected in best.text
    assert score > 0


def test_what_shares_no_word_is_not_found() -> None:
    assert ranking().best("Who invented the telephone?", most=5) == []
    assert ranking().best("?", most=5) == []
    assert len(ranking().best("queen starter bridge brücke", most=2)) == 2


def test_endings_and_questions_do_not_count() -> None:
    assert search_terms("Who damaged the bridges?") == search_terms("damage bridge") == ["damage", "bridge"]


def test_a_collection_without_words_is_refused() -> None:
    with pytest.raises(InputError, match="no words"):
        Ranking(split_passages("... --- ..."), ["?"])


def test_long_texts_take_linear_time() -> None:
    text = "a " * 400_000 + "\n\n" + "Word. " * 100_000
    began = time.perf_counter()
    split_passages(text)
    assert time.perf_counter() - began < 20
