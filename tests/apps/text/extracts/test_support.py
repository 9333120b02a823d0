"""What a summary invents is found."""

from __future__ import annotations

import pytest

from nlpkit.apps.text.extracts.support import unsupported

SOURCE = "Anna will meet Bob on 14 March in Berlin. The price is 1,200 euros. Two guests pay."


@pytest.mark.parametrize(
    ("summary", "invented"),
    [
        ("Anna meets Bob in Berlin on 14 March.", []),
        ("The price is 1200 euros for 2 guests.", []),
        ("Anna's guests pay.", []),
        ("Anna meets Tom on 15 March.", ["15", "Tom"]),
        ("Tom meets Anna.", ["Tom"]),
        ("The guests do not pay.", ["not"]),
        ("The guests don't pay.", ["don't"]),
        ("Three guests pay in Paris.", ["Three", "Paris"]),
        ("It costs 12 euros.", ["12"]),
        ("", []),
    ],
)
def test_numbers_names_and_negations(summary: str, invented: list[str]) -> None:
    assert unsupported(summary, SOURCE) == invented


def test_a_negation_of_the_source_may_be_said_in_another_way() -> None:
    assert unsupported("They never pay.", "They do not pay.") == []
