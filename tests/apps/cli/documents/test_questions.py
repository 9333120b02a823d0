"""The command on folders and several files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("fake_model")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bees.txt").write_text("The queen lays two thousand eggs a day.\n")
    (tmp_path / "bread.txt").write_text("Sourdough bread takes many hours.\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    return tmp_path


def test_a_folder_gives_one_answer_and_its_place(cli: Cli, folder: Path) -> None:
    # The model of these tests repeats the last line of what it is asked, which is no answer.
    done = cli("qa", "How many eggs?", "-c", str(folder))
    assert (done.code, done.out) == (0, "\n")
    assert "picture.png" in done.err
    assert "the nearest passage" in done.err
    assert "bees.txt, line 1: The queen lays two thousand eggs a day." in done.err
    assert "bread" not in done.out + done.err.replace("bread.txt", "")


def test_json_names_the_passages(cli: Cli, folder: Path) -> None:
    done = cli("qa", "How many eggs?", "-c", str(folder), "--json", "-q")
    record = json.loads(done.out)
    assert record["answerable"] is False
    assert [one["input"] for one in record["passages"]] == [str(folder / "bees.txt")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["qa", "--top", "2"], "nothing to ask about"),
        (["qa", "-c", "FOLDER"], "question is missing"),
        (["qa", "Who?", "-c", "FOLDER", "--map", "context=text"], "for rows"),
        (["qa", "Who?", "-c", "FOLDER/nowhere", "--top", "2"], "nowhere"),
    ],
)
def test_contradictions_are_refused(cli: Cli, folder: Path, arguments: list[str], message: str) -> None:
    done = cli(*[argument.replace("FOLDER", str(folder)) for argument in arguments])
    assert done.code == 2
    assert message in done.err


def test_questions_are_read_one_after_the_other(cli: Cli, folder: Path) -> None:
    done = cli("qa", "--interactive", "-c", str(folder), "--json", stdin=b"How many eggs?\n\nWho bakes bread?\n")
    assert done.code == 0, done.err
    assert [json.loads(line)["question"] for line in done.out.splitlines()] == ["How many eggs?", "Who bakes bread?"]


def test_what_was_named_is_left_out_where_one_keeps_going(cli: Cli, folder: Path) -> None:
    arguments = (
        "qa",
        "How many eggs?",
        "--top",
        "1",
        "-c",
        str(folder / "bees.txt"),
        "-c",
        str(folder / "picture.png"),
    )
    assert cli(*arguments).code == 2
    done = cli(*arguments, "--keep-going")
    assert done.code == 3
    assert "left out" in done.err
    assert "--stats counts inputs" in cli(*arguments, "--stats").err


def test_rows_are_no_texts(cli: Cli, folder: Path) -> None:
    (folder / "rows.jsonl").write_text('{"context": "x", "question": "y"}\n')
    assert "rows.jsonl holds data rows" in cli("qa", "How many eggs?", "-c", str(folder)).err
    done = cli("qa", "How many eggs?", "-c", str(folder), "--input-format", "lines")
    assert done.code == 2
    assert "each file is one text" in done.err
