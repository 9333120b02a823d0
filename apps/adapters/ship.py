"""Put a trained adapter where it is shipped from: ``python -m nlpkit.apps.adapters.ship TRAINED TASK``.

Factors are rounded to bf16, which is how training multiplied by them, and the folder says what was learned.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from nlpkit.apps.adapters import CONFIG, FOLDER, WEIGHTS
from nlpkit.core.loaders.brief import read_brief_tasks, write_brief_tasks
from nlpkit.core.loaders.cache import sha256_file
from nlpkit.core.loaders.catalogue import resolve_model

LANGUAGES = {"translation": (("en", "de"), ("de", "en"), ("en", "fr"), ("fr", "en"))}
FORMS = {"writing": ("haiku", "poem", "dialogue")}


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
    learned = read_brief_tasks(trained).names | {task}
    write_brief_tasks(folder, learned, languages=LANGUAGES.get(task, ()), forms=FORMS.get(task, ()), base_sha256=base)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trained", type=Path, help="output folder of the training")
    parser.add_argument("task", help="name of the task")
    options = parser.parse_args()
    ship(options.trained, options.task)


if __name__ == "__main__":
    main()
