"""Hashes of files and of values."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlpkit.core.files.cache import cache_home
from nlpkit.core.files.write import write_json

CHUNK_BYTES = 2**20


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


def hash_value(value: Any) -> str:
    """Return the hex sha256 of a JSON-ready value, whatever the order of its keys."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _plain(value: Any) -> Any:
    """Turn what the JSON writer does not know into what it does."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Sequence):
        return list(value)
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)
