"""Commands for translators, as people type them, without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import nlpkit.apps.cli.documents.command as document_command
from nlpkit.cli import main


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(document_command, "load_shown", refuse)
    monkeypatch.chdir(tmp_path)


def test_a_memory_is_filled_counted_and_given_out(capsys: pytest.CaptureFixture[str]) -> None:
    Path("one.tsv").write_text("The dog barks.\tDer Hund bellt.\n")
    assert main(["memory", "import", "m.db", "one.tsv", "--from", "en", "--to", "German"]) == 0
    assert main(["memory", "export", "m.db", "-o", "m.tmx"]) == 0
    assert main(["memory", "import", "other.db", "m.tmx", "--json"]) == 0
    assert main(["memory", "stats", "other.db"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "one.tsv: 1 new, 0 replaced, 0 known"
    assert json.loads(out[1]) == {"file": "m.tmx", "new": 1, "replaced": 0, "known": 0}
    assert out[2] == "en -> de\t1"
    assert main(["memory", "export", "m.db", "-o", "m.tsv"]) == 0
    assert Path("m.tsv").read_text().splitlines()[1] == "The dog barks.\tDer Hund bellt.\ten\tde"


def test_what_a_memory_knows_needs_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    Path("one.tsv").write_text("The dog barks 5 times.\tDer Hund bellt 5-mal.\nThe old end is here.\tEnde.\n")
    Path("page.md").write_text("# The dog barks 7 times.\n\nThe old end was here.\n")
    main(["memory", "import", "m.db", "one.tsv", "--from", "en", "--to", "de"])
    arguments = ["translate", "-f", "page.md", "--from", "en", "--to", "de", "-o", "out.md", "--memory", "m.db"]
    assert main([*arguments, "--memory-like", "0.8", "--bilingual", "b.tsv", "--review", "r.tsv"]) == 0
    assert Path("out.md").read_text() == "# Der Hund bellt 7-mal.\n\nEnde.\n"
    assert Path("b.tsv").read_text().splitlines()[1] == "page.md\tline 1\tThe dog barks 7 times.\tDer Hund bellt 7-mal."
    first = Path("r.tsv").read_text().splitlines()[1].split("\t")
    assert first[:3] == ["page.md", "2.1", "line 3"]
    assert first[4] == "memory"
    said = capsys.readouterr().err
    assert "1 sentences came from the memory, 1 more from sentences that are not quite the same" in said


def test_an_edited_review_is_merged_and_learned_from(capsys: pytest.CaptureFixture[str]) -> None:
    Path("page.md").write_text("# The dog\n\nThe **big** dog.\n")
    Path("r.tsv").write_text(
        "file\tid\tsource\ttranslation\tmachine\npage.md\t1.1\tThe dog\tDer Hund\tDer Köter\n"
        "page.md\t2.1\tThe ⟦1⟧big⟦2⟧ dog.\tDer ⟦1⟧große⟦2⟧ Hund.\tDer ⟦1⟧große⟦2⟧ Köter.\n"
    )
    arguments = ["translate", "-f", "page.md", "--from", "en", "--to", "de"]
    assert main([*arguments, "-o", "out.md", "--reviewed", "r.tsv"]) == 0
    assert Path("out.md").read_text() == "# Der Hund\n\nDer **große** Hund.\n"
    learn = ["learn", "r.tsv", "--memory", "m.db", "--from", "en", "--to", "de", "--terms", "terms.tsv"]
    assert main([*learn, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["corrections"], result["new"]) == (2, 2)
    assert [(row["source"], row["right"], row["wrong"]) for row in result["candidates"]] == [("dog", "Hund", "Köter")]
    assert Path("terms.tsv").read_text().splitlines()[1] == "dog\tHund"
    assert main([*arguments, "-o", "again.md", "--memory", "m.db"]) == 0
    assert Path("again.md").read_text() == Path("out.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--memory", "none.db"], "cannot be opened"),
        (["--memory-like", "0.9"], "name it with --memory"),
        (["--bilingual", "b.doc"], "must end in .html or .tsv"),
        (["--reviewed", "page.md"], "no review file"),
        (["--reviewed", "r.tsv", "--review", "r.tsv"], "write over"),
        (["--keep-terms", "none.txt"], "no file"),
    ],
)
def test_mistakes_are_said_before_the_model_is_loaded(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("page.md").write_text("The dog\n")
    assert main(["translate", "-f", "page.md", "--to", "de", "-o", "out.md", *arguments]) == 2
    assert why in capsys.readouterr().err
    assert not Path("out.md").exists()


def test_tools_are_for_documents(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", "The dog", "--to", "de", "--review", "r.tsv"]) == 2
    assert "--review is for documents" in capsys.readouterr().err


def test_what_can_only_be_read_is_not_translated(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.eml").write_text("Subject: Hi\n\nText\n")
    assert main(["translate", "-f", "a.eml", "--to", "de", "-o", "out.eml"]) == 2
    assert "can be read but not written" in capsys.readouterr().err


def test_nothing_to_learn_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    Path("c.tsv").write_text("a\tb\tb\n")
    assert main(["learn", "c.tsv", "--memory", "m.db", "--from", "en", "--to", "de"]) == 2
    assert "Nothing is corrected" in capsys.readouterr().err
