"""``train --dry-run``: what the model will see, how much of it, and what it will cost. Nothing is trained."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from nlpkit.apps.output import Writer
from nlpkit.apps.recipe import Recipe
from nlpkit.apps.train_options import TrainRunOptions
from nlpkit.apps.training import Training, set_up
from nlpkit.core.train.distributed import Process

ROWS_SHOWN = 2
TOKENS_SHOWN = 400
TRIAL_STEPS = 3


def peak_memory() -> int:
    """Return the most memory that this process had so far, in bytes; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024


def show(recipe: Recipe, run: TrainRunOptions, process: Process) -> int:
    """Print it all.

    Args:
        recipe: What would be trained.
        run: Says whether to print JSON.
        process: This process.

    Returns:
        The exit code 0.

    Raises:
        NlpkitError: Something cannot be used: just what a dry run is for.
    """
    # Compiling takes longer than the few steps that are measured.
    recipe = dataclasses.replace(recipe, train={**recipe.train, "compile": "off"})
    with tempfile.TemporaryDirectory(prefix="nlpkit-dry-run-") as folder:
        training = set_up(recipe, process=process, folder=Path(folder))
        rows = _rows(training)
        facts = _facts(training)
    with Writer(None, as_json=run.as_json) as writer:
        writer.write({"rows": rows, **facts} if run.as_json else _render(rows, facts))
    return 0


def _rows(training: Training) -> list[dict[str, Any]]:
    shown = []
    tokenizer = training.start.coder.tokenizer
    for source in training.sources:
        for index in range(min(ROWS_SHOWN, source.rows.n_rows)):
            ids, prompt = source.rows.row(index, 0)
            kept = [int(token) for token in ids]
            shown.append(
                {
                    "source": source.name,
                    "row": index + 1,
                    "tokens": len(kept),
                    "prompt_tokens": prompt,
                    "target_tokens": source.rows.targets(index),
                    "prompt": tokenizer.decode(kept[:prompt], skip_special=False),
                    "target": tokenizer.decode(kept[prompt:], skip_special=False),
                    "token_ids": kept[:TOKENS_SHOWN],
                    "supervised": [int(at >= max(1, prompt)) for at in range(len(kept))][:TOKENS_SHOWN],
                }
            )
    return shown


def _facts(training: Training) -> dict[str, Any]:
    trainer, config = training.trainer, training.start.config
    packer = trainer.packer
    bins = packer.take(2048)
    slots, targets = packer.count(bins)
    fill = slots / max(1, len(bins) * config.seq_len)
    packer.restore(type(packer.state)(drawn=[0] * len(packer.sources)))
    rows_per_step = config.batch_size * config.accumulate * trainer.process.world
    total = trainer.total_steps
    # A few real steps: no formula knows this machine. Nothing of them is kept.
    seconds = [info.seconds for _ in range(min(TRIAL_STEPS, total)) if (info := trainer.make_step()) is not None]
    step = sorted(seconds)[len(seconds) // 2] if seconds else 0.0
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    trained = sum(master.numel() for master in trainer.weights.masters.values())
    return {
        "method": config.method,
        "parameters": parameters,
        "trained_parameters": trained,
        "dtype": config.dtype,
        "sources": [_source(source, config.seq_len) for source in training.sources],
        "dev_sources": [_source(source, config.seq_len) for source in training.dev_sources],
        "seq_len": config.seq_len,
        "rows_per_step": rows_per_step,
        "filled": fill,
        "target_share": targets / max(1, slots),
        "steps": total,
        "step_seconds": step,
        "seconds": step * total,
        "tokens_per_second": fill * rows_per_step * config.seq_len / step if step else 0.0,
        "memory_bytes": _memory(trained, parameters, config.dtype, config.optimizer, bool(config.ema)),
        "peak_memory_bytes": peak_memory(),
        "notes": list(trainer.notes),
    }


def _memory(trained: int, parameters: int, dtype: str, optimizer: str, ema: bool) -> int:
    """Return the bytes of weights, gradients and optimizer state; activations come on top."""
    wide = dtype == "bf16"
    state = {"adamw": 8, "lion": 4, "adafactor": 1}[optimizer]
    return (parameters - trained) * (2 if wide else 4) + trained * ((6 if wide else 4) + 4 + state + (4 if ema else 0))


def _source(source: Any, seq_len: int) -> dict[str, Any]:
    stats = source.store.stats
    sizes = np.array(
        [source.rows.slots(index) + 1 for index in range(0, source.rows.n_rows, 1 + source.rows.n_rows // 5000)]
    )
    return {
        "name": source.name,
        "task": source.spec.task,
        "rows": stats.rows,
        "kept": source.rows.n_rows,
        "packed_rows": source.packed.n_rows,
        "saved": source.saved,
        "dropped": stats.dropped,
        "truncated": stats.truncated,
        "split": stats.split,
        "tokens": stats.tokens,
        "targets": stats.targets,
        "longest": stats.longest,
        "longest_kept": int(sizes.max()),
        "median_tokens": int(np.median(sizes)),
        "p95_tokens": int(np.percentile(sizes, 95)),
        "description": source.describe(seq_len),
    }


def _render(rows: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    lines = []
    for row in rows:
        lines.append(
            f"== {row['source']}, row {row['row']}: {row['tokens']} tokens, {row['prompt_tokens']} of them prompt "
            f"(no loss), {row['target_tokens']} targets"
        )
        lines += [f"-- prompt\n{row['prompt']}"] if row["prompt_tokens"] else []
        lines += [f"-- target\n{row['target']}", f"-- token ids, targets in brackets\n{_marked(row)}", ""]
    for source in facts["sources"]:
        lines.append(
            f"{source['name']} ({source['task']}): {source['description']}; tokens a row: median "
            f"{source['median_tokens']}, 95% up to {source['p95_tokens']}, longest {source['longest_kept']}"
        )
    lines += [f"dev {source['name']}: {source['description']}" for source in facts["dev_sources"]]
    lines += [
        f"model: {facts['parameters']:,} parameters, {facts['trained_parameters']:,} of them trained, {facts['dtype']}"
        " (measured without compilation)",
        f"packing: rows of {facts['seq_len']} tokens, {100 * facts['filled']:.1f}% full; "
        f"{100 * facts['target_share']:.1f}% of the tokens are targets",
        f"steps: {facts['steps']:,} of {facts['rows_per_step']} packed rows",
        f"time: {facts['step_seconds']:.2f} s a step measured over a few, {facts['tokens_per_second']:,.0f} tokens/s, "
        f"about {_duration(facts['seconds'])} in all without evaluations",
        f"memory: {facts['memory_bytes'] / 2**20:,.0f} MiB of weights, gradients and optimizer state; "
        f"{facts['peak_memory_bytes'] / 2**20:,.0f} MiB in all at the peak of the measured steps",
    ]
    lines += [f"note: {text}" for text in facts["notes"]]
    return "\n".join(lines)


def _marked(row: dict[str, Any]) -> str:
    shown = [f"[{i}]" if on else str(i) for i, on in zip(row["token_ids"], row["supervised"], strict=True)]
    return " ".join(shown) + (" ..." if row["tokens"] > len(shown) else "")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
