"""A lock between processes, which a process that dies lets go of."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
"""What some network file systems answer: two writers are then the user's own care."""


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
    timeout = -1 if wait else 0
    try:
        # Its own way out, a file that is the lock by being there, would be taken for another process's.
        lock = filelock.FileLock(path, timeout=timeout, fallback_to_soft=False)
    except TypeError:  # of versions that have no such way out
        lock = filelock.FileLock(path, timeout=timeout)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(lock)
        except filelock.Timeout as error:
            raise BlockingIOError(f"another process holds {path}") from error
        except NotImplementedError:
            pass
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
