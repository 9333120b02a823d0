"""Rows mixed from parallel files."""

from __future__ import annotations

import gzip
import json
import lzma
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nlpkit.apps.training.mixing import (
    MASKS,
    MixPlan,
    PairSource,
    add_typo,
    detokenize,
    letters,
    load_plan,
    make_noisy,
    mask_pair,
    mix,
)
from nlpkit.core.errors import ConfigError, InputError

EN = [
    "The house is old and small.",
    "Bread is on the table now.",
    "Nobody has seen the grey cat.",
    "Yes.",
    "Save as...",
]
DE = ["Das Haus ist alt und klein.", "Brot liegt jetzt auf dem Tisch.", "Niemand hat die graue Katze gesehen.", "Ja.",
      "Speichern unter ..."]  # fmt: skip
QUIET = {"no_stop": 0.0, "lower": 0.0, "typos": 0.0, "masks": 0.0}


def _tsv(path: Path, pairs: list[tuple[str, str, str]]) -> None:
    with lzma.open(path, "wt", encoding="utf-8") as stream:
        stream.writelines("\t".join(pair) + "\n" for pair in pairs)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _tsv(
        tmp_path / "pairs.en-de.tsv.xz",
        [(en, de, "a" if i < 3 else "b") for i, (en, de) in enumerate(zip(EN, DE, strict=True))],
    )
    return tmp_path


def _rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def _plan(**values: Any) -> MixPlan:
    source = values.pop("source", {})
    made = PairSource(path="pairs.en-de.tsv.xz", languages=("en", "de"), **source)
    return MixPlan(sources=(made,), **{**QUIET, **values})


def test_each_pair_is_learned_both_ways(folder: Path) -> None:
    report = mix(_plan(), folder, folder / "rows.jsonl.gz")
    rows = _rows(folder / "rows.jsonl.gz")
    pairs = {(row["source_lang"], row["source"], row["target"]) for row in rows}
    assert pairs == {("en", en, de) for en, de in zip(EN, DE, strict=True)} | {
        ("de", de, en) for en, de in zip(EN, DE, strict=True)
    }
    assert {row["target_lang"] for row in rows} == {"en", "de"}
    assert report.rows == {"en-de": 5, "de-en": 5}
    again = folder / "again.jsonl.gz"
    mix(_plan(), folder, again)
    assert _rows(again) == rows
    mix(_plan(seed=2), folder, again)
    assert _rows(again) != rows


def test_held_out_sentences_are_left_out_whichever_side_and_file_they_stand_in(folder: Path) -> None:
    row = {"source": "the HOUSE is old, and small!", "target": "Etwas ganz anderes steht hier."}
    other = {"source": "Something. Nobody else.", "target": "Erstes. Niemand hat die graue Katze gesehen."}
    short = {"source": "Yes.", "target": "Ja."}
    (folder / "dev.jsonl").write_text("".join(json.dumps(r) + "\n" for r in (row, other, short)), "utf-8")
    report = mix(_plan(held_out=("dev.jsonl",)), folder, folder / "rows.jsonl.gz")
    assert {row["source"] for row in _rows(folder / "rows.jsonl.gz") if row["source_lang"] == "en"} == {
        EN[1], "Yes.", EN[4],
    }  # fmt: skip
    assert report.refused == {"held out": 2}


def test_sources_are_thinned_and_doubled_by_weight(tmp_path: Path) -> None:
    pairs = [
        (f"A sentence with the number {i} here.", f"Ein Satz mit der Zahl {i} hier.", "ab"[i % 2]) for i in range(600)
    ]
    _tsv(tmp_path / "pairs.en-de.tsv.xz", pairs)
    plan = _plan(source={"weights": {"a": 0.25, "b": 2.0}}, both=False)
    mix(plan, tmp_path, tmp_path / "rows.jsonl.gz")
    counts = Counter(int("".join(filter(str.isdigit, row["source"]))) % 2 for row in _rows(tmp_path / "rows.jsonl.gz"))
    assert 50 < counts[0] < 100
    assert counts[1] == 600
    capped = _plan(source={"cap": 30}, both=False)
    mix(capped, tmp_path, tmp_path / "rows.jsonl.gz")
    assert 30 < len(_rows(tmp_path / "rows.jsonl.gz")) < 90


def test_pairs_that_teach_nothing_are_left_out(tmp_path: Path) -> None:
    bad = [
        ("12 34", "12 34", "x"),
        ("word " * 100, "Wort " * 100, "x"),
        (
            "A short one, this is.",
            "Ein sehr langer Satz, der mit dem kurzen gar nichts mehr zu tun haben kann, und mehr.",
            "x",
        ),
        ("This one was copied as it is.", "This one was copied as it is.", "x"),
        ("Tarball", "Tarball taːbɔːl", "x"),
        ("The same.", "Dasselbe.", "x"),
        ("The same.", "Dasselbe.", "y"),
    ]
    _tsv(tmp_path / "pairs.en-de.tsv.xz", bad)
    report = mix(_plan(), tmp_path, tmp_path / "rows.jsonl.gz")
    assert report.refused == {"letters": 1, "length": 1, "ratio": 1, "copied": 1, "phonetic": 1, "seen": 1}
    assert len(_rows(tmp_path / "rows.jsonl.gz")) == 2


