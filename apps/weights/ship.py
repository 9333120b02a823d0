"""Put a trained adapter where it is shipped from: ``python -m nlpkit.apps.weights.ship TRAINED TASK``.

Factors are rounded to bf16, which is how training multiplied by them, and the folder says what was learned. With
``--model FORMAT`` what was trained is a model of the task's own, which becomes a GGUF file of that format.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from nlpkit.apps.models.adapters import CONFIG, FOLDER, MODEL, MODELS, WEIGHTS
from nlpkit.core.errors import ModelFileError
from nlpkit.core.fetch.resolve import resolve_model
from nlpkit.core.files.hashing import sha256_file
from nlpkit.core.formats.export import convert_model
from nlpkit.core.formats.learned_tasks import read_learned_tasks, write_learned_tasks
from nlpkit.core.formats.open import open_model


def ship(trained: Path, task: str) -> None:
    """Copy an adapter.

    Args:
        trained: Output folder of its training.
        task: Its task, which names the folder to write to.
    """
    folder = FOLDER / task
    weights = {name: value.to(torch.bfloat16).contiguous() for name, value in load_file(trained / WEIGHTS).items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    shutil.copyfile(trained / CONFIG, folder / CONFIG)
    (folder / WEIGHTS).chmod(0o644)
    base = sha256_file(resolve_model("default"))
    tuned = read_learned_tasks(trained)
    # A training does not know all: what the folder said before still holds where it says nothing.
    learned = tuned.learned or read_learned_tasks(folder).learned
    write_learned_tasks(folder, tuned.names | {task}, learned=learned, base_sha256=base)


def ship_model(trained: Path, task: str, file_format: str) -> None:
    """Write a model of a task's own, and beside it what it learned.

    Args:
        trained: Output folder of its training.
        task: Its task, which names the folder to write to.
        file_format: Format of the GGUF file, such as ``q6_k``.

    Raises:
        NlpkitError: It cannot be converted, or does not say that it learned the task.
    """
    tuned = open_model(trained).learned_tasks()
    if task not in tuned.names:
        raise ModelFileError(f"{trained} does not say that it learned {task}. Train it with --prompts brief.")
    folder = MODELS / task
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        convert_model(trained, f"gguf-{file_format}", Path(aside) / MODEL).replace(folder / MODEL)
    (folder / MODEL).chmod(0o644)
    tuned.write(folder)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trained", type=Path, help="output folder of the training")
    parser.add_argument("task", help="name of the task")
    parser.add_argument("--model", metavar="FORMAT", help="it is a model, for GGUF: q8_0, q6_k, q5_1 or q4_1")
    options = parser.parse_args()
    if options.model is not None:
        ship_model(options.trained, options.task, options.model)
    else:
        ship(options.trained, options.task)


if __name__ == "__main__":
    main()
