"""Tasks end to end beside other libraries: ``python tests/benchmarks/bench_tasks.py translation=ROWS.jsonl qa=ROWS.jsonl``.

Each task's rows are run greedily with its shipped adapter. The others get the same prompts, token by token, the same
bounds on new tokens, and the same weights with the adapter merged: transformers in bf16, CTranslate2 in int8, both in
batches of rows sorted by length. Every engine runs in a process of its own. What is printed: seconds from the first prompt to the last text, and seconds of the whole process, imports and loading included.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BATCH = 32


def rows_of(path: Path, limit: int) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line, _ in zip(file, range(limit), strict=False)]


def run_nlpkit(task: str, rows: list[dict[str, Any]], args: argparse.Namespace) -> dict[str, Any]:
    """Run a task as a program would; where asked for, write down the requests that it makes."""
    import nlpkit
    from nlpkit.core.decode.request import Request
    from nlpkit.core.language_model import LanguageModel

    made: list[dict[str, Any]] = []
    if args.requests is not None:
        generate = LanguageModel.generate

        def recording(self: LanguageModel, requests: list[Request], **options: Any) -> Any:
            requests = list(requests)
            made.extend({"prompt": one.prompt_ids, "new": one.config.max_tokens} for one in requests)
            return generate(self, requests, **options)

        LanguageModel.generate = recording  # type: ignore[method-assign]
    lm = nlpkit.load(dtype=args.dtype, threads=args.threads)
    # One row first, so that what is measured next holds no loading; backwards, so that nothing of it is known already.
    longest = max(
        (name for name, value in rows[0].items() if isinstance(value, str)), key=lambda one: len(rows[0][one])
    )
    backwards = " ".join(reversed(rows[0][longest].split()))
    lm.run(task, [{**rows[0], longest: backwards}], options={"beam_size": 1})
    made.clear()
    began = time.perf_counter()
    results = lm.run(task, rows, options={"beam_size": 1})
    seconds = time.perf_counter() - began
    if args.requests is not None:
        args.requests.write_text("\n".join(map(json.dumps, made)), "utf-8")
    return {"seconds": seconds, "texts": [result.text for result in results]}


def run_transformers(requests: list[dict[str, Any]], args: argparse.Namespace) -> dict[str, Any]:
    import torch
    import transformers

    torch.set_num_threads(args.threads)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(args.weights)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(args.weights, dtype=torch.bfloat16).eval()
    began, texts = time.perf_counter(), [""] * len(requests)
    order = sorted(range(len(requests)), key=lambda at: len(requests[at]["prompt"]))
    for first in range(0, len(order), args.batch):
        group = order[first : first + args.batch]
        width = max(len(requests[at]["prompt"]) for at in group)
        ids = torch.tensor([[0] * (width - len(requests[at]["prompt"])) + requests[at]["prompt"] for at in group])
        mask = torch.tensor([[int(i >= width - len(requests[at]["prompt"])) for i in range(width)] for at in group])
        with torch.inference_mode():
            out = model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=max(requests[at]["new"] for at in group),
                do_sample=False,
                eos_token_id=args.eos,
                pad_token_id=0,
            )
        for at, row in zip(group, out[:, width:].tolist(), strict=True):
            texts[at] = tokenizer.decode(row, skip_special_tokens=True)
    return {"seconds": time.perf_counter() - began, "texts": texts}


def run_ctranslate2(requests: list[dict[str, Any]], args: argparse.Namespace) -> dict[str, Any]:
    import ctranslate2
    import transformers

    model: Any = ctranslate2.Generator(
        str(args.weights), device="cpu", compute_type="int8", inter_threads=1, intra_threads=args.threads
    )
    words = json.loads((args.weights / "vocabulary.json").read_text("utf-8"))
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(args.weights.parent / "hf")
    began, texts = time.perf_counter(), [""] * len(requests)
    order = sorted(range(len(requests)), key=lambda at: len(requests[at]["prompt"]))
    for first in range(0, len(order), args.batch):
        group = order[first : first + args.batch]
        results = model.generate_batch(
            [[words[token] for token in requests[at]["prompt"]] for at in group],
            max_length=max(requests[at]["new"] for at in group),
            sampling_topk=1,
            beam_size=1,
            end_token=[words[token] for token in args.eos],
            include_prompt_in_result=False,
        )
        for at, result in zip(group, results, strict=True):
            texts[at] = tokenizer.decode(result.sequences_ids[0], skip_special_tokens=True)
    return {"seconds": time.perf_counter() - began, "texts": texts}


def measure(
    engine: str, task: str, path: Path, args: argparse.Namespace, folder: Path
) -> tuple[float, float, list[str]]:
    """Run one engine in a process of its own: seconds of work, seconds of all, texts."""
    weights = folder / ("ctranslate2" if engine == "ctranslate2" else "hf")
    command = [sys.executable, __file__, f"{task}={path}", "--engine", engine, "--limit", str(args.limit),
               "--threads", str(args.threads), "--weights", str(weights), "--requests", str(folder / "requests.jsonl"),
               "--batch", str(args.batch), "--dtype", args.dtype,
               "--eos", *map(str, args.eos)]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    total = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{engine} failed:\n{done.stderr[-3000:]}")
    said = json.loads(done.stdout.splitlines()[-1])
    return said["seconds"], total, said["texts"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", metavar="TASK=ROWS", help="a task and a JSONL file of its rows")
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--dtype", default="auto", help="nlpkit's")
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--requests", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--eos", type=int, nargs="*", default=[], help=argparse.SUPPRESS)
    args = parser.parse_args()
    pairs = [(task, Path(path)) for task, _, path in (one.partition("=") for one in args.tasks)]
    if args.engine is not None:
        task, path = pairs[0]
        if args.engine == "nlpkit":
            result = run_nlpkit(task, rows_of(path, args.limit), args)
        else:
            requests = [json.loads(line) for line in args.requests.read_text("utf-8").splitlines()]
            result = (run_ctranslate2 if args.engine == "ctranslate2" else run_transformers)(requests, args)
        print(json.dumps(result))
        return

    from nlpkit.apps.bench.convert import convert_for_ctranslate2
    from nlpkit.apps.bench.peers import is_installed
    from nlpkit.apps.models.merging import merge_model
    from nlpkit.core.load import load_model

    engines = ["nlpkit", *(name for name in ("transformers", "ctranslate2") if is_installed(name))]
    args.eos = sorted(load_model("default", dtype="bf16").tokenizer.eos_ids)
    for task, path in pairs:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            merge_model("default", task, str(folder / "hf"), to="hf", dequantize=True)
            if "ctranslate2" in engines:
                convert_for_ctranslate2(folder / "hf", folder)
            found: dict[str, list[tuple[float, float]]] = {engine: [] for engine in engines}
            texts: dict[str, list[str]] = {}
            for run in range(args.runs):
                # nlpkit first in the first run: the others get the requests that it makes.
                for engine in engines if run % 2 == 0 else reversed(engines):
                    work, total, texts[engine] = measure(engine, task, path, args, folder)
                    found[engine].append((work, total))
                    print(f"{task}: {engine}: {work:.2f} s, whole process {total:.2f} s", file=sys.stderr, flush=True)
            middle = {
                engine: [statistics.median(part) for part in zip(*pairs, strict=True)]
                for engine, pairs in found.items()
            }
            count = len((folder / "requests.jsonl").read_text("utf-8").splitlines())
            print(f"{task}: {count} prompts, medians of {args.runs} runs")
            for engine, (work, total) in middle.items():
                mine, whole = middle["nlpkit"]
                words = sum(len(text.split()) for text in texts[engine])
                print(f"  {engine:13} {work:7.2f} s ({work / mine:4.2f} x)  whole {total:7.2f} s ({total / whole:4.2f} x)  "
                      f"{words} words", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
