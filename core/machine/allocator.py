"""How the C library's allocator treats memory that is freed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterator

# From glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGEST = 1 << 30
_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
# Where glibc's own adjustment of the thresholds ends.
_USUAL_MMAP, _USUAL_TRIM = 32 << 20, 64 << 20


def _mallopt() -> Callable[[int, int], int] | None:
    """Return glibc's function, or None with another C library, or where the user has chosen settings."""
    return None if any(name in os.environ for name in _VARIABLES) else _from_glibc()


def _from_glibc() -> Callable[[int, int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL(None)
    except OSError:
        return None
    # Other C libraries have a mallopt as well, with other meanings.
    if not (hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt")):
        return None
    function: Callable[[int, int], int] = library.mallopt
    return function


def keep_freed_memory() -> bool:
    """Have the C library keep the memory of freed tensors for the next ones, for the rest of this process.

    By default glibc gives each large block back to the system when it is freed, and the system hands out fresh pages,
    zeroed one by one, for the next: in training, where the same sizes come again every step, that takes up to a third
    of the time. Memory at its peak stays about the same. What the user has set in the environment stays.

    Returns:
        Whether anything was changed: only with glibc, which means Linux.
    """
    mallopt = _mallopt()
    if mallopt is None:
        return False
    settings = ((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 64 << 20))
    done = [mallopt(option, value) == 1 for option, value in settings]
    return all(done)


@contextlib.contextmanager
def giving_memory_back() -> Iterator[None]:
    """Have the C library give every larger block back as soon as it is freed, for the time of a ``with`` block.

    While weights are loaded and rearranged, what is freed lies between what is kept, and would otherwise stay in the
    process as holes as large as the model.
    """
    mallopt = _mallopt()
    if mallopt is None:
        yield
        return
    mallopt(_MMAP_THRESHOLD, 1 << 18)
    try:
        yield
    finally:
        mallopt(_MMAP_THRESHOLD, _USUAL_MMAP)
        mallopt(_TRIM_THRESHOLD, _USUAL_TRIM)
