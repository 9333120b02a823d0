"""A program for torchrun: trains a tiny model in several processes and leaves what the test compares."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import tiny_training
import torch
from tiny_models import tiny_config

from nlpkit.core.train.checkpoints.checkpoint import latest_checkpoint, save_checkpoint
from nlpkit.core.train.checkpoints.resume import resume
from nlpkit.core.train.data.packing import Packer
from nlpkit.core.train.distributed import Process, join, leave, whole
from nlpkit.core.train.init import new_model
from nlpkit.core.train.loop import Trainer, train
from nlpkit.core.train.session import TrainingSession

ROWS = 8  # packed rows in a step, however many processes share them


def build(folder: Path, process: Process, **changes: Any) -> Trainer:
    config = tiny_training.config(
        **{"batch_size": ROWS // 2 // process.world, "accumulate": 2, "max_steps": 10, "clip": 0.5, **changes}
    )
    if not process.is_first:
        process.wait()
    data = tiny_training.store(folder / "data")
    if process.is_first:
        process.wait()
    packer = Packer([data], seq_len=tiny_training.SEQ, seed=0)
    return Trainer(new_model(tiny_config(vocab_size=29), seed=1), config, packer, process=process)


def gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}

    def keep() -> None:
        found.update({name: whole(master.grad).clone() for name, master in trainer.weights.masters.items()})

    trainer.optimizer.step = keep  # type: ignore[method-assign]
    trainer.make_step()
    return found


def losses(trainer: Trainer, folder: Path, *, until: int | None = None) -> list[float]:
    made = [info.loss for info in train(trainer, until=until)]
    if until is not None:
        save_checkpoint(folder, trainer, identity={})
    return made


CASES = (("ddp", "fp32"), ("ddp", "bf16"), ("fsdp", "fp32"), ("fsdp", "bf16"))


def one(folder: Path, process: Process, parallel: str, dtype: str) -> None:
    results: dict[str, Any] = {}
    results["gradients"] = gradients(build(folder, process, parallel=parallel, dtype=dtype, clip=0))
    first = build(folder, process, parallel=parallel, dtype=dtype, ema=0.9)
    results["losses"] = losses(first, folder / f"{parallel}-{dtype}", until=6)
    results["dev"] = first.measure(tiny_training.dev_packer(folder / f"dev{process.rank}"))[0]
    # What one process left, several go on from.
    found, _ = latest_checkpoint(folder / f"single-{dtype}")
    assert found is not None
    second = build(folder, process, parallel=parallel, dtype=dtype, ema=0.9)
    notes = resume(second, found, identity={})
    results["notes"] = notes
    results["resumed"] = losses(second, folder)
    results["weights"] = {name: value.clone() for name, value in second.result().items()}
    calls = itertools.count(1)
    outcome = TrainingSession(build(folder, process, parallel=parallel, dtype=dtype, max_steps=3, eval_every=2, average=2,
                            metric="count"),
                      folder / f"session-{parallel}-{dtype}", identity={},
                      dev=tiny_training.dev_packer(folder / f"dev{process.rank}"),
                      evaluate=lambda model: {"count": next(calls) + 0 * float(model(torch.tensor([[1, 2, 3]])).mean())},
                      samples=lambda model: [{"next": str(int(model(torch.tensor([[1, 2]]))[0, -1].argmax()))}],
                      ).run()  # fmt: skip
    results["outcome"] = (outcome.reason, outcome.step)
    results["averaged"] = outcome.averaged
    if process.is_first:
        torch.save(results, folder / f"results-{parallel}-{dtype}.pt")
    process.wait()


if __name__ == "__main__":
    torch.set_num_threads(1)
    joined = join(torch.device("cpu"))
    for case in CASES:
        one(Path(sys.argv[1]), joined, *case)
    leave()
