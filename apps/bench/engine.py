"""One engine, measured in a process of its own: run as a program, it prints a line for each batch size."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from nlpkit.apps.bench.peers import load_ctranslate2, load_llama_cpp, load_transformers
from nlpkit.apps.bench.plan import BenchLine, BenchPlan, Decode
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.request import Request
from nlpkit.core.errors import ConfigError, did_you_mean
from nlpkit.core.load import load_model
from nlpkit.core.machine.lean_torch import import_torch
from nlpkit.core.machine.memory import peak_memory

SHORT_PROMPT = 32
_IMPORTED = time.perf_counter()


def _prompt(length: int, number: int = 0) -> list[int]:
    """Return ordinary token ids, none special, the same for every engine; other numbers begin differently."""
    return [1000 + (7919 * i + 131 * number) % 20000 for i in range(length)]


def _load_nlpkit(plan: BenchPlan) -> tuple[str, Decode]:
    # As the commands do.
    import_torch()

    model = load_model(plan.model, dtype=plan.dtype, device="cpu", threads=plan.threads)
    # The prompts are all alike here, but are to stand for ones that are not.
    model.engine.prefixes = None

    def decode(prompts: Sequence[Sequence[int]], new_tokens: int) -> None:
        config = DecodeConfig(max_tokens=new_tokens, ignore_eos=True)
        list(model.generate([Request(prompt_ids=tuple(prompt), config=config) for prompt in prompts]))

    return model.dtype, decode


def _process_age() -> float:
    """Return the seconds since this process started, or since this module was imported where that is unknown."""
    try:
        ticks = float(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return uptime - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return time.perf_counter() - _IMPORTED


def _timed(decode: Decode, prompts: Sequence[Sequence[int]], new_tokens: int) -> float:
    started = time.perf_counter()
    decode(prompts, new_tokens)
    return time.perf_counter() - started


ENGINES: dict[str, Callable[[BenchPlan], tuple[str, Decode]]] = {
    "nlpkit": _load_nlpkit,
    "transformers": load_transformers,
    "llama.cpp": load_llama_cpp,
    "ctranslate2": load_ctranslate2,
}
"""Engines that can be measured. Each loads the model and returns its dtype and a function that decodes."""


def measure_here(plan: BenchPlan) -> Iterator[BenchLine]:
    """Measure one engine in this process.

    Args:
        plan: What to measure.

    Yields:
        A line per batch size.

    Raises:
        NlpkitError: The engine cannot run the model.
    """
    if plan.engine not in ENGINES:
        raise ConfigError(f"There is no engine {plan.engine!r}. {did_you_mean(plan.engine, ENGINES)}")
    started = time.perf_counter()
    dtype, decode = ENGINES[plan.engine](plan)
    load_s = time.perf_counter() - started
    short = _prompt(SHORT_PROMPT)
    decode([short], 1)
    first_token_s = _process_age()
    decode([_prompt(plan.prompt_tokens)], 1)
    # A new prompt each time: engines may keep what they have read.
    prefill_s = statistics.median(
        _timed(decode, [_prompt(plan.prompt_tokens, run)], 1) for run in range(1, plan.runs + 1)
    )
    for batch in plan.batches:
        prompts = [_prompt(SHORT_PROMPT, number) for number in range(batch)]
        decode(prompts, 2)
        times = [_timed(decode, prompts, plan.new_tokens + 1) - _timed(decode, prompts, 1) for _ in range(plan.runs)]
        yield BenchLine(
            engine=plan.engine,
            dtype=dtype,
            batch=batch,
            prefill_tokens_per_s=plan.prompt_tokens / prefill_s,
            decode_tokens_per_s=batch * plan.new_tokens / statistics.median(times),
            load_s=load_s,
            first_token_s=first_token_s,
            peak_memory_bytes=peak_memory(),
        )


if __name__ == "__main__":
    values = json.loads(sys.argv[1])
    for measured in measure_here(BenchPlan(**{**values, "batches": tuple(values["batches"])})):
        sys.stdout.write(json.dumps(asdict(measured)) + "\n")
        sys.stdout.flush()
