"""How much memory the machine and this process have, and how much this process has taken."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from nlpkit.core.machine.processor import read_proc


def total_memory() -> int | None:
    """Return the machine's memory in bytes, or None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def available_memory() -> int | None:
    """Return the bytes that could be taken without swapping, or None where the system does not say."""
    found = [value.split()[0] for key, value in read_proc("meminfo") if key == "MemAvailable" and value]
    return int(found[0]) * 1024 if found and found[0].isdigit() else None


def memory_limit() -> int | None:
    """Return the bytes that the control group allows, or None without a limit."""
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(name).read_text().strip()
        except OSError:
            continue
        # Without a limit the older interface gives a number near 2**63.
        if text.isdigit() and int(text) < 2**60:
            return int(text)
    return None


def peak_memory() -> int:
    """Return the most memory that this process had so far, in bytes; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024
