"""Which files are translated, where they go, and the answers that are kept for the next run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from nlpkit.apps.documents.translation.attempts import FAILED, Answer
from nlpkit.apps.translating.journal import Journal, run_key, state_of
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


def test_what_failed_is_asked_again(tmp_path: Path) -> None:
    path, asked = tmp_path / "j.jsonl", []

    def failing(texts: Sequence[str]) -> list[Answer]:
        asked.extend(texts)
        return [Answer("", 0.0, (FAILED,)) if text == "b" else Answer(text.upper()) for text in texts]

    kept = Journal(path, "k").keeping(failing)
    for _ in range(2):
        assert [answer.text for answer in kept(["a", "b"])] == ["A", ""]
    assert [answer.text for answer in Journal(path, "k").keeping(failing)(["a", "b"])] == ["A", ""]
    assert asked == ["a", "b", "b", "b"]


def test_answers_depend_on_the_language_that_a_document_is_in(tmp_path: Path) -> None:
    path, translate = tmp_path / "j.jsonl", Counting()
    for language in ("en", "fr", "en"):
        Journal(path, "k").keeping(translate, language)(["a"])
    assert translate.asked == ["a", "a"]


def test_a_fresh_run_asks_about_all_and_its_answers_are_kept(tmp_path: Path) -> None:
    path, translate = tmp_path / "j.jsonl", Counting()
    Journal(path, "k").keeping(lambda texts: [Answer("old") for _ in texts])(["a"])
    Journal(path, "k", fresh=True).keeping(translate)(["a"])
    assert translate.asked == ["a"]
    assert [answer.text for answer in Journal(path, "k").keeping(translate)(["a"])] == ["A"]
    assert translate.asked == ["a"]


def test_weights_that_are_trained_again_have_another_state(tmp_path: Path) -> None:
    assert state_of("default") == state_of(tmp_path / "none") == []
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(b"one")
    states = [state_of(path), state_of(tmp_path)]
    assert states[0] == states[1] != []
    path.write_bytes(b"three")
    assert state_of(path) != states[0]
    assert state_of(tmp_path) != states[0]


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
    (place,) = Destination.choose(found, str(tree / "out"), ".de").places(found[2:], found)
    assert place == tree / "out" / "deep" / "b.de.md"
    with pytest.raises(InputError, match="Nothing is named like"):
        find_files([str(tree / "*.rst")])


def test_where_results_go(tree: Path) -> None:
    one = find_files([str(tree / "docs" / "a.md")])
    assert Destination.choose(one, None, None).places(one, one) == [None]
    assert Destination.choose(one, None, ".de").places(one, one) == [tree / "docs" / "a.de.md"]
    assert Destination.choose(one, str(tree / "x.md"), None).places(one, one) == [tree / "x.md"]
    assert Destination.choose(one, str(tree) + "/", None).places(one, one) == [tree / "a.md"]
    many = find_files([str(tree / "docs")])
    with pytest.raises(ConfigError, match="3 files to write"):
        Destination.choose(many, None, None)
    with pytest.raises(ConfigError, match="is a file, but there are 3 files"):
        Destination.choose(many, str(tree / "docs" / "a.md"), None)
    for output in (tree / "docs", tree / "docs" / "a.md"):
        with pytest.raises(ConfigError, match="would be replaced by its translation"):
            Destination.choose(one, str(output), None).places(one, many)


def test_no_result_replaces_a_source_or_another_result(tree: Path) -> None:
    (tree / "docs" / "deep" / "a.md").write_text("y")
    both = find_files([str(tree / "docs" / "a.md"), str(tree / "docs" / "deep" / "a.md")])
    with pytest.raises(ConfigError, match=r"docs/a\.md and .*deep/a\.md would both be written to .*out/a\.md"):
        Destination.choose(both, str(tree / "out"), None).places(both, both)
    two = find_files([str(tree / "docs"), str(tree / "docs" / "deep")])
    folders = [file for file in two if file.relative.endswith(".md")]
    assert len(Destination.choose(two, str(tree / "out"), None).places(folders, two)) == 3
    (tree / "docs" / "deep" / "a.md.gz").write_text("z")
    packed = find_files([str(tree / "docs" / "deep" / "a.md.gz")])
    with pytest.raises(ConfigError, match=r"a\.md would be replaced by the translation of .*a\.md\.gz"):
        Destination.choose(packed, str(tree / "docs" / "deep") + "/", None).places(packed, [*two, *packed])


def test_results_of_an_earlier_run_are_no_sources(tree: Path) -> None:
    for name in ("docs/a.de.md", "docs/a.de.de.md", "docs/own.de.md", "docs/out/a.de.md"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text("x")
    docs = str(tree / "docs")
    for path in (docs, f"{docs}/**/*.*"):
        found = find_files([path], output=f"{docs}/out", suffix=".de")
        assert sorted(file.relative for file in found) == ["a.md", "deep/b.md", "own.de.md", "pic.png"]
    assert "a.de.md" in [file.relative for file in find_files([docs], output=docs)]
    named = find_files([docs, f"{docs}/a.de.md"], suffix=".de")
    assert [file.relative for file in find_files([f"{docs}/a.de.md"], suffix=".de")] == ["a.de.md"]
    assert "a.de.de.md" not in [file.relative for file in named]
