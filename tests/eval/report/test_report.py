"""Reports: nothing from outside gets in unescaped or is fetched, and the numbers are there."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlpkit.apps.show.charts import Estimate, Series, interval_chart, length_chart, nice_ticks
from nlpkit.apps.show.tables import render_markdown, render_table, show_number, show_score
from nlpkit.core.errors import ConfigError
from nlpkit.eval.report.content import build_report, report_kind
from nlpkit.eval.report.render import render_report
from nlpkit.eval.report.word_diff import MAX_TOKENS, word_diff
from nlpkit.eval.runs.predictions import describe_predictions, load_predictions
from nlpkit.eval.runs.rescoring import write_run
from nlpkit.eval.runs.run_folder import Run, load_run
from nlpkit.eval.runs.scoring import ScoringOptions

EVIL = '<script>alert(1)</script> "><img src=x onerror=alert(2)> & {{ 7*7 }} ]]> **bold** `code` | [x](javascript:1)'
VOID = {"meta", "link", "img", "br", "hr", "input", "circle", "line", "polyline"}

Make = Callable[..., Run]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def build(name: str, predictions: list[str], references: list[str], *metrics: str) -> Run:
        rows = tmp_path / f"{abs(hash(name))}.jsonl"
        rows.write_text(
            "".join(
                json.dumps({"id": f"{n}{EVIL if n == 0 else ''}", "prediction": p, "reference": r}) + "\n"
                for n, (p, r) in enumerate(zip(predictions, references, strict=True))
            )
        )
        records = load_predictions(str(rows))
        record = describe_predictions(str(rows), [], records, name=name)
        folder = tmp_path / f"run{abs(hash(name))}"
        write_run(folder, record, records, ScoringOptions(metrics=metrics or ("chrf", "bleu"), n_resamples=50))
        return load_run(folder)

    return build


class Checker(HTMLParser):
    """Notes tags, and whether they are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parse(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


def texts(n: int) -> tuple[list[str], list[str]]:
    references = [f"the dog number {i} " + "saw a house " * (1 + i % 6) + "." for i in range(n)]
    return [text.replace("house", "garden") if i % 3 else text for i, text in enumerate(references)], references


def test_html_is_whole_and_self_contained(make: Make) -> None:
    predictions, references = texts(40)
    page = render_report(
        build_report([make("one", predictions, references), make("two", references, references)]), "html"
    )
    found = parse(page)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in found.tags}
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert not any(name in attrs for _, attrs in found.tags for name in ("src", "href", "onclick", "onerror"))
    assert "prefers-color-scheme: dark" in page
    assert sum(tag == "svg" for tag, _ in found.tags) == 3
    assert "Is the difference real?" in found.text
    assert {"ins", "del"} <= {tag for tag, _ in found.tags}
    assert "100.00" in found.text


def test_texts_from_outside_stay_texts(make: Make) -> None:
    predictions, references = texts(12)
    predictions[0] = predictions[5] = EVIL
    references[5] = f"x {EVIL}"
    run = make(f"sys {EVIL}", predictions, references)
    page = render_report(build_report([run], title=EVIL), "html")
    found = parse(page)
    assert "script" not in {tag for tag, _ in found.tags}
    assert "img" not in {tag for tag, _ in found.tags}
    assert "{{ 7*7 }}" in found.text
    assert EVIL in found.text
    markdown = render_report(build_report([run], title=EVIL), "md")
    assert "<script>" not in markdown.replace("\\<script\\>", "")
    assert "**bold**" not in markdown
    assert not re.search(r"(?<!\\)\](?=\(javascript)", markdown)


def test_json_and_markdown_have_the_numbers(make: Make) -> None:
    predictions, references = texts(40)
    runs = [make("one", predictions, references), make("two", references, references)]
    report = build_report(runs, n_examples=2)
    values = json.loads(render_report(report, "json"))
    group = values["groups"][0]
    assert [system["name"] for system in group["systems"]] == ["one", "two"]
    assert group["systems"][0]["record"]["metrics"] == runs[0].metrics
    assert group["comparison"]["metrics"][0]["systems"][1]["wins"] == 26
    assert [len(examples) for examples in group["worst"]] == [2, 2]
    assert group["worst"][0][0]["score"] <= group["best"][0][0]["score"]
    markdown = render_report(report, "md")
    assert "| system | chrf | bleu |" in markdown
    assert "**garden**" in markdown
    assert runs[0].metrics["bleu"]["signature"] in markdown


def test_lower_is_better_turns_best_and_worst_round(make: Make) -> None:
    predictions, references = texts(20)
    group = build_report([make("one", predictions, references, "ter")], n_examples=2).groups[0]
    assert group.best[0][0].score == 0
    assert (group.worst[0][0].score or 0) > 0


