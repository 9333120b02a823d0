"""Where a number comes from: code, machine and versions, for the run record."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nlpkit.core.machine.memory import total_memory
from nlpkit.core.machine.processor import available_cores, cpu_name

PACKAGES = ("torch", "transformers", "tokenizers", "sentencepiece", "gguf", "numpy", "sacrebleu", "rouge-score")
"""Packages whose versions can change a score."""


def describe_code() -> dict[str, Any]:
    """Return nlpkit's version and, where it runs from a git checkout, the commit and whether files differ from it.

    Returns:
        ``version``, ``commit`` (None outside a checkout), ``dirty`` (None where it cannot be told).
    """
    root = Path(__file__).resolve().parents[2]
    commit, dirty = _git_state(root) if (root / ".git").exists() else (None, None)
    return {"version": package_version("nlpkit"), "commit": commit, "dirty": dirty}


def describe_machine() -> dict[str, Any]:
    """Return host, system, processor, memory and threads."""
    return {
        "host": socket.gethostname(),
        "system": platform.platform(),
        "cpu": cpu_name(),
        "cores": available_cores(),
        "memory_bytes": total_memory(),
        "threads": _threads(),
    }


def describe_versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that can change a score."""
    return {"python": platform.python_version(), **{name: package_version(name) for name in PACKAGES}}


def describe_session(argv: list[str] | None = None) -> dict[str, Any]:
    """Return all of the above for one process that works on a run.

    Args:
        argv: The command line; by default that of the process.
    """
    return {
        "started": now(),
        "argv": list(sys.argv if argv is None else argv),
        "folder": str(Path.cwd()),
        "code": describe_code(),
        "machine": describe_machine(),
        "versions": describe_versions(),
    }


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def package_version(name: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git_state(root: Path) -> tuple[str | None, bool | None]:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *arguments],  # noqa: S607
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
                env=environment,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD")
    status = git("status", "--porcelain", "--untracked-files=no")
    return commit, None if status is None else bool(status)


def _threads() -> int | None:
    # Only asked where torch is loaded anyway: scoring needs no torch.
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None and hasattr(torch, "get_num_threads") else None
