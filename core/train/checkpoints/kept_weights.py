"""Weights that are kept beside the checkpoints: the best ones, and those of late states, with their mean."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from nlpkit.core.errors import ModelFileError, NlpkitError
from nlpkit.core.files.hashing import sha256_file
from nlpkit.core.files.read import read_json_object
from nlpkit.core.files.safetensors import SafetensorsFile, open_safetensors
from nlpkit.core.files.write import unwritable, whole_folder

MANIFEST, TENSORS = "state.json", "state.safetensors"
BEST = "best"


ADVICE = "Earlier checkpoints are as they were: make room and run again with --resume."


def _write(final: Path, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write weights into a folder of their own."""
    with unwritable(f"Weights cannot be written to {final}", advice=ADVICE), whole_folder(final) as aside:
        save_file({name: tensor.cpu().contiguous() for name, tensor in weights.items()}, aside / TENSORS)
        (aside / MANIFEST).write_text(json.dumps({**facts, "sha256": sha256_file(aside / TENSORS)}), "utf-8")


def _open(path: Path) -> tuple[dict[str, Any], SafetensorsFile]:
    facts = read_json_object(path / MANIFEST)
    if "sha256" in facts and sha256_file(path / TENSORS) != facts["sha256"]:
        raise ModelFileError(f"{path / TENSORS} is not as it was written.")
    return facts, open_safetensors(path / TENSORS)


def save_best(folder: Path, weights: Mapping[str, Tensor], *, step: int, metric: str, value: float) -> None:
    """Write the best weights so far, replacing earlier ones.

    Args:
        folder: Holds the checkpoints.
        weights: Trained weights by name.
        step: When they were measured.
        metric: By what they are the best.
        value: Their value.

    Raises:
        OutputError: They cannot be written.
    """
    _write(folder / BEST, weights, {"step": step, "metric": metric, "value": value})


def load_best(folder: Path) -> tuple[int, dict[str, Tensor]] | None:
    """Read the best weights.

    Args:
        folder: Holds the checkpoints.

    Returns:
        Their step, and the weights by name; None where there are none.

    Raises:
        ModelFileError: They are damaged.
    """
    if not (folder / BEST / MANIFEST).exists():
        return None
    try:
        facts, stored = _open(folder / BEST)
    except ModelFileError as error:
        raise ModelFileError(
            f"{error} These are the best weights so far. Delete {folder / BEST} and run again with --resume, to end "
            "with the last ones."
        ) from error
    return int(facts["step"]), {name: stored.tensor(name) for name in stored.names}


def save_snapshot(folder: Path, weights: Mapping[str, Tensor], *, step: int, keep: Collection[int]) -> None:
    """Write the weights of a step, and drop the snapshots that nobody wants any more.

    Args:
        folder: Holds the snapshots.
        weights: Trained weights by name.
        step: When they are from.
        keep: Steps whose snapshots are still wanted.

    Raises:
        OutputError: They cannot be written.
    """
    _write(folder / f"{step:08d}", weights, {"step": step})
    for path in folder.glob("[0-9]*"):
        if path.name.isdecimal() and int(path.name) not in {*keep, step}:
            shutil.rmtree(path, ignore_errors=True)


def mean_of_snapshots(folder: Path, steps: Sequence[int], notes: list[str]) -> tuple[list[int], dict[str, Tensor]]:
    """Average snapshots, one weight at a time.

    Args:
        folder: Holds the snapshots.
        steps: When those are from that are averaged.
        notes: Gets a note for each that is missing or damaged, and is left out.

    Returns:
        The steps that went in, and the mean of each weight in fp32; nothing of both for fewer than two.
    """
    files: dict[int, SafetensorsFile] = {}
    for step in steps:
        try:
            files[step] = _open(folder / f"{step:08d}")[1]
        except (NlpkitError, OSError) as error:
            notes.append(f"the weights of step {step} are left out of the mean: {error}")
    if len(files) < 2:
        return [], {}
    names = next(iter(files.values())).names
    means = {
        name: torch.stack([stored.tensor(name).double() for stored in files.values()]).mean(0).float() for name in names
    }
    return list(files), means
