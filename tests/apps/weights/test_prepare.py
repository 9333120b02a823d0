"""Training data of the shipped adapters: what is held out stays out, and what is made up is what it says it is."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from nlpkit.apps.weights import prepare
from nlpkit.apps.weights.prepare import HELD_OUT_ARTICLES, chance

Write = Callable[[str, Iterable[dict[str, Any]]], None]


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    return tmp_path / "corpora"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def write(corpora: Path) -> Write:
    def to(name: str, rows: Iterable[dict[str, Any]]) -> None:
        path = corpora / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())

    return to


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def squad(articles: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{article}.{paragraph}.{question}",
            "title": f"Article {article}",
            "context": f"Paragraph {paragraph} of article {article} names answer0p{paragraph} and answer1p{paragraph}.",
            "question": f"What is {question} in paragraph {paragraph} of {article}?",
            "answers": [f"answer{question}p{paragraph}"],
        }
        for article in range(articles)
        for paragraph in range(4)
        for question in range(2)
    ]


def test_questions_of_held_out_articles_are_not_learned(
    corpora: Path, output: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("squad_v1.1/train.jsonl.gz", squad(80))
    monkeypatch.setattr(prepare, "DEV_QUESTIONS", 10)
    prepare.qa(corpora, output)
    train, dev, test, unanswerable = (
        rows_of(output / f"qa.{name}.jsonl") for name in ("train", "dev", "test", "dev-unanswerable")
    )
    assert train
    assert len(dev) == 10
    assert test
    assert unanswerable
    assert not {row["id"] for row in dev} & {row["id"] for row in test}
    dev = [*dev, *test]
    held_out = {f"{article}" for article in range(80) if chance("article", f"Article {article}") < HELD_OUT_ARTICLES}
    assert {row["id"].split(".")[0] for row in dev} == held_out
    assert len(dev) == 8 * len(held_out)
    assert {row["id"].split(".")[0] for row in unanswerable} <= held_out
    assert not {row["id"].split(".")[0] for row in train} & held_out
    assert not {row["context"] for row in train} & {row["context"] for row in [*dev, *unanswerable]}


def test_a_question_without_an_answer_is_of_another_paragraph_of_its_article(
    corpora: Path, output: Path, write: Write
) -> None:
    rows = squad(80)
    write("squad_v1.1/train.jsonl.gz", rows)
    answers = {row["question"]: row for row in rows}
    prepare.qa(corpora, output)
    made = [row for row in rows_of(output / "qa.train.jsonl") if not row["answers"]]
    assert 0.3 < len(made) / (76 * 4) < 0.9
    for row in made:
        source = answers[row["question"]]
        assert source["context"] != row["context"]
        assert source["id"].split(".")[0] == row["id"].split(".")[0]
        assert source["answers"][0] not in row["context"]


def test_some_questions_are_learned_the_other_way_beside_those_of_their_paragraph(
    corpora: Path, output: Path, write: Write
) -> None:
    write("squad_v1.1/train.jsonl.gz", squad(80))
    prepare.qa(corpora, output)
    train = rows_of(output / "qa-both.train.jsonl")
    assert [row for row in train if "inverse" not in row] == rows_of(output / "qa.train.jsonl")
    plain = {row["id"]: row for row in train if "inverse" not in row}
    inverse = [row for row in train if "inverse" in row]
    assert 0.3 < len(inverse) / len(plain) < 0.5
    for row in inverse:
        assert {**plain[row["id"].removesuffix("-inverse")], "id": row["id"], "inverse": 1} == row
    contexts = [row["context"] for row in train]
    changes = sum(before != after for before, after in itertools.pairwise(contexts))
    assert changes == len(set(contexts)) - 1
    for name in ("train", "dev", "test", "dev-unanswerable"):
        assert not any("inverse" in row for row in rows_of(output / f"qa.{name}.jsonl"))


PAIRS = [
    {
        "source": f"The tree number {n} is old.",
        "target": f"Der Baum Nummer {n} ist alt.",
        "source_lang": "en",
        "target_lang": "de",
    }
    for n in range(10, 40)
]


def test_translations_of_development_sentences_are_not_learned(corpora: Path, output: Path, write: Write) -> None:
    for corpus in ("tatoeba_anki", "debian_ddtp"):
        write(f"{corpus}/dev.en-de.jsonl", PAIRS[:3] if corpus == "tatoeba_anki" else [])
        write(f"{corpus}/train.en-de.jsonl.gz", PAIRS if corpus == "tatoeba_anki" else [])
    write("debian_ddtp/dev.en-fr.jsonl", [])
    write("debian_ddtp/train.en-fr.jsonl.gz", [])
    # In another corpus, and with the other side changed: still a sentence of the development file.
    leak = {"source": PAIRS[1]["source"].upper(), "target": "Ein alter Baum, die Elf.", "target_lang": "de"}
    write("opennmt_sample/train.en-de.jsonl.gz", [leak, PAIRS[20]])
    prepare.translation(corpora, output)
    tatoeba, wmt = (rows_of(output / f"translation.{name}.train.jsonl") for name in ("tatoeba", "wmt"))
    assert len(tatoeba) == 2 * 27
    assert len(wmt) == 2
    learned = {row[side] for row in tatoeba for side in ("source", "target")}
    assert not learned & {row[side] for row in PAIRS[:3] for side in ("source", "target")}
    assert {(row["source_lang"], row["target_lang"]) for row in tatoeba} == {("en", "de"), ("de", "en")}


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("A short sentence about the weather here.", "Ein Satz."),
        ("Nothing was translated in this row.", "Nothing was translated in this row."),
        ("One line\nand another.", "Eine Zeile und noch eine."),
        (
            "The package was first released in 1998 and has 25 authors from many countries.",
            "Das Paket wurde zuerst 1997 veröffentlicht und hat 25 Autoren aus vielen Ländern.",
        ),
        (
            "This program shows the time, the weather and the news of the day on your desktop.",
            "Ce programme affiche l'heure, la météo et les nouvelles du jour sur votre bureau.",
        ),
    ],
    ids=["length", "copy", "lines", "numbers", "language"],
)
def test_pairs_that_do_not_match_are_left_out(
    corpora: Path, output: Path, write: Write, source: str, target: str
) -> None:
    for name in ("tatoeba_anki", "debian_ddtp"):
        write(f"{name}/dev.en-de.jsonl", [])
        write(f"{name}/train.en-de.jsonl.gz", [])
    write("debian_ddtp/dev.en-fr.jsonl", [])
    write("debian_ddtp/train.en-fr.jsonl.gz", [])
    write("opennmt_sample/train.en-de.jsonl.gz", [{"source": source, "target": target, "target_lang": "de"}, PAIRS[0]])
    prepare.translation(corpora, output)
    assert [row["source"] for row in rows_of(output / "translation.wmt.train.jsonl")] == [
        PAIRS[0]["source"],
        PAIRS[0]["target"],
    ]


def test_a_synopsis_is_learned_twice_at_most(corpora: Path, output: Path, write: Write) -> None:
    document = "A library of functions that many programs use, for reading and writing of files on disks. Number {}."
    write(
        "debian_synopsis/train.jsonl.gz",
        [{"document": document.format(n), "summary": "debugging symbols"} for n in range(9)]
        + [{"document": document.format("ten"), "summary": "what is held out"}],
    )
    write("debian_synopsis/dev.jsonl", [{"document": "Another text.", "summary": "What is  held out"}])
    write("scitldr_a/train.jsonl.gz", [])
    write("scitldr_a/dev.jsonl", [])
    write("squad_v1.1/train.jsonl.gz", [])
    prepare.summarization(corpora, output)
    assert [row["summary"] for row in rows_of(output / "summarization.debian.train.jsonl")] == ["debugging symbols"] * 2


REST = "Its bridges cross the river in many places. Both river and bridges were painted often."


@pytest.mark.parametrize(
    ("first", "summary"),
    [
        ("The old city lies on both sides of a river with many bridges, which were built of stone.",
         "The old city lies on both sides of a river with many bridges."),
        ("In 1920, the city (then a village) built bridges across the river.",
         "The city built bridges across the river."),
        ("The river divides the city and its bridges; ferries are rare.", "The river divides the city and its bridges."),
    ],
)  # fmt: skip
def test_prose_is_learned_from_sentences_that_say_what_their_paragraph_is_about(
    first: str, summary: str, write: Write, corpora: Path, output: Path
) -> None:
    train, dev = summaries_of([f"{first} {REST}"], write, corpora, output)
    assert {row["summary"] for row in (*train, *dev)} == {summary}


@pytest.mark.parametrize(
    "paragraph",
    [
        f"He painted the river and the bridges of the old city. {REST}",
        f"During the war, it lost the bridges across the river. {REST}",
        "The old city has many bridges across the river. Its bridges cross the river in many places.",
        "The bakers of the old town rise early every morning. " + REST,
        f'The river is called "the mother of all bridges" by painters. {REST}',
        f"The bridges and the painted river that everyone in the city knows are, in summer, beautiful. {REST}",
        "Bridges cross the river. " + REST,
    ],
)
def test_prose_is_not_learned_from_sentences_that_lean_on_others_or_end_too_early(
    paragraph: str, write: Write, corpora: Path, output: Path
) -> None:
    assert summaries_of([paragraph], write, corpora, output) == ([], [])


def test_the_prose_of_held_out_articles_is_only_for_development(write: Write, corpora: Path, output: Path) -> None:
    first = "The old city lies on both sides of a river with many bridges."
    train, dev = summaries_of([f"{first} Text {n}. {REST}" for n in range(200)], write, corpora, output)
    held = {n for n in range(200) if chance("article", f"Article {n}") < HELD_OUT_ARTICLES}
    assert held
    assert {int(row["document"].split("Text ")[1].split(".")[0]) for row in dev} == held
    assert {int(row["document"].split("Text ")[1].split(".")[0]) for row in train} == set(range(200)) - held


def summaries_of(
    paragraphs: list[str], write: Write, corpora: Path, output: Path
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Prepare articles of one paragraph each; rows of the training and of the development file."""
    for corpus in ("debian_synopsis", "scitldr_a"):
        write(f"{corpus}/train.jsonl.gz", [])
        write(f"{corpus}/dev.jsonl", [])
    rows = ({"title": f"Article {n}", "context": paragraph} for n, paragraph in enumerate(paragraphs))
    write("squad_v1.1/train.jsonl.gz", list(rows))
    prepare.summarization(corpora, output)
    train, dev = (rows_of(output / f"summarization.prose.{split}.jsonl") for split in ("train", "dev"))
    return train, dev
