"""Files and folders that are written aside: their names say whose they are, so that a later start can remove them.

A process that is killed cannot tidy up. Its leftovers carry its number and a mark of the machine: whoever writes into
the same folder next removes those whose process is gone.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from nlpkit.core.errors import InputError, OutputError, why_unwritten

_FORMER = ".former"
"""How the name ends of what a new folder takes the place of, while it does."""
_NAME = re.compile(
    r"\.(?:(?P<name>.+)\.)?nlpkit-(?P<machine>[0-9a-f]{8})-(?P<pid>\d{1,10})-[0-9a-f]{8}(?:[.-]\w*)?", re.DOTALL
)
# As versions before named them, without a mark of the machine.
_BEFORE = re.compile(
    r"\.nlpkit-\d+-[0-9a-f]{8}\.part|\.[0-9a-f]{32,64}\.(?:safetensors|json)\.[a-z0-9_]{8}\.tmp|\.aside\.[a-z0-9_]{8}"
)
_OLD_SECONDS = 86_400


@functools.cache
def _machine() -> str:
    """Return a mark of the machine and its table of processes: a container may share a folder, and not the numbers."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return hashlib.sha256(f"{socket.gethostname()} {space}".encode()).hexdigest()[:8]


def aside_name(name: str = "", *, suffix: str = ".part") -> str:
    """Return a new name, hidden, for what will be renamed to `name`.

    Args:
        name: The final name.
        suffix: How it ends.
    """
    # A file system takes 255 bytes.
    short = name if len(name.encode("utf-8", "surrogateescape")) <= 150 else ""
    return f".{short}{'.' if short else ''}nlpkit-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}{suffix}"


def sweep(folder: str | Path) -> None:
    """Remove what processes that are gone left in a folder, once for each folder in a process.

    What another machine left is removed when it is a day old. Errors do not matter here.

    Args:
        folder: The folder that is about to be written to.
    """
    with contextlib.suppress(OSError, ValueError):
        _sweep(os.path.realpath(folder), os.getpid())


def is_aside(name: str) -> bool:
    """Tell whether a name is one that `aside_name` gives."""
    return _NAME.fullmatch(name) is not None


def is_leftover(path: str | Path) -> bool:
    """Tell whether a path is what a process that is gone left aside, as `sweep` removes it.

    Args:
        path: A file or folder.
    """
    name = os.path.basename(path)
    match, before = _NAME.fullmatch(name), _BEFORE.fullmatch(name)
    try:
        if match:
            return _is_gone(os.fspath(path), match["machine"], int(match["pid"]))
        return before is not None and _is_old(os.fspath(path))
    except OSError:
        return False


@functools.lru_cache(maxsize=256)
def _sweep(folder: str, _: int) -> None:
    with os.scandir(folder) as entries:
        paths = [entry.path for entry in entries]
    for path in filter(is_leftover, paths):
        with contextlib.suppress(OSError):
            if os.path.isdir(path) and not os.path.islink(path):
                if not _put_back(path):
                    shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)


def _put_back(path: str) -> bool:
    """Give a former folder its name again where the process ended before the new one had it."""
    match = _NAME.fullmatch(os.path.basename(path))
    if not path.endswith(_FORMER) or match is None or not match["name"]:
        return False
    place = os.path.join(os.path.dirname(path), match["name"])
    if os.path.lexists(place):
        return False
    os.rename(path, place)
    return True


def _is_old(path: str) -> bool:
    return time.time() - os.lstat(path).st_mtime > _OLD_SECONDS


def _is_gone(path: str, machine: str, pid: int) -> bool:
    if machine != _machine():
        return _is_old(path)
    if os.name != "posix":
        return False  # asking there ends the process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


@contextmanager
def unwritable(what: str, *, advice: str = "") -> Iterator[None]:
    """Turn a full or broken disk into one clear error.

    Args:
        what: What could not be done, such as "x.txt cannot be written".
        advice: What to do about it; follows the reason.

    Raises:
        OutputError: The disk is full or broken.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{what}: {why_unwritten(error)}.{' ' if advice else ''}{advice}") from error


def sync(path: Path) -> None:
    """Bring a file or a folder to the disk.

    Raises:
        OSError: A file cannot be brought there. Some file systems cannot do it for a folder, which does not matter.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file aside; when the block ends well, bring it to the disk and rename it to `path`.

    So `path` holds either what it held before or all that was written. On an error the file aside is removed.

    Args:
        path: The file to write; its folder is made.

    Yields:
        The path to write to.

    Raises:
        OSError: The file cannot be written (a full disk, say).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    aside = path.parent / aside_name(path.name, suffix=".tmp")
    try:
        yield aside
        sync(aside)
        os.replace(aside, path)
        sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(aside)


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a file aside as `whole_file` does."""
    with whole_file(path) as aside, aside.open("xb") as file:
        yield file


@contextmanager
def whole_folder(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Write a folder aside; when the block ends well, bring its files to the disk and put it in the place of `path`.

    Args:
        path: The folder.
        replace: Whether what stands there gives way when the new one is whole; else it must be empty by then, too.

    Yields:
        An empty folder to write to.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    aside = path.parent / aside_name(path.name, suffix="")
    former = path.parent / aside_name(path.name, suffix=_FORMER)
    try:
        aside.mkdir()
        yield aside
        for file in (file for file in aside.rglob("*") if file.is_file()):
            sync(file)
        try:
            if replace and path.exists():
                # Out of the way, not removed yet: a folder is never half there.
                os.replace(path, former)
            elif path.exists():
                path.rmdir()
            os.replace(aside, path)
        except BaseException:  # an interrupt between the two as well
            if former.exists() and not path.exists():
                os.replace(former, path)
            raise
        sync(path.parent)
        shutil.rmtree(former, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Write a directory that is not there yet as `whole_folder` does.

    Args:
        path: The directory to make; it may exist only if it is empty.

    Yields:
        The directory to write to.

    Raises:
        InputError: There is something at `path` already, or it cannot be written.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} already exists and is not an empty directory. Name another one.")
    try:
        with whole_folder(path, replace=False) as aside:
            yield aside
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be written: {why_unwritten(error)}.") from error


@contextmanager
def into_directory(directory: Path, *, stale: Collection[str] = ()) -> Iterator[Path]:
    """Write files aside that then move into a directory which may hold other things, each whole, the weights last.

    Args:
        directory: Where they go; it is made.
        stale: Names of files that are removed there if they were not written anew.

    Yields:
        An empty folder to write to.

    Raises:
        OutputError: Something cannot be written.
    """
    with unwritable(f"{directory} cannot be written"):
        directory.mkdir(parents=True, exist_ok=True)
        sweep(directory)
        aside = directory / aside_name(suffix=".aside")
        try:
            aside.mkdir(mode=0o700)
            yield aside
            moved = set()
            for path in sorted(aside.iterdir(), key=lambda path: (path.suffix == ".safetensors", path.name)):
                # safetensors makes files that nobody else may read.
                path.chmod(0o644)
                os.replace(path, directory / path.name)
                moved.add(path.name)
            for name in set(stale) - moved:
                (directory / name).unlink(missing_ok=True)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file with `atomic_write`."""
    with atomic_write(path) as file:
        file.write(json.dumps(value, indent=1).encode() + b"\n")
