"""Commands for translators, as people type them, without a model."""

from __future__ import annotations

import json
import os
import sys
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


def test_edits_that_no_sentence_has_use_for_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("page.md").write_text("The dog\n")
    Path("r.tsv").write_text(
        "file\tid\tsource\ttranslation\tmachine\npage.md\t1.1\tThe dog\tDer Hund\tHund\npage.md\t2.1\tThe cat\tDie Katze\tKatze\n"
        "page.md\t3.1\tThe end\tEnde\tEnde\nother.md\t1.1\tA cow\tEine Kuh\tKuh\n"
    )
    assert (
        main(["translate", "-f", "page.md", "--from", "en", "--to", "de", "-o", "out.md", "--reviewed", "r.tsv"]) == 0
    )
    said = capsys.readouterr().err
    assert "the edited translation of 'The cat' (page.md, 2.1) was not used" in said
    assert "1 edited translations are of files that were not translated now: other.md" in said
    assert "The end" not in said
    assert "'The dog'" not in said


def test_likeness_without_its_library_is_said_first_and_a_review_does_without(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("one.tsv").write_text("The dog barks 1 time.\tDer Hund bellt 1-mal.\nThe dog barks once.\tEr bellt.\n")
    Path("page.md").write_text("The dog barks once.\n")
    main(["memory", "import", "m.db", "one.tsv", "--from", "en", "--to", "de"])
    Path("r.tsv").write_text("source\ttranslation\tconfidence\nThe dog barks once.\tEr bellt.\t0.5\n")
    monkeypatch.setitem(sys.modules, "rapidfuzz", None)
    arguments = ["translate", "-f", "page.md", "--from", "en", "--to", "de", "-o", "out.md", "--memory", "m.db"]
    assert main([*arguments, "--memory-like", "0.8"]) == 2
    assert "need rapidfuzz" in capsys.readouterr().err
    assert not Path("out.md").exists()
    assert main([*arguments, "--reviewed", "r.tsv", "--review", "again.tsv"]) == 0
    assert Path("again.tsv").read_text().splitlines()[1].endswith("Er bellt.\tEr bellt.\t")


def test_a_script_comes_back_from_tmx_and_need_not_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("one.tsv").write_text("The dog barks.\t狗叫。\n")
    main(["memory", "import", "m.db", "one.tsv", "--from", "en", "--to", "zh-Hans"])
    assert main(["memory", "export", "m.db", "-o", "m.tmx"]) == 0
    assert main(["memory", "import", "again.db", "m.tmx"]) == 0
    assert main(["memory", "import", "open.db", "m.tmx", "--to", "zh"]) == 0
    assert main(["memory", "import", "other.db", "m.tmx", "--to", "zh-Hant"]) == 0
    capsys.readouterr()
    for memory, counts in (("again.db", "en -> zh-Hans\t1\n"), ("open.db", "en -> zh\t1\n"), ("other.db", "")):
        assert main(["memory", "stats", memory]) == 0
        assert capsys.readouterr().out == counts
    Path("page.md").write_text("The dog barks.\n")
    for memory, language in (("again.db", "zh"), ("open.db", "zh-Hans")):
        arguments = ["translate", "-f", "page.md", "--from", "en", "--to", language, "-o", "out.md"]
        assert main([*arguments, "--memory", memory]) == 0
        assert Path("out.md").read_text() == "狗叫。\n"


def test_names_that_are_no_utf_8_are_files_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    memory, table = os.fsdecode(b"m\xff.db"), os.fsdecode(b"t\xff.tsv")
    Path(table).write_text("source\twrong\tright\nA dog\tHund\tEin Hund\nTwo dogs\tZwei\tZwei Hunde\n")
    assert main(["memory", "import", memory, table, "--from", "en", "--to", "de"]) == 0
    assert main(["learn", table, "--memory", memory, "--from", "en", "--to", "de", "--terms", table + "x"]) == 0
    assert Path(memory).exists()
    out = capsys.readouterr().out
    assert "t\ufffd.tsv: 2 new" in out
    assert main(["memory", "export", memory, "--json"]) == 0
    assert "t\ufffd.tsv" in json.loads(capsys.readouterr().out.splitlines()[0])["origin"]


@pytest.mark.parametrize("name", ["m.tsv", "m.csv", "m.tmx"])
def test_a_memory_given_out_is_taken_in_with_its_languages(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("one.tsv").write_text('source\ttarget\n#1 "choice", it is\tDie Nr.\u00a01\n')
    main(["memory", "import", "m.db", "one.tsv", "--from", "en", "--to", "de"])
    Path("two.tsv").write_text("A dog\tUn chien\n")
    main(["memory", "import", "m.db", "two.tsv", "--from", "en", "--to", "fr"])
    assert main(["memory", "export", "m.db", "-o", name]) == 0
    assert main(["memory", "import", "n.db", name]) == 0
    assert main(["memory", "import", "de.db", name, "--to", "de"]) == 0
    capsys.readouterr()
    assert main(["memory", "export", "n.db", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["source"], row["target"], row["target_lang"]) for row in rows] == [
        ('#1 "choice", it is', "Die Nr.\u00a01", "de"),
        ("A dog", "Un chien", "fr"),
    ]
    assert main(["memory", "stats", "de.db"]) == 0
    assert capsys.readouterr().out == "en -> de\t1\n"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--memory", "none.db"], "cannot be opened"),
        (["--memory-like", "0.9"], "name it with --memory"),
        (["--bilingual", "b.doc"], "must end in .html or .tsv"),
        (["--reviewed", "page.md"], "no review file"),
        (["--reviewed", "r.tsv", "--review", "./r.tsv"], "--review would write over the file that --reviewed names"),
        (["--reviewed", "r.tsv", "--bilingual", "x/../r.tsv"], "--bilingual would write over"),
        (["--memory", "m.db", "--review", "m.db"], "the file that --memory names"),
        (["--keep-terms", "k.tsv", "--bilingual", "k.tsv"], "the file that --keep-terms names"),
        (["--review", "page.md"], "the file that --file names"),
        (["--glossary", "g.tsv", "--review", "g.tsv"], "the file that --glossary names"),
        (["--review", "x/../out.md"], "the file that --output names"),
        (["--review", "b.tsv", "--bilingual", "./b.tsv"], "--bilingual would write over the file that --review names"),
        (["--keep-terms", "none.txt"], "no file"),
    ],
)
def test_mistakes_are_said_before_the_model_is_loaded(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("page.md").write_text("The dog\n")
    Path("g.tsv").write_text("dog\tHund\n")
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
