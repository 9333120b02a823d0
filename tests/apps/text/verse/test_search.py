"""The search for lines: what comes out keeps its plan, whatever the model offers."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import pytest

from nlpkit.apps.text.verse.plans import PLANS, LinePlan, faults, plan_of
from nlpkit.apps.text.verse.search import LineRequest, LineTry, VerseSearch, layout

START = ["the", "my", "a", "her", "one", "his", "old", "ever"]
MIDDLE = [
    "silver",
    "moon",
    "is",
    "quiet",
    "river",
    "over",
    "under",
    "golden",
    "and",
    "garden",
    "sleeping",
    "dark",
    "of",
]
END_WORDS = (
    "night light bright sight white flight might sea me free tree three key we day way gray stay play may say rain train "
    "plain pain lane main snow go low know slow show throw hill still will fill till kill deep sleep keep steep creep "
    "heap sing ring king bring spring thing"
)
END = END_WORDS.split()


class ScriptedWriter:
    """Writes lines of random words that match the pattern, the likelier the shorter."""

    def __init__(self, *, offers: bool = True) -> None:
        self.requests: list[LineRequest] = []
        self.offers = offers

    def write(self, requests: Sequence[LineRequest]) -> list[list[LineTry]]:
        self.requests += requests
        return [self._tries(one) for one in requests]

    def _tries(self, request: LineRequest) -> list[LineTry]:
        random_ = random.Random(request.seed)
        pattern, found = re.compile(request.pattern), []
        for _ in range(4000):
            ends = request.favoured or END
            words = [random_.choice(START), *random_.choices(MIDDLE, k=random_.randint(1, 6)), random_.choice(ends)]
            if random_.random() < 0.5:
                words[1] = "keyword"
            line = " ".join(words)
            if request.pattern.startswith(" ?[") and not pattern.fullmatch(f"{line}\n"):
                line = pattern.pattern[3] + line[1:]
            if pattern.fullmatch(f"{line}\n") or pattern.fullmatch(f"{line}.\n"):
                found.append(LineTry(text=line, mean_logprob=-len(words) / 4, min_logprob=-2.0))
            if len(found) == request.tries:
                break
        return found if self.offers else []


def search(plan: tuple[LinePlan, ...], writer: ScriptedWriter, **options: object) -> VerseSearch:
    given: dict[str, object] = {"seed": 1, "is_common": lambda word: word in END, **options}
    return VerseSearch(plan=plan, write=writer.write, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", PLANS)
def test_what_is_found_keeps_its_plan(form: str) -> None:
    verses = search(PLANS[form], ScriptedWriter()).run()
    assert faults(verses[0].lines, PLANS[form]) == []
    assert [verse.score for verse in verses] == sorted((verse.score for verse in verses), reverse=True)


def test_the_search_is_repeatable_and_the_seed_counts() -> None:
    one, same, other = (
        search(PLANS["haiku"], ScriptedWriter(), seed=seed).run()[0].lines for seed in (1, 1, 2)
    )  # fmt: skip
    assert one == same
    assert one != other


def test_keywords_come_in() -> None:
    writer = ScriptedWriter()
    verse = search(PLANS["haiku"], writer, keywords=("keyword",)).run()[0]
    assert "keyword" in " ".join(verse.lines)
    assert verse.unused == ()


def test_initials_are_asked_for() -> None:
    plan = plan_of("acrostic", acrostic="ox")
    writer = ScriptedWriter()
    search(plan, writer).run()
    assert writer.requests[0].pattern.startswith(" ?[Oo]")


def test_later_stanzas_are_set_apart() -> None:
    writer = ScriptedWriter()
    verse = search(PLANS["sonnet"], writer).run()[0]
    longest = max(writer.requests, key=lambda one: len(one.before))
    assert [place for place, line in enumerate(longest.before) if not line] == [4, 9, 14]
    assert [place for place, line in enumerate(layout(verse.lines, PLANS["sonnet"]).split("\n")) if not line] == [
        4,
        9,
        14,
    ]


def test_a_model_without_lines_ends_the_search() -> None:
    writer = ScriptedWriter(offers=False)
    verses = search(PLANS["sonnet"], writer).run()
    assert verses[0].lines == ()
    assert len(writer.requests) <= 10


def test_lines_begin_with_capitals() -> None:
    assert layout(["an old pond", "'tis still"], PLANS["haiku"]) == "An old pond\n'tis still"
