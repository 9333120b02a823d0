"""The folder that keeps downloaded models, and safe ways to write into it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import platformdirs

from nlpkit.core.asides import aside_name, sweep
from nlpkit.core.errors import FetchError

CHUNK_BYTES = 2**20
_TRUE = {"1", "true", "yes", "on"}


def cache_home() -> Path:
    """Return the cache folder: ``NLPKIT_HOME``, or the platform's own place for caches. It may not exist yet."""
    home = os.environ.get("NLPKIT_HOME", "").strip()
    return Path(home).expanduser().absolute() if home else Path(platformdirs.user_cache_dir("nlpkit", appauthor=False))


def models_dir() -> Path:
    """Return the folder of downloaded models inside `cache_home`."""
    return cache_home() / "models"


def is_offline() -> str | None:
    """Return the name of the environment variable that forbids the network, or None when none does."""
    for name in ("NLPKIT_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(name, "").strip().lower() in _TRUE:
            return name
    return None


def sha256_file(path: str | Path) -> str:
    """Return the hex sha256 of a file.

    The hash is remembered in the cache folder, keyed by the file's path, size, inode and times of change, so asking
    again costs nothing until the file changes.

    Args:
        path: Any regular file.

    Raises:
        OSError: The file cannot be read.
    """
    path = Path(path).resolve()
    stat = path.stat()
    key = [str(path), stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
    note = cache_home() / "hashes" / f"{hashlib.sha256(str(path).encode('utf-8', 'surrogateescape')).hexdigest()}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["key"] == key and len(known["sha256"]) == 64:
            return str(known["sha256"])
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    with contextlib.suppress(OSError):  # a cache folder that cannot be written only costs time
        write_json(note, {"key": key, "sha256": digest.hexdigest()})
    return digest.hexdigest()


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a file aside; when the block ends well, bring it to disk and rename it to `path`.

    So `path` holds either what it held before or all that was written. On an error the file aside is removed.

    Args:
        path: The file to write; its folder is made.

    Raises:
        OSError: The file cannot be written (a full disk, say).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    aside = path.parent / aside_name(path.name, suffix=".tmp")
    try:
        with aside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file with `atomic_write`."""
    with atomic_write(path) as file:
        file.write(json.dumps(value, indent=1).encode() + b"\n")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an inter-process lock; a second process waits until the first lets go or dies.

    Args:
        path: The lock file; its folder is made. It stays there afterwards.

    Raises:
        FetchError: The cache folder cannot be written or does not support locks.
    """
    import filelock

    lock = filelock.FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise FetchError(
            f"The cache folder {path.parent} cannot be used: {error}. Set NLPKIT_HOME to a folder that can be written."
        ) from error
    try:
        yield
    finally:
        lock.release()
