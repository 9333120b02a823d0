"""Speed and memory of decoding, side by side with other libraries on the same weights and prompts.

Every engine runs in a process of its own, so that peak memory and load time are its own. Figures are medians over
several runs. Prefill is one prompt of `BenchPlan.prompt_tokens` tokens; decode is batches of short prompts, with the
time for one token subtracted from the time for all.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from nlpkit.apps.bench.peers import (
    convert_for_ctranslate2,
    is_installed,
    load_ctranslate2,
    load_llama_cpp,
    load_transformers,
)
from nlpkit.apps.bench.plan import BenchLine, BenchPlan, Decode
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.request import Request
from nlpkit.core.errors import ConfigError, NlpkitError, did_you_mean
from nlpkit.core.load import load_model
from nlpkit.core.machine.lean_torch import import_torch
from nlpkit.core.machine.memory import peak_memory
from nlpkit.core.machine.processor import SPIN_COUNT, default_threads

SHORT_PROMPT = 32


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


ENGINES: dict[str, Callable[[BenchPlan], tuple[str, Decode]]] = {
    "nlpkit": _load_nlpkit,
    "transformers": load_transformers,
    "llama.cpp": load_llama_cpp,
    "ctranslate2": load_ctranslate2,
}
"""Engines that can be measured. Each loads the model and returns its dtype and a function that decodes."""


def _process_age() -> float:
    """Return the seconds since this process started, or since this module was imported where that is unknown."""
    try:
        ticks = float(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return uptime - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return time.perf_counter() - _IMPORTED


_IMPORTED = time.perf_counter()


def _timed(decode: Decode, prompts: Sequence[Sequence[int]], new_tokens: int) -> float:
    started = time.perf_counter()
    decode(prompts, new_tokens)
    return time.perf_counter() - started


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


DTYPES = ("auto", "fp32", "bf16", "int8", "int4")
TRANSFORMERS_DTYPES = ("auto", "bf16", "fp32")
"""What `transformers` is measured in: it has no int8 or int4 weights on a CPU without further packages."""


def _available(model: Path, batches: tuple[int, ...]) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield the other engines that are installed and can run the model, with dtype and batch sizes."""
    if is_installed("llama.cpp") and model.suffix == ".gguf" and 1 in batches:
        yield "llama.cpp", "auto", (1,)
    if is_installed("ctranslate2"):
        yield "ctranslate2", "int8", batches


def build_plans(
    model: Path,
    *,
    peers: bool = False,
    dtypes: Sequence[str] = (),
    batches: Sequence[int] = (),
    prompt_tokens: int = 512,
    new_tokens: int = 64,
    runs: int = 3,
    threads: int | None = None,
) -> list[BenchPlan]:
    """Return what to measure: nlpkit in each dtype, then, if wanted, the peers.

    Peers are transformers in those dtypes that it has, llama.cpp on the same file (one prompt at a time, which is what
    its Python binding does) and CTranslate2 in int8, the last two where they are installed.

    Args:
        model: Path of the model.
        peers: Whether to measure the peers too.
        dtypes: Dtypes, in order; none given means ``auto``.
        batches: Batch sizes, in order; none given means 1, 8 and 32.
        prompt_tokens: Length of the prefill prompt.
        new_tokens: Tokens to decode per row.
        runs: Repetitions.
        threads: CPU threads; None takes as many as this process may use.

    Raises:
        ConfigError: There is no such dtype.
    """
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise ConfigError(f"There is no dtype {dtype!r}. {did_you_mean(dtype, DTYPES)}")
    wanted = tuple(dict.fromkeys(dtypes)) or ("auto",)
    sizes = tuple(dict.fromkeys(batches)) or (1, 8, 32)
    engines = [("nlpkit", dtype, sizes) for dtype in wanted]
    if peers:
        others = [dtype for dtype in wanted if dtype in TRANSFORMERS_DTYPES] or ["auto"]
        engines += [("transformers", dtype, sizes) for dtype in others]
        engines += _available(model, sizes)
    return [
        BenchPlan(
            engine=engine,
            model=str(model),
            dtype=dtype,
            batches=its_sizes,
            prompt_tokens=prompt_tokens,
            new_tokens=new_tokens,
            runs=runs,
            threads=threads or default_threads(),
        )
        for engine, dtype, its_sizes in engines
    ]


def _environment(plan: BenchPlan) -> dict[str, str]:
    """Return the child's environment: nlpkit's own OpenMP setting for nlpkit, for the others what they would have."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(plan.threads), "HF_HUB_OFFLINE": "1"}
    environment.pop("GOMP_SPINCOUNT", None)
    if plan.engine == "nlpkit" and "OMP_WAIT_POLICY" not in environment:
        environment["GOMP_SPINCOUNT"] = SPIN_COUNT
    return environment


def measure(plan: BenchPlan) -> Iterator[BenchLine]:
    """Measure one engine in a process of its own.

    Args:
        plan: What to measure.

    Yields:
        A line per batch size.

    Raises:
        NlpkitError: The child process failed; its own words are in the message.
    """
    if plan.engine == "ctranslate2" and not (Path(plan.model) / "model.bin").exists():
        with tempfile.TemporaryDirectory() as folder:
            converted = convert_for_ctranslate2(Path(plan.model), Path(folder))
            yield from measure(replace(plan, model=str(converted)))
        return
    arguments = [sys.executable, "-m", "nlpkit.apps.bench.measure", json.dumps(asdict(plan))]
    environment = _environment(plan)
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it left no message."])[-1]
        # The child's own errors are sentences already: only the name of their class goes.
        said = re.sub(r"^nlpkit\.[\w.]+Error: ", "", last)
        raise NlpkitError(f"The engine {plan.engine!r} could not be measured in {plan.dtype}: {said}")
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            yield BenchLine(**json.loads(line))


if __name__ == "__main__":
    values = json.loads(sys.argv[1])
    for measured in measure_here(BenchPlan(**{**values, "batches": tuple(values["batches"])})):
        sys.stdout.write(json.dumps(asdict(measured)) + "\n")
        sys.stdout.flush()
