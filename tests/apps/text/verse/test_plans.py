"""Plans of forms, and what is wrong with lines that do not keep them."""

from __future__ import annotations

import pytest

from nlpkit.apps.text.verse.plans import PLANS, faults, form_faults, plan_of

QUATRAIN = ["The moon is high above the sea", "And silver runs the quiet night", "The wind is singing to me", ""]


def test_plans_have_the_lines_of_their_forms() -> None:
    assert {name: len(plan) for name, plan in PLANS.items()} == {
        "haiku": 3, "limerick": 5, "quatrain": 4, "couplets": 6, "sonnet": 14,
    }  # fmt: skip
    assert "".join(line.rhyme for line in PLANS["sonnet"]) == "ABABCDCDEFEFGG"
    assert [place for place, line in enumerate(PLANS["sonnet"]) if line.stanza] == [4, 8, 12]
    assert [line.initial for line in plan_of("acrostic", acrostic="no-on")] == ["N", "O", "O", "N"]
    # As the check of an acrostic spells it.
    assert [line.initial for line in plan_of("acrostic", acrostic="Spaß")] == ["S", "P", "A", "S", "S"]
    assert plan_of("story") == ()


@pytest.mark.parametrize(
    ("last", "wrong"),
    [
        ("And all the stars are burning bright", []),
        ("And all the stars are burning", ["line 4 does not rhyme: 'burning' and 'night'"]),
        ("And all the stars are burning in the night", ["10 syllables, not 7 to 9", "'night' and 'night'"]),
    ],
)
def test_faults_are_named(last: str, wrong: list[str]) -> None:
    found = faults([*QUATRAIN[:3], last], PLANS["quatrain"])
    assert len(found) == len(wrong)
    assert all(part in whole for part, whole in zip(wrong, found, strict=True))


def test_the_number_of_lines_is_the_first_fault() -> None:
    assert faults(["one line"], PLANS["haiku"]) == ["1 lines instead of 3"]


def test_initials() -> None:
    plan = plan_of("acrostic", acrostic="ab")
    assert faults(["“A morning in the spring", "But all in vain"], plan) == []
    assert faults(["A morning in the spring", "It is in vain"], plan) == ["line 2 does not begin with B"]


def test_other_rhyme_schemes_of_a_form_hold_too() -> None:
    lines = [
        "The moon is high above the sea",
        "The wind is singing songs to me",
        "And silver runs the quiet night",
        "And all the stars are burning bright",
    ]
    assert form_faults(lines, "quatrain") == []
    assert form_faults([lines[0], lines[2], lines[1], "The end of this is all too near"], "quatrain") != []
