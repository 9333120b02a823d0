"""Training from scratch against a plain eager loop: ``python tests/benchmarks/bench_from_scratch.py input.txt``.

nanoGPT's character model for a CPU (4 layers, width 128, context 64, batch 12, 2,000 steps, fp32), the first nine tenths
of the text to train on and the rest to measure on. The peer is the loop that one would write by hand: the same model and
initial weights, random windows, `F.cross_entropy` over all positions, AdamW with the same options, no compilation. Each
runs in a process of its own, in turn. Wall time is that of the whole command, imports, compilation and the final
measurement of the held-out loss included.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS, BATCH, CONTEXT = 2000, 12, 64
LR, FLOOR, WARMUP = 1e-3, 1e-4, 100


def run_plain(text: str, steps: int) -> float:
    import torch
    import torch.nn.functional as F

    from nlpkit.core.train.init import new_model
    from nlpkit.core.train.presets import preset_config

    characters = sorted(set(text))
    ids = {character: index for index, character in enumerate(characters)}
    data = torch.tensor([ids[character] for character in text])
    cut = int(0.9 * len(data))
    train, held_out = data[:cut], data[cut:]
    torch.manual_seed(0)
    model = new_model(preset_config("nano", vocab_size=len(characters), seq_len=CONTEXT), seed=0).train()
    decay = [p for p in model.parameters() if p.dim() >= 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=LR, betas=(0.9, 0.99)
    )
    for step in range(steps):
        if step < WARMUP:
            rate = LR * (step + 1) / WARMUP
        else:
            rate = FLOOR + 0.5 * (LR - FLOOR) * (1 + math.cos(math.pi * (step - WARMUP) / (steps - WARMUP)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = torch.randint(len(train) - CONTEXT - 1, (BATCH,))
        windows = torch.stack([train[start : start + CONTEXT + 1] for start in starts])
        logits = model(windows[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    model.eval()
    total = count = 0.0
    with torch.no_grad():
        for start in range(0, len(held_out) - CONTEXT - 1, CONTEXT * 64):
            part = held_out[start : start + CONTEXT * 64 + 1]
            rows = (len(part) - 1) // CONTEXT
            inputs, labels = part[: rows * CONTEXT].view(rows, -1), part[1 : rows * CONTEXT + 1].view(rows, -1)
            total += float(F.cross_entropy(model(inputs).flatten(0, 1), labels.flatten(), reduction="sum"))
            count += rows * CONTEXT
    return total / count


def run_nlpkit(text: str, steps: int, folder: Path) -> float:
    from nlpkit.cli import main

    cut = int(0.9 * len(text))
    (folder / "train.txt").write_text(text[:cut], "utf-8")
    (folder / "val.txt").write_text(text[cut:], "utf-8")
    (folder / "recipe.toml").write_text(
        f'output = "{folder}/out"\nmethod = "scratch"\npreset = "nano"\ntask = "text"\n'
        f'data = ["{folder}/train.txt"]\neval_data = ["{folder}/val.txt"]\n[tokenizer]\nkind = "char"\n'
        f"[train]\nmax_steps = {steps}\nseq_len = {CONTEXT}\nbatch_size = {BATCH}\nlr = {LR}\nmin_lr = 0.1\n"
        f'warmup = {WARMUP}\nbeta2 = 0.99\nweight_decay = 0.1\ndtype = "fp32"\n[evaluation]\nsamples = 0\n',
        "utf-8",
    )
    if main(["train", "--config", str(folder / "recipe.toml"), "--quiet"]):
        sys.exit("the training failed")
    lines = (folder / "out" / "metrics.jsonl").read_text("utf-8").splitlines()
    return float([json.loads(line)["loss"] for line in lines if json.loads(line)["kind"] == "eval"][-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="a text file, such as tinyshakespeare's input.txt")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--engine", choices=("plain", "nlpkit"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.engine is not None:
        import torch

        torch.set_num_threads(args.threads)
        text = args.text.read_text("utf-8")
        if args.engine == "plain":
            loss = run_plain(text, args.steps)
        else:
            with tempfile.TemporaryDirectory() as folder:
                loss = run_nlpkit(text, args.steps, Path(folder))
        print(json.dumps({"loss": loss}))
        return
    seconds: dict[str, list[float]] = {"plain": [], "nlpkit": []}
    for repeat in range(args.repeats):
        for engine in ("plain", "nlpkit") if repeat % 2 == 0 else ("nlpkit", "plain"):
            command = [sys.executable, __file__, str(args.text), "--engine", engine, "--steps", str(args.steps),
                       "--threads", str(args.threads)]  # fmt: skip
            began = time.perf_counter()
            env = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
            if done.returncode:
                sys.exit(f"{engine} failed:\n{done.stderr[-3000:]}")
            seconds[engine].append(time.perf_counter() - began)
            loss = json.loads(done.stdout.splitlines()[-1])["loss"]
            print(f"{engine}: {seconds[engine][-1]:.1f} s, held-out loss {loss:.4f}", flush=True)
    middle = {engine: statistics.median(values) for engine, values in seconds.items()}
    print(f"nlpkit takes {middle['nlpkit'] / middle['plain']:.2f} times the plain loop's time")


if __name__ == "__main__":
    main()
