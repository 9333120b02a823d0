"""OpenMP's threads sleep soon, also where torch was imported first."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

CODE = """
import json, os, sys, threading, time
if sys.argv[1] == "torch first":
    import torch
    torch.set_num_threads(3)
    torch.empty(1 << 18).fill_(0.0)
tasks = lambda: len(os.listdir("/proc/self/task"))
before = tasks()
import nlpkit
nlpkit.DecodeConfig
ends = time.monotonic() + 20
held = any(thread.name == "nlpkit-openmp" for thread in threading.enumerate())
while held and tasks() < before + 3 and time.monotonic() < ends:
    time.sleep(0.01)
print(json.dumps([held, os.environ.get("GOMP_SPINCOUNT"), held and tasks() >= before + 3]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="GNU OpenMP is Linux's")
@pytest.mark.parametrize(
    ("order", "given", "expected"),
    [
        # Two workers of a team of three, and their owner.
        ("torch first", {}, [True, "1000", True]),
        ("torch first", {"OMP_WAIT_POLICY": "active"}, [False, None, False]),
        ("torch first", {"GOMP_SPINCOUNT": "7"}, [False, "7", False]),
        ("nlpkit first", {}, [False, "1000", False]),
    ],
)
def test_threads_sleep_soon_whatever_came_first(order: str, given: dict[str, str], expected: list[object]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", CODE, order], capture_output=True, text=True, timeout=60,
        env={**environment, **given, "OMP_NUM_THREADS": "3"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected
