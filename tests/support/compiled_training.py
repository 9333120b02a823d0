"""A program that trains a tiny model eagerly, with a broken compiler, and compiled, and prints what came of it as JSON.

It runs by itself, with its own cache of kernels: what is compiled must be neither found from before nor left behind.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import tiny_training
import torch

from nlpkit.core.train import prepare
from nlpkit.core.train.loop import train


def losses(folder: Path, choice: str) -> dict[str, Any]:
    # A layer of each half of a block is adapted: each one more is some kernels more to compile, all of one kind.
    changes: dict[str, Any] = {"lora": True, "targets": ("q", "down"), "compile": choice}
    trainer = tiny_training.trainer(folder / "data", max_steps=3, lr=1e-2, **changes)
    was_compiled = trainer.compiled
    found = [info.loss for info in train(trainer)]
    dev = trainer.measure(tiny_training.dev_packer(folder / "dev"))[0]
    return {"losses": found, "dev": dev, "compiled": [was_compiled, trainer.compiled], "notes": trainer.notes}


if __name__ == "__main__":
    where = Path(sys.argv[1])
    torch.set_num_threads(1)
    prepare.WORTH_COMPILING = 0.0
    results = {"eager": losses(where, "off")}
    from torch._inductor import config

    working = config.cpp.cxx
    config.cpp.cxx = (None, sys.argv[2])
    results["broken"] = losses(where, "auto")
    config.cpp.cxx = working
    torch._dynamo.reset()
    results["compiled"] = losses(where, "on")
    print(json.dumps(results))
