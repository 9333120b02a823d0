"""Mapping an untrusted model file into memory."""

from __future__ import annotations

import mmap
import stat
from pathlib import Path

from nlpkit.core.errors import ModelFileError


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
