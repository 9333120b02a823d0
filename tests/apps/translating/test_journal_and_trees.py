"""Which files are translated, where they go, and the answers that are kept for the next run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from nlpkit.apps.documents.translation.attempts import Answer
from nlpkit.apps.translating.journal import Journal, run_key
from nlpkit.apps.translating.trees import Destination, find_files
from nlpkit.core.errors import ConfigError, InputError


class Counting:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: Sequence[str]) -> list[Answer]:
        self.asked += texts
        return [Answer(text.upper(), 0.5, ("unsure",)) for text in texts]


def test_a_journal_asks_only_what_is_new(tmp_path: Path) -> None:
    path, translate = tmp_path / "j.jsonl", Counting()
    assert [a.text for a in Journal(path, "k").keeping(translate)(["a", "b"])] == ["A", "B"]
    again = Journal(path, "k")
    assert list(again.keeping(translate)(["b", "c", "a"])) == [Answer(text, 0.5, ("unsure",)) for text in "BCA"]
    assert translate.asked == ["a", "b", "c"]
    assert again.hits == 2
    Journal(path, "other").keeping(translate)(["a"])
    assert translate.asked == ["a", "b", "c", "a"]


def test_a_line_that_was_cut_off_is_asked_again(tmp_path: Path) -> None:
    path, translate = tmp_path / "j.jsonl", Counting()
    Journal(path, "k").keeping(translate)(["a", "b"])
    path.write_bytes(path.read_bytes()[:-20] + b"")
    Journal(path, "k").keeping(translate)(["a", "b", "c"])
    assert translate.asked == ["a", "b", "b", "c"]
    assert sum(1 for line in path.read_bytes().splitlines() if _is_json(line)) == 3
    Journal(path, "k").keeping(translate)(["a", "b", "c"])
    assert translate.asked == ["a", "b", "b", "c"]


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def test_answers_depend_on_the_run() -> None:
    assert run_key({"a": 1, "b": 2}) == run_key({"b": 2, "a": 1}) != run_key({"a": 1, "b": 3})


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("docs/a.md", "docs/deep/b.md", "docs/.hidden/c.md", "docs/pic.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return tmp_path


def test_folders_and_patterns_keep_their_tree(tree: Path) -> None:
    found = find_files([str(tree / "docs")])
    assert [file.relative for file in found] == ["a.md", "pic.png", "deep/b.md"]
    assert [file.relative for file in find_files([str(tree / "docs" / "**" / "*.md")])] == ["a.md", "deep/b.md"]
    assert len(find_files([str(tree / "docs"), str(tree / "docs" / "a.md")])) == 3
    place = Destination.choose(found, str(tree / "out"), ".de").path(found[2])
    assert place == tree / "out" / "deep" / "b.de.md"
    with pytest.raises(InputError, match="Nothing is named like"):
        find_files([str(tree / "*.rst")])


def test_where_results_go(tree: Path) -> None:
    one = find_files([str(tree / "docs" / "a.md")])
    assert Destination.choose(one, None, None).path(one[0]) is None
    assert Destination.choose(one, None, ".de").path(one[0]) == tree / "docs" / "a.de.md"
    assert Destination.choose(one, str(tree / "x.md"), None).path(one[0]) == tree / "x.md"
    assert Destination.choose(one, str(tree) + "/", None).path(one[0]) == tree / "a.md"
    many = find_files([str(tree / "docs")])
    with pytest.raises(ConfigError, match="3 files to write"):
        Destination.choose(many, None, None)
    with pytest.raises(ConfigError, match="is a file, but there are 3 files"):
        Destination.choose(many, str(tree / "docs" / "a.md"), None)
    with pytest.raises(ConfigError, match="would be replaced by its translation"):
        Destination.choose(many, str(tree / "docs"), None).path(many[0])
