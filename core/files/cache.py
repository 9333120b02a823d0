"""The folder that keeps downloaded models, and safe ways to write into it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from nlpkit.core.errors import FetchError
from nlpkit.core.files.lock import file_lock

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


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an inter-process lock; a second process waits until the first lets go or dies.

    Args:
        path: The lock file; its folder is made. It stays there afterwards.

    Raises:
        FetchError: The cache folder cannot be written.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(file_lock(path))
        except OSError as error:
            raise FetchError(
                f"The cache folder {path.parent} cannot be used: {error}. Set NLPKIT_HOME to a folder that can be "
                "written."
            ) from error
        yield
