"""Decoding beside busy processes, nlpkit and llama.cpp in turn: ``python tests/benchmarks/bench_busy.py [--runs 5] [--threads 2]``.

Both engines are loaded once, each in a process of its own (llama.cpp through the package `xllamacpp`), from the same GGUF
file, and decode the same ids greedily: batch 1 and batch 8, alone, beside one and beside two processes that do nothing
but count. In each run all conditions come once, the engines one right after the other, in an order that is turned
around from run to run. What is printed: the median of tokens in a second, and the share of the same engine's median
alone. The exit code is 1 where a share of nlpkit's is below what is promised (45 % beside one process, 33 % beside two),
or not above llama.cpp's.

What is promised is so on two cores; on others, say how many processes with --busy. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

PROMPT_TOKENS = 16
PROMISED = {1: 0.45, 2: 0.33}
"""Least share of the speed alone that decoding keeps beside so many busy processes on two cores."""

Decode = Callable[[Sequence[Sequence[int]], int], None]


def load_ours(model: str, threads: int) -> Decode:
    """Load with nlpkit, as its commands do."""
    from nlpkit.core.machine.lean_torch import import_torch

    import_torch()
    from nlpkit.core.decode.config import DecodeConfig
    from nlpkit.core.decode.request import Request
    from nlpkit.core.load import load_model

    lm = load_model(model, device="cpu", threads=threads)
    lm.engine.prefixes = None

    def decode(prompts: Sequence[Sequence[int]], new_tokens: int) -> None:
        config = DecodeConfig(max_tokens=new_tokens, ignore_eos=True)
        done = list(lm.generate([Request(prompt_ids=tuple(prompt), config=config) for prompt in prompts]))
        if any(len(one.completions[0].token_ids) != new_tokens for _, one in done):
            raise SystemExit("nlpkit wrote fewer tokens than it was asked for")

    return decode


def load_theirs(model: str, threads: int) -> Decode:
    """Load with llama.cpp: its server, in this process, with a slot for each prompt."""
    import xllamacpp

    from nlpkit.apps.models.describe import pull_model

    params = xllamacpp.CommonParams()
    params.model.path = str(pull_model(model))
    params.n_parallel, params.n_ctx, params.cache_ram_mib = 8, 8 * 512, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.fit_params = params.ui = False
    params.verbosity = -1
    server = xllamacpp.Server(params)
    pool = ThreadPoolExecutor(8)

    def one(prompt: Sequence[int], new_tokens: int) -> None:
        asked = {"prompt": list(prompt), "n_predict": new_tokens, "ignore_eos": True, "temperature": 0.0}
        request = urllib.request.Request(
            f"{server.listening_address}/completion",
            json.dumps({**asked, "cache_prompt": False}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=1800) as response:
            answer = json.load(response)
        if answer.get("tokens_predicted") != new_tokens:
            raise SystemExit(f"llama.cpp wrote fewer tokens than it was asked for: {answer}")

    def decode(prompts: Sequence[Sequence[int]], new_tokens: int) -> None:
        list(pool.map(lambda prompt: one(prompt, new_tokens), prompts))

    return decode


ENGINES = {"nlpkit": load_ours, "llama.cpp": load_theirs}


def serve(engine: str, model: str, threads: int) -> None:
    """Decode what standard input asks for, a line a time, and print how long it took."""
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints
    decode = ENGINES[engine](model, threads)
    print("ready", file=results, flush=True)
    number = 0
    for line in sys.stdin:
        batch, new_tokens = json.loads(line)
        prompts = []
        for _ in range(batch):
            number += 1
            prompts.append([1000 + (7919 * i + 131 * number) % 20000 for i in range(PROMPT_TOKENS)])
        started = time.perf_counter()
        decode(prompts, new_tokens)
        print(time.perf_counter() - started, file=results, flush=True)


class Engine:
    """An engine in a process of its own."""

    def __init__(self, name: str, model: str, threads: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", name, "--model", model, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if self._line() != "ready":
            raise SystemExit(f"{name} did not start: python {__file__} --serve {name} says why")

    def _line(self) -> str:
        return self.process.stdout.readline().strip()  # type: ignore[union-attr]

    def seconds(self, batch: int, new_tokens: int) -> float:
        print(json.dumps([batch, new_tokens]), file=self.process.stdin, flush=True)
        return float(self._line())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep so many processes busy meanwhile."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.5 if count else 0.0)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(options: argparse.Namespace) -> dict[tuple[str, int, int], list[float]]:
    """Return tokens in a second by engine, batch and number of busy processes, a number a run."""
    engines: dict[str, Engine] = {}
    speeds: dict[tuple[str, int, int], list[float]] = {}
    try:
        for name in options.engine or ENGINES:
            engines[name] = Engine(name, options.model, options.threads)
        for batch in options.batch:
            for engine in engines.values():
                engine.seconds(batch, 32)
        for run in range(options.runs):
            for batch in options.batch:
                new_tokens = options.new_tokens if batch == 1 else max(16, options.new_tokens // 2)
                for count in options.busy:
                    with busy(count):
                        for name in list(engines)[:: 1 if run % 2 == 0 else -1]:
                            seconds = engines[name].seconds(batch, new_tokens)
                            speeds.setdefault((name, batch, count), []).append(batch * new_tokens / seconds)
            print(f"run {run + 1} of {options.runs}", file=sys.stderr, flush=True)
    finally:
        for engine in engines.values():
            engine.close()
    return speeds


def report(speeds: dict[tuple[str, int, int], list[float]]) -> bool:
    """Print a table, and return whether all that is promised holds."""
    medians = {key: statistics.median(found) for key, found in speeds.items()}
    shares = {key: value / medians[key[0], key[1], 0] for key, value in medians.items() if (*key[:2], 0) in medians}
    print(f"{'engine':<11}{'batch':>5}{'busy':>6}{'tokens/s':>10}{'least':>8}{'most':>8}{'share':>8}")
    for (name, batch, count), found in speeds.items():
        key = name, batch, count
        share = f"{100 * shares[key]:>6.0f} %" if key in shares else ""
        print(f"{name:<11}{batch:>5}{count:>6}{medians[key]:>10.1f}{min(found):>8.1f}{max(found):>8.1f}{share}")
    holds = True
    for (name, batch, count), share in shares.items():
        if name != "nlpkit" or not count:
            continue
        least, theirs = PROMISED.get(count, 0.0), shares.get(("llama.cpp", batch, count))
        if share < least:
            print(f"batch {batch} beside {count}: {100 * share:.0f} %, less than {100 * least:.0f} %")
            holds = False
        if theirs is not None and share <= theirs:
            print(f"batch {batch} beside {count}: {100 * share:.0f} %, not above llama.cpp's {100 * theirs:.0f} %")
            holds = False
    return holds


def main() -> int:
    parser: Any = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default", help="name or GGUF file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--new-tokens", type=int, default=128, help="at batch 1; half of it at others")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], help="numbers of busy processes")
    parser.add_argument("--engine", action="append", choices=list(ENGINES), help="repeatable; both by default")
    parser.add_argument("--serve", choices=list(ENGINES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.model, options.threads)
        return 0
    return 0 if report(measure(options)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
