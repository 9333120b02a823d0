"""Print what 10,000 requests with random hang-ups leave of memory and slots, on a tiny model or on a named one.

python tests/benchmarks/soak_serving.py [COUNT] [MODEL]
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

SUPPORT = Path(__file__).parent.parent / "support"
TINY = "import sys, time\nsys.path.insert(0, %r)\nfrom tiny_server import *\nwith running(tiny_settings()) as a:\n    print(a, flush=True)\n    time.sleep(1e6)\n"


def rss(pid: int) -> float:
    """Resident memory in MB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1000  # type: ignore[index]


def gauge(address: str, name: str) -> float:
    with urllib.request.urlopen(f"{address}/metrics") as answer:
        text = answer.read().decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


@contextlib.contextmanager
def tiny_process() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve a tiny model in a process of its own."""
    with subprocess.Popen([sys.executable, "-c", TINY % str(SUPPORT)], stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().strip(), server  # type: ignore[union-attr]
        finally:
            server.terminate()


def main() -> None:
    sys.path.insert(0, str(SUPPORT))
    from served import serving
    from soaking import soak

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    model = sys.argv[2] if len(sys.argv) > 2 else "tiny"
    with tiny_process() if model == "tiny" else serving("--model", model) as (address, server):
        # Warmed up first: what is loaded once is no leak.
        asyncio.run(soak(address, model, count=max(200, count // 20), seed=1))
        print(f"after warming up: {rss(server.pid):.0f} MB")
        began = time.perf_counter()
        for part in range(5):
            ended = asyncio.run(soak(address, model, count=count // 5, seed=2 + part))
            time.sleep(2)
            print(f"after {(part + 1) * count // 5}: {rss(server.pid):.0f} MB, {dict(sorted(ended.items()))}")
        print(f"{time.perf_counter() - began:.0f} s; slots in use {gauge(address, 'nlpkit_slots'):g}, "
              f"waiting {gauge(address, 'nlpkit_waiting'):g}, inside {gauge(address, 'nlpkit_requests_inside'):g}")  # fmt: skip
    if model != "tiny":
        # What serves the tiny one is no command that ends by itself.
        print(f"exit code {server.returncode}")


if __name__ == "__main__":
    main()
