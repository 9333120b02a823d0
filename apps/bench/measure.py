"""Speed and memory of decoding, side by side with other libraries on the same weights and prompts.

Every engine runs in a process of its own, so that peak memory and load time are its own. Figures are medians over
several runs. Prefill is one prompt of `BenchPlan.prompt_tokens` tokens; decode is batches of short prompts, with the
time for one token subtracted from the time for all.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from nlpkit.apps.bench.convert import convert_for_ctranslate2
from nlpkit.apps.bench.peers import is_installed
from nlpkit.apps.bench.plan import BenchLine, BenchPlan
from nlpkit.core.errors import ConfigError, NlpkitError, did_you_mean
from nlpkit.core.machine.processor import SPIN_COUNT, default_threads

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
    arguments = [sys.executable, "-m", "nlpkit.apps.bench.engine", json.dumps(asdict(plan))]
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
