"""Answers from many files: the surest of the passages that are about the question, with its place in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nlpkit.apps.asking.answers import ask_collection
from nlpkit.apps.asking.collection import Collection
from nlpkit.apps.pipeline.result import TaskResult
from nlpkit.apps.tasks.task import Prediction
from nlpkit.apps.toolkit import Toolkit
from nlpkit.core.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bees.txt").write_bytes("\ufeffBees fly.\r\n\r\nThe queen lays two thousand eggs a day.\r\n".encode())
    (tmp_path / "page.html").write_text("<html><p>A queen <b>rules</b> the land &amp; lays no eggs.</p></html>")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "queen.md").write_text("# Queens\n\nThe queen of England lays wreaths of eggs.\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    (tmp_path / ".hidden.txt").write_text("The queen is hidden, eggs.")
    return tmp_path


def says(answers: dict[str, tuple[str, float]], asked: list[dict[str, Any]]) -> Any:
    """A model that finds the answer of each passage that holds a word."""

    def ask(rows: Any) -> list[TaskResult]:
        asked.extend(rows)
        results = []
        for row in rows:
            text, score = next((found for word, found in answers.items() if word in row["context"]), ("", 0.5))
            start = row["context"].find(text) if text else None
            fields = {"start": start, "end": None if start is None else start + len(text), "score": score}
            prediction = Prediction(text, {**fields, "evidence": row["context"], "answerable": bool(text)})
            results.append(TaskResult(example=row, prediction=prediction, model="fake"))
        return results

    return ask


def test_files_of_a_folder_are_read_as_what_people_see(folder: Path) -> None:
    collection = Collection.read([str(folder)])
    assert [Path(text.name).name for text in collection.texts] == ["bees.txt", "page.html", "queen.md"]
    assert len(collection.skipped) == 1
    assert "picture.png" in collection.skipped[0]
    assert "& lays no eggs" in collection.texts[1].text


def test_the_surest_answer_comes_with_its_place(folder: Path) -> None:
    collection = Collection.read([str(folder)])
    asked: list[dict[str, Any]] = []
    ask = says({"thousand": ("two thousand", 0.9), "England": ("wreaths", 0.2)}, asked)
    found = ask_collection(ask, "How many eggs does the queen lay a day?", collection)
    assert len(asked) == 3
    assert {row["question"] for row in asked} == {"How many eggs does the queen lay a day?"}
    first, second = found.answers
    assert (first.text, Path(first.name).name, first.line, first.score) == ("two thousand", "bees.txt", 3, 0.9)
    # Marks and carriage returns count in the file.
    whole = (folder / "bees.txt").read_bytes().decode()
    assert whole[first.start : first.end] == "two thousand"
    assert (second.text, second.line) == ("wreaths", 3)
    text = (folder / "deep" / "queen.md").read_text()
    assert text[second.start : second.end] == "wreaths"


def test_an_answer_of_several_passages_is_one(folder: Path) -> None:
    collection = Collection.read([str(folder)])
    ask = says({"thousand": ("eggs", 0.3), "England": ("eggs", 0.8), "rules": ("eggs", 0.1)}, [])
    (only,) = ask_collection(ask, "What does the queen of England lay?", collection).answers
    assert (only.score, only.passage) == (0.8, 1)


def test_no_answer_leaves_the_passages(folder: Path) -> None:
    collection = Collection.read([str(folder)])
    found = ask_collection(says({}, []), "Which queen rules England?", collection, passages=2)
    assert found.answers == ()
    assert len(found.passages) == 2
    assert "England" in found.passages[0][0].text
    assert found.passages[0][2].startswith("line ")


def test_what_nothing_is_about_is_not_asked(folder: Path) -> None:
    asked: list[dict[str, Any]] = []
    found = ask_collection(says({}, asked), "Who built telephones?", Collection.read([str(folder)]))
    assert (found.answers, found.passages, asked) == ((), (), [])


def test_what_cannot_be_read_is_refused_where_it_was_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"picture\.png"):
        Collection.read([str(folder / "bees.txt"), str(folder / "picture.png")])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError):
        Collection.read([str(empty)])
    with pytest.raises(InputError):
        Collection.read([str(folder / "nowhere.txt")])


def test_the_toolkit_asks_files(folder: Path, fake_lm: Any) -> None:
    toolkit = Toolkit(fake_lm(lambda prompt, _: "two thousand" if "thousand" in prompt else "unanswerable"))
    (answer,) = toolkit.ask("How many eggs does the queen lay?", folder / "deep", folder / "bees.txt")
    assert (answer.text, Path(answer.name).name, answer.line) == ("two thousand", "bees.txt", 3)
    assert toolkit.ask("How many eggs?", folder / "deep", top=3) == []
