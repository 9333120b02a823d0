"""The one reader of small files that nobody vouches for: what it opens, how much it reads, how deep JSON may nest.

A model's folder comes out of an archive or a repository, both of which carry links and named pipes: a pipe would be
waited for, a device never ends, a link could lead to somebody's private files.
"""

from __future__ import annotations

import json
import mmap
import os
import stat
from pathlib import Path
from typing import Any

from nlpkit.core.errors import ModelFileError, NlpkitError, shown

MAX_JSON_BYTES = 64 * 2**20
MAX_JSON_VALUES = 2_000_000
"""Most values of one JSON text: each costs some fifty times the bytes that it has in the file."""


def read_small_file(path: Path, *, max_bytes: int, error: type[NlpkitError], what: str = "a settings file") -> bytes:
    """Read a regular file of bounded size.

    Args:
        path: The file.
        max_bytes: Most bytes that it may have.
        error: What to raise.
        what: What the file should be, for the message.

    Returns:
        Its bytes.

    Raises:
        NlpkitError: Of the kind `error`: it is missing, unreadable or too large, no regular file, or a link that leads
            out of its folder to a file of another name.
    """
    _check_link(path, error)
    try:
        # Not to wait for the other end of a pipe; what was opened is then asked, so nothing can be exchanged between.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise error(f"{path} is no regular file, but a folder, a pipe or a device. Download it again.")
            data = file.read(max_bytes + 1)
            size = max(status.st_size, len(data))
    except IsADirectoryError as failure:
        raise error(f"{path} is no regular file, but a folder. Download it again.") from failure
    except (OSError, ValueError) as failure:
        raise error(f"{path} cannot be read: {getattr(failure, 'strerror', None) or failure}.") from failure
    if size > max_bytes:
        raise error(
            f"{path} has {size:,} bytes, more than the {max_bytes:,} that {what} may have; it is damaged or something "
            "else."
        )
    return data


def _check_link(path: Path, error: type[NlpkitError]) -> None:
    """Refuse a link that leads out of its folder, unless to a file of its name or into a hub cache's own store."""
    try:
        if not path.is_symlink():
            return
        target, folder = Path(os.path.realpath(path)), Path(os.path.realpath(path.parent))
    except (OSError, ValueError):
        return  # opening says it better
    inside = target.is_relative_to(folder) or target.name == path.name
    # HUB/models--org--name/snapshots/COMMIT/NAME -> ../../blobs/HASH
    kept = folder.parent.name == "snapshots" and target.parent == folder.parent.parent / "blobs"
    if not inside and not kept:
        raise error(
            f"{path} is a link that leads out of its folder, to {shown(str(target))}. Put the file itself there if you "
            "trust it."
        )


def parse_json(data: bytes, *, max_values: int = MAX_JSON_VALUES, **hooks: Any) -> Any:
    """Parse a JSON text of bounded size.

    Args:
        data: UTF-8.
        max_values: Most values in it.
        hooks: As `json.loads` takes them.

    Raises:
        ValueError: It is no JSON, nested too deep, or holds too many values.
    """
    n_values = data.count(b",") + data.count(b"[") + data.count(b"{")
    if n_values > max_values:
        raise ValueError(f"it holds some {n_values:,} values; at most {max_values:,} may be")
    try:
        return json.loads(data.decode("utf-8"), **hooks)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def read_json_file(path: Path, *, error: type[NlpkitError]) -> dict[str, Any]:
    """Read a JSON object of bounded size.

    Args:
        path: The file.
        error: What to raise.

    Returns:
        The object.

    Raises:
        NlpkitError: Of the kind `error`: it cannot be read (see `read_small_file`), or is no JSON object.
    """
    data = read_small_file(path, max_bytes=MAX_JSON_BYTES, error=error)
    try:
        value = parse_json(data)
    except ValueError as failure:
        raise error(f"{path} is not valid JSON: {failure}. Download the file again.") from failure
    if not isinstance(value, dict):
        raise error(f"{path} holds a JSON {type(value).__name__}, not an object.")
    return value


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object of bounded size.

    Args:
        path: The file.

    Returns:
        The object.

    Raises:
        ModelFileError: The file is missing, no regular file, too large, not UTF-8 or not a JSON object.
    """
    return read_json_file(path, error=ModelFileError)


def map_file(path: Path, *, kind: str) -> mmap.mmap:
    """Map a regular file into memory, privately: writes to the mapping stay in this process.

    Private and writable rather than read-only because torch warns about tensors on read-only memory, and an
    accidental in-place operation on them would kill the process.

    Args:
        path: The file.
        kind: What it should be, for the error message.

    Raises:
        ModelFileError: It is missing, empty, no regular file, or cannot be read.
    """
    try:
        # stat before open: opening a named pipe would wait for ever.
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ModelFileError(f"{path} is not a file. Give the path of a {kind} file.")
        if status.st_size == 0:
            raise ModelFileError(f"{path} is empty, so it is no {kind} file. Download it again.")
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelFileError(f"Cannot read the {kind} file {path}: {reason}.") from error
