"""The cache folder is cleaned of what is made anew, and of nothing that is not nlpkit's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nlpkit.apps.models.cache_clean import find_removable, remove
from nlpkit.core.fetch.catalogue import CATALOGUE
from nlpkit.core.files.hashing import sha256_file
from nlpkit.core.files.write import aside_name
from nlpkit.core.quantization.kernel_build import library_path


def leftover() -> str:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    name = aside_name("x").split("-")
    name[-2] = str(process.pid)
    return "-".join(name)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder with all that may go, and much that may not."""
    home = tmp_path / "home"
    monkeypatch.setenv("NLPKIT_HOME", str(home))
    for name in ("kernels", "hashes", "ready", "ready-seen", "models", "hub/complete"):
        (home / name).mkdir(parents=True)
    (home / "ready" / leftover()).write_text("left")
    (home / "kernels" / leftover()).mkdir()
    (home / "kernels" / f"{'0' * 32}.so").write_text("old")
    library_path().write_text("current")
    (home / "ready" / f"{'1' * 32}.safetensors").write_text("weights")
    (home / "ready-seen" / f"{'1' * 32}.json").write_text("{}")
    known, gone = tmp_path / "known.bin", tmp_path / "gone.bin"
    for path in (known, gone):
        path.write_text("x")
        sha256_file(path)
    gone.unlink()
    model = CATALOGUE[0].path
    model.parent.mkdir()
    model.write_text("the model")
    hub = home / "hub" / "org--name" / ("a" * 40)
    hub.mkdir(parents=True)
    (hub / "model.safetensors").write_text("hub")
    (home / "hub" / "complete" / f"{'4' * 32}.json").write_text(json.dumps({"path": f"org--name/{'a' * 40}"}))
    # What is not ours, or is in use.
    (home / "hub" / "complete" / "mine.json").write_text("mine")
    (home / "hub" / "complete" / "mine").mkdir()
    (home / "hub" / "complete" / "mine" / "note.txt").write_text("mine")
    (home / "hub" / "complete" / f"{'5' * 32}.json").write_text(json.dumps({"path": "../../outside"}))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / f"{'2' * 32}.so").write_text("mine")
    (home / "kernels" / f"{'3' * 32}.so").symlink_to(outside / f"{'2' * 32}.so")
    for name in (
        "notes.txt",
        "kernels/mine.so",
        "ready/mine.safetensors",
        "hashes/mine.json",
        f"ready/{aside_name('y')}",
    ):
        (home / name).write_text("mine")
    return home


KEPT = {
    "notes.txt", "kernels/mine.so", "ready/mine.safetensors", "hashes/mine.json", "hub/complete/mine.json",
    "hub/complete/mine/note.txt",
}  # fmt: skip


def names(home: Path) -> set[str]:
    return {str(path.relative_to(home)) for path in home.rglob("*") if not path.is_dir() or path.is_symlink()}


def test_what_is_made_anew_goes(home: Path) -> None:
    before = names(home)
    found = find_removable()
    assert {one.kind for one in found} == {"leftovers", "kernels", "hashes", "quantized"}
    assert names(home) == before
    assert remove(found) == sum(one.size for one in found) > 0
    left = names(home)
    assert left >= KEPT
    assert f"kernels/{library_path().name}" in left
    assert f"kernels/{'3' * 32}.so" in left
    assert f"kernels/{'0' * 32}.so" not in left
    assert len([name for name in left if name.startswith("hashes/")]) == 2
    # Of two that were begun, that of a process that lives stays.
    kept = {name for name in left if name.startswith("ready")} - {"ready/mine.safetensors"}
    assert [f"-{os.getpid()}-" in name for name in kept] == [True]
    assert CATALOGUE[0].path.read_text() == "the model"
    assert find_removable() == []


def test_models_go_where_they_are_asked_for(home: Path) -> None:
    found = find_removable(models=True)
    remove(found)
    assert not CATALOGUE[0].path.exists()
    assert not (home / "hub" / "org--name" / ("a" * 40)).exists()
    assert (home.parent / "outside" / f"{'2' * 32}.so").read_text() == "mine"
    assert names(home) >= KEPT


def test_a_cache_that_is_a_link_elsewhere_is_left_alone(home: Path) -> None:
    elsewhere = home.parent / "elsewhere"
    (home / "ready").rename(elsewhere)
    (home / "ready").symlink_to(elsewhere)
    remove(find_removable())
    assert (elsewhere / f"{'1' * 32}.safetensors").exists()


@pytest.mark.parametrize("note", ["", "[" * 100_000, "{}", '{"key": 3}', '{"key": []}'])
def test_notes_that_say_nothing_go(home: Path, note: str) -> None:
    path = home / "hashes" / f"{7:064x}.json"
    path.write_text(note)
    assert path in {one.path for one in find_removable()}
    (home / "hub" / "complete" / f"{7:032x}.json").write_text(note)
    assert find_removable(models=True)


def test_what_another_process_removes_meanwhile_is_no_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(pattern: Any, name: str) -> Any:
        for path in (home / "ready").glob("1*"):
            path.unlink()
        return re.fullmatch(pattern, name)

    monkeypatch.setattr(
        "nlpkit.apps.models.cache_clean._READY", SimpleNamespace(fullmatch=lambda name: gone(".*", name))
    )
    assert all(one.path.exists() for one in find_removable())


def test_the_command_says_what_it_would_remove_and_asks(
    home: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = names(home)
    asked = cli("models", "clean", stdin=b"")
    assert asked.code == 0
    assert "compiled kernels of other versions: 1 file, 0.0 MB" in asked.out
    assert "--yes" in asked.err
    assert names(home) == before
    questions: list[str] = []
    monkeypatch.setattr("nlpkit.apps.cli.models._agreed", lambda question: bool(questions.append(question)))
    assert cli("models", "clean").code == 0
    assert len(questions) == 1
    assert names(home) == before
    done = cli("models", "clean", "--yes", "--json", stdin=b"")
    said = json.loads(done.out)
    assert said["removed"] is True
    assert said["kinds"]["quantized"] == {"files": 2, "bytes": 9}
    assert names(home) < before
    assert cli("models", "clean", stdin=b"").out == "nothing to remove\n"


def test_whoever_agrees_has_it_removed(home: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlpkit.apps.cli.models._agreed", lambda question: True)
    assert cli("models", "clean").code == 0
    assert find_removable() == []