def test_runs_on_other_data_stand_apart(make: Make) -> None:
    predictions, references = texts(20)
    report = build_report([make("a", predictions, references), make("b", predictions[:9], references[:9])])
    assert [len(group.runs) for group in report.groups] == [1, 1]
    parse(render_report(report, "html"))


def test_runs_that_cannot_be_compared_say_why(make: Make) -> None:
    predictions, references = texts(20)
    report = build_report([make("a", predictions, references, "chrf"), make("b", predictions, references, "bleu")])
    assert "no metric in common" in report.groups[0].not_compared
    assert "Not compared" in parse(render_report(report, "html")).text


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_rows_are_not_shown_twice(make: Make, n: int) -> None:
    predictions, references = texts(n)
    group = build_report([make("a", predictions, references)]).groups[0]
    shown = [example.id for example in (*group.best[0], *group.worst[0])]
    assert len(shown) == len(set(shown)) == n
    parse(render_report(build_report([make("a", predictions, references)]), "html"))


def test_kinds() -> None:
    assert [report_kind(name) for name in ("a.html", "a.MD", "b/c.json")] == ["html", "md", "json"]
    with pytest.raises(ConfigError, match=r"\.pdf"):
        report_kind("a.pdf")


class TestWordDiff:
    def test_marks(self) -> None:
        ours, theirs = word_diff("the red dog barks", "The dog barks loudly")
        assert [piece.text for piece in ours if piece.kind == "extra"] == [" red"]
        assert [piece.text for piece in theirs if piece.kind == "extra"] == [" loudly"]

    def test_chinese_is_compared_by_character(self) -> None:
        ours, _ = word_diff("我爱红猫", "我爱黑猫")
        assert [piece.text for piece in ours if piece.kind == "extra"] == ["红"]

    @given(st.text(max_size=60), st.text(max_size=60))
    def test_pieces_are_the_texts(self, left: str, right: str) -> None:
        ours, theirs = word_diff(left, right)
        assert "".join(piece.text for piece in ours) == left.strip()
        assert "".join(piece.text for piece in theirs) == right.strip()
        assert "".join(p.text for p in word_diff(left, left)[0] if p.kind != "same") == ""

    def test_long_texts_are_cut(self) -> None:
        ours, _ = word_diff("a " * 5000, "b " * 10)
        assert ours[-1].kind == "cut"
        assert sum(len(piece.text) for piece in ours) <= MAX_TOKENS + 10


class TestCharts:
    def test_intervals(self) -> None:
        svg = interval_chart([Estimate("<a>", 5, 4, 6, 0), Estimate("b", math.nan, 0, 0, 1)], unit="bleu")
        root = ET.fromstring(svg)
        assert len(root.findall(".//{http://www.w3.org/2000/svg}circle")) == 1
        assert interval_chart([], unit="x") == ""

    @given(
        st.lists(st.tuples(st.floats(1, 5000), st.floats(-100, 100)), max_size=30),
        st.floats(0, 10),
    )
    def test_every_point_is_inside(self, points: list[tuple[float, float]], error: float) -> None:
        means = tuple((x, y, 1, error) for x, y in points[:3])
        svg = length_chart([Series("a", tuple(points), means, 0)], x_label="x", y_label="y")
        if len({x for x, _ in points}) < 2:
            assert svg == ""
            return
        for circle in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}circle"):
            assert 0 <= float(circle.attrib["cx"]) <= 720
            assert 0 <= float(circle.attrib["cy"]) <= 320

    @given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
    def test_ticks_enclose(self, low: float, span: float) -> None:
        ticks = nice_ticks(low, low + span)
        assert len(ticks) >= 2
        assert ticks == sorted(set(ticks))
        tolerance = 1e-6 * max(1.0, abs(low) + span)
        assert ticks[0] <= low + tolerance
        assert ticks[-1] >= low + span - tolerance


class TestTables:
    def test_columns_line_up(self) -> None:
        lines = render_table(["a", "b"], [["é猫", "1"], ["xy", "22"]]).splitlines()
        assert lines == ["a     b", "---  --", "é猫   1", "xy   22"]

    def test_markdown_escapes_bars(self) -> None:
        assert render_markdown(["a"], [["x|y"]]).splitlines()[-1] == "| x\\|y |"

    def test_numbers(self) -> None:
        result: dict[str, Any] = {"value": 0.12345, "low": 0.1, "high": 1.5}
        assert show_score(result) == "0.123 [0.100, 1.500]"
        assert show_number(None) == show_number(math.nan) == "-"
        assert show_score({"error": "x"}) == "failed"
