"""What a killed process leaves aside is removed by the next that writes there, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nlpkit.core.errors import InputError, OutputError
from nlpkit.core.files import write as asides
from nlpkit.core.files.write import aside_name, atomic_write, into_directory, new_directory, sweep, whole_folder


def gone_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_leftovers_of_dead_processes_are_removed(tmp_path: Path) -> None:
    mine = aside_name("model.safetensors")
    dead = mine.replace(f"-{os.getpid()}-", f"-{gone_pid()}-")
    foreign = dead.replace(f"nlpkit-{asides._machine()}-", "nlpkit-00000000-")
    old_foreign = aside_name("x").replace(f"nlpkit-{asides._machine()}-", "nlpkit-00000000-")
    old_style = ".nlpkit-4194000-0123abcd.part"
    kept = [mine, foreign, ".hidden.part", "nlpkit-1-2.part", ".bashrc", ".model.abcdefgh"]
    for name in (*kept, dead, old_foreign, old_style):
        (tmp_path / name).write_text("x")
    folder = tmp_path / aside_name(suffix=".aside").replace(f"-{os.getpid()}-", f"-{gone_pid()}-")
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "file").write_text("x")
    for name in (old_foreign, old_style, ".hidden.part", ".model.abcdefgh"):
        os.utime(tmp_path / name, (time.time() - 200_000,) * 2)
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_all_writers_use_such_names_and_sweep(tmp_path: Path) -> None:
    dead = aside_name("x").replace(f"-{os.getpid()}-", f"-{gone_pid()}-")
    for number, write in enumerate(("file", "folder", "training")):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / dead).write_text("x")
        if write == "file":
            with atomic_write(folder / "a.bin") as file:
                assert asides._NAME.fullmatch(Path(file.name).name)
        elif write == "folder":
            with new_directory(folder / "model") as aside:
                assert asides._NAME.fullmatch(aside.name)
        else:
            with into_directory(folder) as aside:
                assert asides._NAME.fullmatch(aside.name)
        assert not (folder / dead).exists()
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_long_names_have_room(tmp_path: Path) -> None:
    assert len(aside_name("x" * 250).encode()) < 255
    with atomic_write(tmp_path / ("y" * 250)) as file:
        file.write(b"x")
    assert (tmp_path / ("y" * 250)).exists()


def test_a_full_disk_is_told_of(tmp_path: Path) -> None:
    from safetensors import SafetensorError

    said = "Error while serializing: I/O error: No space left on device (os error 28)"
    with pytest.raises(InputError, match="the disk is full"), new_directory(tmp_path / "m"):
        raise SafetensorError(said)
    with pytest.raises(OutputError, match="the disk is full"), into_directory(tmp_path):
        raise SafetensorError(said)
    assert not list(tmp_path.iterdir())


def test_what_came_meanwhile_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.mkdir()
    writing = new_directory(path)
    (writing.__enter__() / "model").write_text("new")
    (path / "notes.txt").write_text("somebody's")
    with pytest.raises(InputError, match="cannot be written"):
        writing.__exit__(None, None, None)
    assert (path / "notes.txt").read_text() == "somebody's"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "best"
    for text in ("first", "second"):
        with whole_folder(path) as aside:
            (aside / text).write_text(text)
        assert [entry.name for entry in path.iterdir()] == [text]
    with pytest.raises(ValueError, match="stop"), whole_folder(path):
        raise ValueError("stop")
    assert [entry.name for entry in path.iterdir()] == ["second"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["best"]


@pytest.mark.skipif(os.name != "posix", reason="needs permission bits")
def test_files_get_the_permissions_that_the_user_wants(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with atomic_write(tmp_path / "file") as file:
            file.write(b"x")
        with whole_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("file", "folder")] == [0o600, 0o700]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
def test_an_interrupt_between_two_renames_leaves_the_former_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    path = tmp_path / "best"
    path.mkdir()
    (path / "weights").write_text("old")
    replace, calls = os.replace, []

    def interrupted(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise error
        replace(source, target)

    monkeypatch.setattr(asides.os, "replace", interrupted)
    with pytest.raises(error), whole_folder(path) as aside:
        (aside / "weights").write_text("new")
    assert (path / "weights").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["best"]


def test_the_next_start_puts_back_what_a_kill_between_two_renames_left(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from nlpkit.core.files import write\n"
        "replace = os.replace\n"
        "def once(*a): replace(*a); os._exit(9)\n"
        "write.os.replace = once\n"
        "with write.whole_folder(Path(sys.argv[1])) as aside: (aside / 'weights').write_text('new')"
    )
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "weights").write_text("old")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "best")], check=False)
    assert done.returncode == 9
    assert not (tmp_path / "best").exists()
    sweep(tmp_path)
    assert (tmp_path / "best" / "weights").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["best"]
