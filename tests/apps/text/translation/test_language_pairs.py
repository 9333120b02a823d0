"""Ways between languages that a model learned."""

from __future__ import annotations

import pytest

from nlpkit.apps.text.translation.language_pairs import describe_pairs, find_route, foreign_script

PAIRS = (("en", "de"), ("de", "en"), ("en", "fr"), ("fr", "en"), ("en", "zh"))


@pytest.mark.parametrize(
    ("source", "target", "route"),
    [
        ("en", "de", ("de",)),
        ("de", "fr", ("en", "fr")),
        ("fr", "zh-Hant", ("en", "zh-Hant")),
        ("zh", "de", None),
        ("en", "es", None),
        (None, "de", ("de",)),
        (None, "es", None),
    ],
)
def test_ways(source: str | None, target: str, route: tuple[str, ...] | None) -> None:
    assert find_route(PAIRS, source, target) == route
    assert find_route((), source, target) == (target,)


def test_in_words() -> None:
    assert describe_pairs(PAIRS[:4]) == "English to and from German and French"
    assert describe_pairs(PAIRS[:2]) == "English to and from German"
    assert describe_pairs(PAIRS[3:]) == "French to English, English to Chinese"


def test_scripts_that_nobody_reads() -> None:
    assert foreign_script(PAIRS, "الكلب أسود") == "Arabic"
    assert foreign_script(PAIRS, "The dog is black.") is None
    assert foreign_script(PAIRS, "12:30") is None
    assert foreign_script((), "الكلب أسود") is None
