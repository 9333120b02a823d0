"""Extracts keep what is asked for, and say what the text is about."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlpkit.apps.text.extracts.choice import ALIKE, WEIGHTS, extract, worth
from nlpkit.apps.text.extracts.features import NAMES, features, says_little
from nlpkit.apps.text.extracts.sentences import common_words, find_sentences

BRIDGE = (
    "Good morning! The old bridge over the river will be closed for repairs from Monday. "
    "It was built in 1904. Engineers found cracks in two pillars of the bridge, and the city decided to close the "
    "bridge to all cars at once. Buses will use the tunnel. Some people like the tunnel. "
    "The repairs of the bridge will take nine months and cost two million euros. Birds sing."
)


def test_the_weights_are_those_of_the_features() -> None:
    assert tuple(WEIGHTS) == NAMES
    found = find_sentences(BRIDGE)
    rows = features(found)
    assert [len(row) for row in rows] == [len(NAMES)] * len(found)
    assert all(0 <= value <= 1.01 for row in rows for value in row)


def test_what_a_text_is_about_comes_before_asides() -> None:
    chosen = {one.text for one in extract(BRIDGE, sentences=3).sentences}
    assert chosen & {"Good morning!", "Birds sing.", "Some people like the tunnel.", "It was built in 1904."} == set()


def test_greetings_do_not_fill_up_what_is_left() -> None:
    text = "Hi all,\n\nwe signed the lease for the new office on Friday. Good. It has room for ninety people.\n\nBest regards, Anna"
    assert [one.text for one in extract(text, sentences=9, words=30).sentences] == [
        "we signed the lease for the new office on Friday.",
        "It has room for ninety people.",
    ]
    assert [one.text for one in extract("Hi all,\n\nBest, Anna", sentences=1).sentences] != []


def test_sentences_that_say_the_same_are_said_once() -> None:
    text = "The bridge over the river is closed for repairs. " * 3 + "Buses take the new tunnel instead of the road."
    assert [one.text for one in extract(text, sentences=2).sentences] == [
        "The bridge over the river is closed for repairs.",
        "Buses take the new tunnel instead of the road.",
    ]


@given(
    st.lists(st.sampled_from([*BRIDGE.split(), "Stop.", "\n\n", "A: b\n", "x" * 50]), max_size=60),
    st.integers(1, 8),
    st.one_of(st.none(), st.integers(1, 40)),
)
def test_limits_are_kept_and_order_too(pieces: list[str], sentences: int, words: int | None) -> None:
    text = " ".join(pieces)
    found = extract(text, sentences=sentences, words=words)
    assert len(found.sentences) <= sentences
    assert found.total == len(find_sentences(text))
    if words is not None:
        assert sum(len(one.words) for one in found.sentences) <= words
    assert bool(found.sentences) == bool(found.total) or words is not None
    starts = [one.start for one in found.sentences]
    assert starts == sorted(starts)


def test_the_choice_is_the_plain_greedy_one() -> None:
    """Bounds spare work; they change nothing."""
    text = f"{BRIDGE} The tunnel of the city costs two cars. {BRIDGE} Engineers like birds, and the old river too."
    found, values = find_sentences(text), worth(find_sentences(text))
    contents = [frozenset(one.words) - common_words(found) for one in found]
    chosen: list[int] = []
    while len(chosen) < 6:
        said = set().union(*(contents[place] for place in chosen))

        def brings(place: int, said: set[str] = said) -> tuple[float, int]:
            known = len(contents[place] & said) / len(contents[place]) if contents[place] else float(bool(said))
            return values[place] - ALIKE * known, -place

        telling = [place for place in range(len(found)) if place not in chosen and not says_little(found[place])]
        left = [place for place in telling if contents[place] - said or not chosen]
        chosen.append(max(left, key=brings))
    assert [one.start for one in extract(text, sentences=6).sentences] == sorted(found[i].start for i in chosen)


@pytest.mark.parametrize("text", ["", " \n\n ", "...", "- \n- \n"])
def test_nothing_is_made_of_nothing(text: str) -> None:
    assert extract(text, sentences=3).sentences == ()


def test_a_book_takes_no_time() -> None:
    text = "\n\n".join(f"Chapter {n}. {BRIDGE}" for n in range(1200))
    began = time.perf_counter()
    # All chapters say the same.
    assert 0 < len(extract(text, sentences=20).sentences) <= 7
    assert time.perf_counter() - began < 20
