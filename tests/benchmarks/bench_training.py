"""Training speed against the Hugging Face `Trainer` (with `peft` for LoRA): ``python tests/benchmarks/bench_training.py``.

Each engine runs in a process of its own, in turn, so that peak memory is its own and both meet the same machine. The
data are the same for both: rows of equal length without packing, the first half of each prompt, the second half
targets. Prints tokens/s (every token counted once), their ratio, and the peak resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ENGINES = ("nlpkit", "trainer")


def rows(count: int, seq_len: int, vocab_size: int) -> Any:
    import torch

    return torch.randint(10, vocab_size, (count, seq_len + 1), generator=torch.Generator().manual_seed(0))


def finish(engine: str, seconds: list[float], tokens: int, compiled: bool | None, losses: list[float]) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    rates = [tokens / value for value in seconds]
    print(json.dumps({"engine": engine, "tokens_per_s": statistics.median(rates), "best": max(rates),
                      "peak_memory_bytes": peak, "compiled": compiled, "losses": losses}))  # fmt: skip


def loaded(path: str, dtype: Any) -> Any:
    """Load a model and let go of its file, whose pages would count as memory in use."""
    from nlpkit.core.formats.build import build_model
    from nlpkit.core.formats.open import open_model

    source = open_model(path)
    return build_model(source.config, ((n, t.clone()) for n, t in source.tensors(dtype=dtype)), where=path)


def run_nlpkit(args: argparse.Namespace) -> None:
    import torch

    from nlpkit.core.model.lora import LoraConfig, add_lora
    from nlpkit.core.train.config import TrainConfig
    from nlpkit.core.train.data.packing import Packer
    from nlpkit.core.train.data.store import TokenRow, build_store
    from nlpkit.core.train.loop import Trainer, train

    wide = torch.float32 if args.method == "full" or args.dtype == "fp32" else torch.bfloat16
    model = loaded(args.model, wide)
    vocab_size = model.config.vocab_size
    if args.method == "lora":
        add_lora(
            model, LoraConfig(rank=args.rank, alpha=2 * args.rank, targets=("q", "k", "v", "o", "gate", "up", "down"))
        )
    else:
        model.requires_grad_(True)
    steps = args.warmup + args.steps
    config = TrainConfig(method=args.method, seq_len=args.seq_len, batch_size=args.batch_size, max_steps=steps, lr=1e-4,
                         dtype=args.dtype, compile=args.compile, schedule="constant", warmup=0,
                         weight_decay=0.0)  # fmt: skip
    data = rows(steps * args.batch_size, args.seq_len, vocab_size)
    # The prompt's last token predicts the first target: half of the positions have a label.
    made = (TokenRow(row.tolist(), args.seq_len // 2 + 1, "bench") for row in data)
    with tempfile.TemporaryDirectory() as folder:
        store = build_store(Path(folder) / "d", made, key="bench", vocab_size=vocab_size,
                            seq_len=args.seq_len)  # fmt: skip
        trainer = Trainer(model, config, Packer([store], seq_len=args.seq_len, shuffle=False))
        infos = list(train(trainer))
    seconds = [info.seconds for info in infos[args.warmup :]]
    finish("nlpkit", seconds, args.batch_size * args.seq_len, trainer.compiled, [info.loss for info in infos])


def run_trainer(args: argparse.Namespace) -> None:
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        args.hf, dtype=torch.bfloat16 if args.method == "lora" and args.dtype == "bf16" else torch.float32
    )
    if args.method == "lora":
        import peft

        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        settings = peft.LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules=targets, task_type="CAUSAL_LM")
        model = peft.get_peft_model(model, settings)
    steps = args.warmup + args.steps
    data = rows(steps * args.batch_size, args.seq_len, model.config.vocab_size)

    class Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(data)

        def __getitem__(self, index: int) -> dict[str, Any]:
            ids = data[index, : args.seq_len]
            labels = ids.clone()
            labels[: args.seq_len // 2] = -100
            return {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}

    times: list[float] = []
    losses: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter() - self.began)

        def on_log(self, arguments: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            losses.extend([logs["loss"]] if "loss" in (logs or {}) else [])

    with tempfile.TemporaryDirectory() as folder:
        options = transformers.TrainingArguments(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=args.batch_size, learning_rate=1e-4,
            bf16=args.dtype == "bf16", use_cpu=True, report_to=[], save_strategy="no", logging_steps=1,
            lr_scheduler_type="constant", disable_tqdm=True, weight_decay=0.0, max_grad_norm=1.0,
            dataloader_num_workers=0, optim="adamw_torch_fused",
        )  # fmt: skip
        transformers.Trainer(model=model, args=options, train_dataset=Rows(), callbacks=[Clock()]).train()
    finish("trainer", times[args.warmup :], args.batch_size * args.seq_len, None, losses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default", help="a model that nlpkit loads")
    parser.add_argument("--methods", nargs="+", default=["lora", "full"])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--dtype", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--compile", default="on", choices=["on", "off"])
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    parser.add_argument("--hf", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.engine is not None:
        import torch

        torch.set_num_threads(args.threads)
        (run_nlpkit if args.engine == "nlpkit" else run_trainer)(args)
        return
    from nlpkit.core.fetch.resolve import resolve_model
    from nlpkit.core.formats.export import convert_model

    path = resolve_model(args.model)
    with tempfile.TemporaryDirectory() as folder:
        hf = Path(folder) / "hf"
        convert_model(path, "hf", hf)
        print(f"{platform.processor() or platform.machine()}, {args.threads} threads, {args.batch_size}x{args.seq_len}, "
              f"{args.dtype}, half of the tokens targets, {args.repeats} runs of {args.steps} steps")  # fmt: skip
        for method in args.methods:
            found: dict[str, list[dict[str, Any]]] = {engine: [] for engine in ENGINES}
            for repeat in range(args.repeats):
                # The order alternates: a machine that warms up or throttles is fair to both.
                for engine in ENGINES if repeat % 2 == 0 else ENGINES[::-1]:
                    names = ("batch_size", "seq_len", "rank", "dtype", "compile", "warmup", "steps", "threads")
                    command = [sys.executable, __file__, "--engine", engine, "--method", method, "--model", str(hf),
                               "--hf", str(hf)]  # fmt: skip
                    for name in names:
                        command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
                    env = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
                    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
                    if done.returncode:
                        sys.exit(f"{engine} {method} failed:\n{done.stderr[-3000:]}")
                    result = json.loads(done.stdout.splitlines()[-1])
                    found[engine].append(result)
                    print(f"{method} {engine}: {result['tokens_per_s']:.0f} tokens/s, "
                          f"{result['peak_memory_bytes'] / 2**20:.0f} MiB, loss {result['losses'][0]:.3f} -> "
                          f"{result['losses'][-1]:.3f}", flush=True)  # fmt: skip
            middle = {engine: statistics.median(run["tokens_per_s"] for run in runs) for engine, runs in found.items()}
            peak = {engine: max(run["peak_memory_bytes"] for run in runs) for engine, runs in found.items()}
            spread = {
                engine: [min(r["tokens_per_s"] for r in runs), max(r["tokens_per_s"] for r in runs)]
                for engine, runs in found.items()
            }
            print(f"{method}: nlpkit {middle['nlpkit']:.0f} {spread['nlpkit']} tokens/s, Trainer {middle['trainer']:.0f} "
                  f"{spread['trainer']}: {middle['nlpkit'] / middle['trainer']:.2f} times; peak memory "
                  f"{peak['nlpkit'] / 2**20:.0f} and {peak['trainer'] / 2**20:.0f} MiB", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
