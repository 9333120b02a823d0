"""Parting corrections, and the rule by which an adapter is kept."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from nlpkit.apps.training.corrections import (
    FEWEST,
    MOST,
    MOST_HELD_OUT,
    Pair,
    everyday_languages,
    everyday_pairs,
    judge,
    part_corrections,
)
from nlpkit.core.errors import InputError
from nlpkit.eval.statistics.measure import compare_pairs

WORDS = ("river", "stone", "cloud", "paper", "glass", "horse", "table", "light", "green", "train")


def sentence(number: int) -> str:
    """A sentence of words alone, another for each number."""
    return " ".join(WORDS[int(digit)] for digit in str(number))


def corrections(count: int) -> list[Pair]:
    return [Pair(sentence(number), f"rechts {sentence(number)}") for number in range(count)]


def test_a_fifth_is_held_out_and_nothing_is_on_both_sides() -> None:
    lesson = part_corrections(corrections(300))
    assert (len(lesson.learned), len(lesson.held_out), lesson.left_out) == (240, 60, 0)
    assert not {pair.source for pair in lesson.learned} & {pair.source for pair in lesson.held_out}


def test_sentences_that_differ_by_numbers_alone_are_on_one_side() -> None:
    pairs = [Pair(f"{sentence(n)} {year}.", f"{n} {year}") for n in range(150) for year in (1990, 2020)]
    lesson = part_corrections(pairs)
    texts = [{pair.source.rsplit(" ", 1)[0] for pair in side} for side in (lesson.learned, lesson.held_out)]
    assert not texts[0] & texts[1]
    assert len(lesson.held_out) == 60


def test_a_longer_list_holds_out_what_was_held_out_before() -> None:
    before, after = part_corrections(corrections(300)), part_corrections(corrections(400))
    assert {pair.source for pair in before.held_out} - {pair.source for pair in after.learned}
    shared = {pair.source for pair in before.held_out} & {pair.source for pair in after.learned}
    assert len(shared) < len(before.held_out) / 3


def test_the_latest_correction_of_a_sentence_counts() -> None:
    pairs = [Pair(pair.source, "early") for pair in corrections(250)] + corrections(250)
    lesson = part_corrections(pairs)
    assert all(pair.target.startswith("rechts") for pair in (*lesson.learned, *lesson.held_out))
    assert lesson.left_out == 250


def test_many_are_not_all_learned_but_the_latest() -> None:
    lesson = part_corrections(corrections(2000))
    assert (len(lesson.learned), len(lesson.held_out)) == (MOST, MOST_HELD_OUT)
    assert lesson.learned[-1] == corrections(2000)[-1]


def test_too_few_are_refused_and_everyday_sentences_are_not_learned() -> None:
    with pytest.raises(
        InputError, match=f"takes {FEWEST} corrections of different sentences at least, and there are 199"
    ):
        part_corrections(corrections(199))
    everyday = list(everyday_pairs("en", "de"))
    lesson = part_corrections([*everyday, *corrections(200)])
    assert not set(everyday) & {*lesson.learned, *lesson.held_out}


def test_everyday_sentences_are_there_in_each_pair_of_their_languages() -> None:
    codes = everyday_languages()
    assert {"en", "de", "fr", "es"} <= set(codes)
    for code in codes:
        pairs = everyday_pairs("en", code) if code != "en" else everyday_pairs("de", "en")
        assert len(pairs) == 60
        assert all(pair.source.strip() and pair.target.strip() for pair in pairs)
        assert len({pair.target for pair in pairs}) == 60
    assert everyday_pairs("en", "zh") == ()


@dataclass(frozen=True)
class Made:
    difference: float
    p_value: float = 0.001
    baseline: float = 50.0

    @property
    def value(self) -> float:
        return self.baseline + self.difference


@pytest.mark.parametrize(
    ("held_out", "everyday", "kept"),
    [
        (Made(4.0), Made(0.5), True),
        (Made(4.0), Made(-0.5, 0.4), True),
        (Made(4.0), Made(-0.5, 0.01), False),
        (Made(4.0), Made(-1.5, 0.4), False),
        (Made(4.0, 0.2), Made(0.5), False),
        (Made(4.0, 0.04), Made(0.5), False),
        (Made(-4.0), Made(0.5), False),
        (Made(0.0, 1.0), Made(0.5), False),
    ],
)
def test_what_is_better_and_no_worse_elsewhere_is_kept(held_out: Made, everyday: Made, kept: bool) -> None:
    verdict = judge(held_out, everyday)
    assert verdict.kept is kept
    assert verdict.half is (not kept and held_out.difference > 0 and everyday.difference < 0)


def test_predictions_are_compared_on_the_same_segments() -> None:
    references = [(f"the {word} is here today",) for word in WORDS * 4]
    right = [texts[0] for texts in references]
    found = compare_pairs("chrf", ["nothing of it"] * 40, right, references)
    assert found.value > found.baseline
    assert found.p_value < 0.05
    assert compare_pairs("chrf", right, right, references).p_value == 1
    with pytest.raises(InputError, match="must be as many"):
        compare_pairs("chrf", right[:-1], right, references)
