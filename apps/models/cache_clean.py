"""What the cache folder can do without: what is made anew when it is needed, and on demand downloaded models."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlpkit.core.errors import OutputError, why_unwritten
from nlpkit.core.fetch.catalogue import CATALOGUE
from nlpkit.core.files.cache import cache_home
from nlpkit.core.files.write import is_leftover
from nlpkit.core.quantization.kernel_build import library_path

_KERNELS = re.compile(r"[0-9a-f]{32}\.so")
_HASH = re.compile(r"[0-9a-f]{64}\.json")
_READY = re.compile(r"[0-9a-f]{32}\.(?:safetensors|json)")
_NOTE = re.compile(r"[0-9a-f]{32}\.json")
_COMMIT = re.compile(r"[0-9a-f]{40,64}")
KINDS = ("leftovers", "kernels", "hashes", "quantized", "models")
"""What processes that were killed left; compiled kernels of other versions; hashes of files that are gone or have
changed; quantized weights, which the next start makes again; downloads."""


@dataclass(frozen=True)
class Removable:
    """A file or folder of the cache.

    Attributes:
        kind: One of `KINDS`.
        path: Where it lies.
        size: Bytes, of all files where it is a folder.
    """

    kind: str
    path: Path
    size: int


def find_removable(*, models: bool = False) -> list[Removable]:
    """Look for what the cache folder can do without.

    Only files that nlpkit names so, in the folders where it keeps them, are found; nothing behind a link.

    Args:
        models: Downloaded models, too. They would have to be downloaded again.
    """
    home = cache_home()
    found = [*_leftovers(home), *_kernels(home / "kernels"), *_hashes(home / "hashes")]
    for name in ("ready", "ready-seen"):
        found += [Removable("quantized", path, size) for path, size in _files(home / name, _READY)]
    if models:
        found += [*_catalogue_models(), *_hub_models(home / "hub")]
    # What lies in a folder that goes is not counted twice.
    folders = {one.path for one in found if one.path.is_dir()}
    return [one for one in found if folders.isdisjoint(one.path.parents)]


def remove(removables: Sequence[Removable]) -> int:
    """Remove them; what is gone by then is as good as removed.

    Returns:
        How many bytes they had.

    Raises:
        OutputError: One cannot be removed.
    """
    for one in removables:
        try:
            if one.path.is_dir() and not one.path.is_symlink():
                shutil.rmtree(one.path)
            else:
                one.path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{one.path} cannot be removed: {why_unwritten(error)}.") from error
    return sum(one.size for one in removables)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield what is in a folder; nothing of one that is not there, or is a link."""
    with contextlib.suppress(OSError):
        if not folder.is_symlink():
            with os.scandir(folder) as entries:
                yield from sorted((one for one in entries if not one.is_symlink()), key=lambda one: one.name)


def _files(folder: Path, pattern: re.Pattern[str]) -> Iterator[tuple[Path, int]]:
    for entry in _entries(folder):
        size: int | None = None
        # What is gone by now needs no cleaning.
        with contextlib.suppress(OSError):
            if pattern.fullmatch(entry.name) and entry.is_file():
                size = entry.stat().st_size
        if size is not None:
            yield Path(entry.path), size


def _size(path: Path) -> int:
    total = 0
    for file in path.rglob("*") if path.is_dir() else (path,):
        with contextlib.suppress(OSError):
            total += 0 if file.is_dir() else file.lstat().st_size
    return total


def _leftovers(home: Path) -> Iterator[Removable]:
    rooms = [home, *(home / name for name in ("kernels", "hashes", "ready", "ready-seen", "models", "hub"))]
    deeper = [Path(entry.path) for room in rooms[-2:] for entry in _entries(room) if entry.is_dir()]
    deeper += [Path(entry.path) for room in list(deeper) for entry in _entries(room) if entry.is_dir()]
    for room in (*rooms, *deeper):
        for entry in _entries(room):
            if is_leftover(entry.path):
                yield Removable("leftovers", Path(entry.path), _size(Path(entry.path)))


def _kernels(folder: Path) -> Iterator[Removable]:
    current = library_path().name
    for path, size in _files(folder, _KERNELS):
        if path.name != current:
            yield Removable("kernels", path, size)


def _hashes(folder: Path) -> Iterator[Removable]:
    for path, size in _files(folder, _HASH):
        if not _holds(path):
            yield Removable("hashes", path, size)


def _holds(note: Path) -> bool:
    """Tell whether a note is about a file as it is today."""
    try:
        name, n_bytes, inode, changed, *_ = json.loads(note.read_text(encoding="utf-8"))["key"]
        stat = os.stat(name)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    return [n_bytes, inode, changed] == [stat.st_size, stat.st_ino, stat.st_mtime_ns]


def _catalogue_models() -> Iterator[Removable]:
    for entry in CATALOGUE:
        if entry.path.is_file() and not entry.path.is_symlink() and not entry.path.parent.is_symlink():
            yield Removable("models", entry.path, entry.path.stat().st_size)


def _hub_models(folder: Path) -> Iterator[Removable]:
    for note, size in _files(folder / "complete", _NOTE):
        said: Any = None
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            said = json.loads(note.read_text(encoding="utf-8"))["path"]
        yield Removable("models", note, size)
        parts = Path(said).parts if isinstance(said, str) else ()
        # As the hub's downloader names folders, and no other place that a note may hold.
        if len(parts) == 2 and "--" in parts[0] and _COMMIT.fullmatch(parts[1]):
            path = folder.joinpath(*parts)
            if path.is_dir() and not path.is_symlink() and not path.parent.is_symlink():
                yield Removable("models", path, _size(path))
