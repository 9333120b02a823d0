"""Tiny data and trainers for tests of training; also a program that trains, to be killed."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import torch
from tiny_models import tiny_config

from nlpkit.core.model.lora import LINEAR_NAMES, LoraConfig, add_lora
from nlpkit.core.train.config import TrainConfig
from nlpkit.core.train.data.packing import Packer
from nlpkit.core.train.data.store import TokenRow, TokenStore, build_store
from nlpkit.core.train.init import new_model
from nlpkit.core.train.loop import Trainer
from nlpkit.core.train.session import Silence, TrainingOutcome, TrainingSession

SEQ = 32


def rows(count: int = 60, *, seed: int = 0, longest: int = SEQ) -> list[TokenRow]:
    """Counting rows, ending in EOS (0), some of the first tokens being prompt."""
    rng = random.Random(seed)
    made = []
    for i in range(count):
        length, start = rng.randint(2, longest), rng.randint(0, 20)
        ids = [(start + j) % 27 + 1 for j in range(length)] + [0]
        made.append(TokenRow(ids, rng.randint(0, length // 2), f"rows:{i + 1}"))
    return made


def store(path: Path, count: int = 60, *, seed: int = 0) -> TokenStore:
    return build_store(path, rows(count, seed=seed), key=f"{count} {seed}", vocab_size=29, seq_len=SEQ)


def config(**changes: Any) -> TrainConfig:
    values = {"method": "scratch", "seq_len": SEQ, "batch_size": 4, "max_steps": 12, "lr": 3e-3, "compile": "off"}
    return TrainConfig(**{**values, **changes})


def trainer(
    path: Path,
    *,
    sources: list[Any] | None = None,
    lora: bool = False,
    targets: tuple[str, ...] = LINEAR_NAMES,
    **changes: Any,
) -> Trainer:
    model = new_model(tiny_config(vocab_size=29), seed=1)
    if lora:
        add_lora(model, LoraConfig(rank=3, dropout=changes.get("dropout", 0.0), targets=targets))
        changes["method"] = "lora"
    settings = config(**changes)
    data = sources or [store(path)]
    return Trainer(model, settings, Packer(data, seq_len=SEQ, seed=settings.seed, epochs=settings.epochs))


def dev_packer(path: Path) -> Packer:
    return Packer([store(path, 12, seed=5)], seq_len=SEQ, shuffle=False, epochs=1)


class _Announce(Silence):
    def on_step(self, info: Any, total: int) -> None:
        print(f"step {info.step}", flush=True)


def run(folder: Path, *, resume: bool, announce: bool = False, **changes: Any) -> TrainingOutcome:
    made = trainer(folder / "data", **changes)
    session = TrainingSession(made, folder, identity={"the data": "tiny"}, dev=dev_packer(folder / "dev"),
                      watcher=_Announce() if announce else None)  # fmt: skip
    if resume:
        session.resume()
    return session.run()


SETTINGS: dict[str, dict[str, Any]] = {
    "adamw": {"max_steps": 40, "dropout": 0.1, "ema": 0.9, "save_every": 3, "eval_every": 7, "accumulate": 2},
    "lora": {"max_steps": 40, "dropout": 0.1, "lora": True, "save_every": 4, "optimizer": "lion"},
    "bf16": {"max_steps": 40, "dtype": "bf16", "save_every": 5, "optimizer": "adafactor"},
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    outcome = run(Path(sys.argv[1]), resume=sys.argv[3] == "resume", announce=True, **SETTINGS[sys.argv[2]])
    torch.save(dict(outcome.weights), Path(sys.argv[1]) / "final.pt")
