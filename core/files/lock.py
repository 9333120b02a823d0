"""A lock between processes, which a process that dies lets go of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock on a file until the block ends. On file systems without locks, nothing is held.

    Args:
        path: The lock file; its folder is made. It may stay there afterwards.
        wait: Whether to wait until another process lets go.

    Raises:
        BlockingIOError: Another process, or another block of this one, holds it, and `wait` is false.
        OSError: The folder cannot be made, or the file cannot be written.
    """
    import filelock

    path.parent.mkdir(parents=True, exist_ok=True)
    # Here, so that what follows can fail for want of locks alone.
    path.open("ab").close()
    lock = filelock.FileLock(path, timeout=-1 if wait else 0)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(lock)
        except filelock.Timeout as error:
            raise BlockingIOError(f"another process holds {path}") from error
        except (OSError, NotImplementedError):
            # Some network file systems have none: two writers are then the user's own care.
            pass
        yield
