"""``train --dry-run``: what the model will see, how much of it, and what it will cost. Nothing is trained."""

from __future__ import annotations

from typing import Any

import numpy as np

from nlpkit.apps.training.setup import Training
from nlpkit.core.machine.memory import peak_memory

ROWS_SHOWN = 2
TOKENS_SHOWN = 400
TRIAL_STEPS = 3


def _rows(training: Training) -> list[dict[str, Any]]:
    shown = []
    tokenizer = training.start.encoder.tokenizer
    for source in training.sources:
        for index in range(min(ROWS_SHOWN, source.rows.n_rows)):
            ids, prompt = source.rows.row(index, 0)
            kept = [int(token) for token in ids]
            parts = (kept[:prompt], kept, kept[prompt:])
            asked, whole, behind = (tokenizer.decode(part, skip_special=False) for part in parts)
            shown.append(
                {
                    "source": source.name,
                    "row": index + 1,
                    "tokens": len(kept),
                    "prompt_tokens": prompt,
                    "target_tokens": source.rows.targets(index),
                    "prompt": asked,
                    # Where two tokens are one character, what the prompt ends with is not what the whole has there.
                    "target": whole[len(asked) :] if whole.startswith(asked) else behind,
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
