"""The processor: how many threads to compute with, what this process may really use, and which instructions it has."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import sys
import threading
from pathlib import Path

from nlpkit.core.errors import ConfigError

SPIN_COUNT = "1000"
"""Turns that a waiting OpenMP thread spins before it sleeps; GNU OpenMP's own choice when it sees too many threads."""


def read_proc(name: str) -> list[tuple[str, str]]:
    """Return the ``key: value`` lines of a file in /proc; none where there is no such file."""
    try:
        text = Path("/proc", name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    pairs = (line.partition(":") for line in text.splitlines())
    return [(key.strip(), value.strip()) for key, _, value in pairs]


def _cgroup_quota() -> float | None:
    """Return the CPU quota of the control group in cores, or None without one."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        base = Path("/sys/fs/cgroup/cpu")
        limit = int((base / "cpu.cfs_quota_us").read_text())
        return limit / int((base / "cpu.cfs_period_us").read_text()) if limit > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def calm_openmp() -> None:
    """Let waiting OpenMP threads sleep soon.

    GNU OpenMP threads wait for each other by spinning, by default for milliseconds. On a machine that does anything
    else as well, the thread that is spinning keeps the one it waits for from running, and decoding, with its thousands
    of small parallel steps a second, becomes many times slower. What the user has set in the environment stays.
    """
    if "OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ:
        return
    os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
    if "torch" in sys.modules and sys.platform == "linux":
        # It has read the environment already.
        threading.Thread(target=_hold_threads, name="nlpkit-openmp", daemon=True).start()


def _hold_threads() -> None:
    """Own a team of OpenMP threads that never computes.

    With it the process has more of them than cores, and GNU OpenMP itself then spins as shortly as `SPIN_COUNT` says.
    """
    import torch

    with contextlib.suppress(RuntimeError):  # no memory for it: threads that spin are slow, not wrong
        torch.empty(1 << 18).fill_(0.0)
    threading.Event().wait()


def available_cores() -> int:
    """Return the cores that this process may use: its affinity, cut by its control group's quota; at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(cores, int(quota)) if quota is not None and quota >= 1 else (1 if quota is not None else cores))


def cpu_flags() -> frozenset[str]:
    """Return the processor's features by the names that Linux gives them; none elsewhere."""
    found = next((value for key, value in read_proc("cpuinfo") if key in ("flags", "Features")), "")
    return frozenset(found.split())


def cpu_name() -> str:
    """Return what the processor is called."""
    names = [value for key, value in read_proc("cpuinfo") if key == "model name"]
    return names[0] if names else platform.processor() or platform.machine()


def is_amd() -> bool:
    """Tell whether AMD made the processor."""
    makers = [value for key, value in read_proc("cpuinfo") if key == "vendor_id"]
    return "AuthenticAMD" in (makers[0] if makers else platform.processor())


def default_threads() -> int:
    """Return the number of threads to compute with: OMP_NUM_THREADS if set, else `available_cores`."""
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return int(given) if given.isdigit() and int(given) > 0 else available_cores()


def set_threads(threads: int | None) -> int:
    """Set the number of threads that torch computes with.

    Args:
        threads: The number; None takes `default_threads`.

    Returns:
        The number set.

    Raises:
        ConfigError: The number is below 1 or absurd.
    """
    import torch

    if threads is None:
        threads = default_threads()
    if not 1 <= threads <= 4096:
        raise ConfigError(f"The number of threads is {threads}; it must be from 1 to 4096.")
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    _compute_alone_in_forks()
    return threads


@functools.cache
def _compute_alone_in_forks() -> None:
    """Let processes that are forked off compute with one thread: OpenMP's others do not live on in them.

    A parallel region in the child would wait for them for ever; a region of one thread needs nobody.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_compute_alone)


def _compute_alone() -> None:
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