def test_paragraphs_are_cut_where_both_sides_have_as_many_sentences(tmp_path: Path) -> None:
    rows = [
        {"source": "It rains. We stay.", "target": "Es regnet. Wir bleiben."},
        {"source": "It rains. We stay.", "target": "Es regnet, wir bleiben."},
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    source = PairSource(path="p.jsonl", languages=("en", "de"), split=True)
    mix(MixPlan(sources=(source,), both=False, **QUIET), tmp_path, tmp_path / "rows.jsonl.gz")
    found = {frozenset((row["source"], row["target"])) for row in _rows(tmp_path / "rows.jsonl.gz")}
    assert found == {
        frozenset(("It rains.", "Es regnet.")),
        frozenset(("We stay.", "Wir bleiben.")),
        frozenset(("It rains. We stay.", "Es regnet, wir bleiben.")),
    }


def test_what_both_sides_share_is_masked_in_the_order_of_the_source() -> None:
    source = "Call www.example.org or write to a.b@example.org about version 10.2.33 of get_name."
    target = "Schreiben Sie wegen 10.2.33 von get_name an a.b@example.org oder siehe www.example.org."
    one, other = mask_pair(source, target, 0.1)
    assert one == "Call ⟦1⟧ or write to ⟦2⟧ about version ⟦3⟧ of ⟦4⟧."
    assert other == "Schreiben Sie wegen ⟦3⟧ von ⟦4⟧ an ⟦2⟧ oder siehe ⟦1⟧."
    later, _ = mask_pair(source, target, 0.999)
    assert MASKS[7] in later
    assert MASKS[0] not in later
    for one, other in (
        ("Two 10,000 and 10,000.", "Zwei 10,000 und 10,000."),
        ("Use get_name and set_name.", "get_name verwenden."),
        ("In 1998 it was 5.", "1998 waren es 5."),
    ):
        assert mask_pair(one, other, 0.1) == (one, other)


def test_noise_changes_the_source_and_leaves_the_target_right() -> None:
    plan = MixPlan(sources=(PairSource(path="x", languages=("en", "de")),), **{**QUIET, "lower": 1.0})
    assert make_noisy("The Old House.", "Das alte Haus.", plan) == ("the old house.", "Das alte Haus.")
    plan = MixPlan(sources=plan.sources, **{**QUIET, "no_stop": 1.0})
    assert make_noisy("The Old House.", "Das alte Haus.", plan) == ("The Old House", "Das alte Haus")
    assert make_noisy("Really?", "Wirklich?", plan) == ("Really?", "Wirklich?")
    plan = MixPlan(sources=plan.sources, **{**QUIET, "typos": 1.0})
    noisy, clean = make_noisy("Nobody remembers yesterday.", "Niemand erinnert sich an gestern.", plan)
    assert noisy != "Nobody remembers yesterday."
    assert clean == "Niemand erinnert sich an gestern."


def test_typos_are_slips_inside_long_words() -> None:
    text = "We remember it."
    found = {add_typo(text, i / 97) for i in range(97)}
    assert len(found) > 10
    for typo in found:
        assert typo.startswith("We r")
        assert typo.endswith("r it.")
        assert abs(len(typo) - len(text)) <= 1
    assert add_typo("It is so.", 0.5) == "It is so."


def test_tokenized_corpora_are_undone() -> None:
    assert detokenize("It is &apos;s turn , isn 't it ( yes ) ? no @-@ one") == "It is's turn, isn't it (yes)? no-one"
    assert letters("Das Haus, IST alt!") == letters("das haus ist ALT")


def test_plans_are_checked(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "plan.toml"
    good = '[[source]]\npath = "pairs.en-de.tsv.xz"\nlanguages = ["en", "de"]\n'
    path.write_text("seed = 3\n" + good, "utf-8")
    assert load_plan(str(path)).sources[0].languages == ("en", "de")
    for text, message in (
        ("sed = 3\n" + good, "seed"),
        (good + "wieght = 1\n", "weight"),
        ("typos = 1.5\n" + good, "from 0 to 1"),
        ("seed = 1\n", r"at least one \[\[source\]\]"),
        ("[[source]]\npath = 'x'\n", "lacks an option"),
    ):
        path.write_text(text, "utf-8")
        with pytest.raises(ConfigError, match=message):
            load_plan(str(path))
    with pytest.raises(InputError, match="No file fits nothing"):
        mix(_plan(held_out=("nothing",)), folder, folder / "rows.jsonl.gz")


@pytest.mark.parametrize("content", [b"not xz at all", b""])
def test_damaged_files_are_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "pairs.en-de.tsv.xz").write_bytes(content)
    with pytest.raises(InputError, match=r"pairs\.en-de\.tsv\.xz"):
        mix(_plan(), tmp_path, tmp_path / "rows.jsonl.gz")


def test_the_command_says_what_it_mixed(folder: Path, cli: Callable[..., Any]) -> None:
    plan = folder / "plan.toml"
    plan.write_text('[[source]]\npath = "pairs.en-de.tsv.xz"\nlanguages = ["en", "de"]\n', "utf-8")
    result = cli("mix", str(plan), "--data", str(folder), "-o", str(folder / "rows.jsonl.gz"))
    assert result.code == 0
    assert "10 rows" in result.err
    assert len(_rows(folder / "rows.jsonl.gz")) == 10
