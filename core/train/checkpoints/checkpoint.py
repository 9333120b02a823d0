"""Checkpoints that training goes on from bit for bit: written aside, verified by hash, renamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from nlpkit.core.errors import ModelFileError, NlpkitError, OutputError
from nlpkit.core.files.hashing import sha256_file
from nlpkit.core.files.read import read_json_object
from nlpkit.core.files.write import sync, unwritable
from nlpkit.core.train.checkpoints.kept_weights import ADVICE, MANIFEST, TENSORS
from nlpkit.core.train.distributed import is_sharded
from nlpkit.core.train.loop import Trainer

VERSION = 1
SHARDS = "shards"
BEFORE_DECAY = "before-decay"
"""Folder of the checkpoint from just before the rate of ``wsd`` falls, which is kept to the end."""
_PREFIX = "step-"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint on disk.

    Attributes:
        path: Its folder.
        step: Steps done.
        manifest: Everything but the tensors.
    """

    path: Path
    step: int
    manifest: Mapping[str, Any]

    @property
    def progress(self) -> Mapping[str, Any]:
        """What the caller of `save_checkpoint` handed over."""
        return dict(self.manifest.get("progress", {}))


def state_tensors(trainer: Trainer) -> dict[str, Tensor]:
    """Return all tensors that training goes on from, by name; the live ones, not copies."""
    names = {id(master): name for name, master in trainer.weights.masters.items()}
    tensors = {f"weights.{name}": master.detach() for name, master in trainer.weights.masters.items()}
    if trainer.average is not None:
        tensors |= {f"average.{name}": value for name, value in trainer.average.values.items()}
    for parameter, state in trainer.optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{names[id(parameter)]}.{key}"] = value
    return tensors


def save_checkpoint(
    folder: Path,
    trainer: Trainer,
    *,
    identity: Mapping[str, str],
    progress: Mapping[str, Any] | None = None,
    keep: int | None = None,
) -> Path:
    """Write a checkpoint of the state between two steps, and drop old ones.

    Args:
        folder: Holds the checkpoints.
        trainer: What to save.
        identity: What the training is made from, such as hashes of the data, by a name for people.
        progress: Anything JSON-ready that the caller needs to go on.
        keep: How many to keep in the folder; by default as the trainer's configuration says.

    Returns:
        The checkpoint's folder.

    Raises:
        OutputError: It cannot be written; earlier checkpoints are as they were.
    """
    process = trainer.process
    final = folder / f"{_PREFIX}{trainer.step:08d}"
    aside = folder / f".{final.name}.aside"
    # All processes of a training write into one folder aside, so its name is known to all.
    try:
        with unwritable(f"The checkpoint of step {trainer.step} cannot be written to {folder}", advice=ADVICE):
            if process.is_first:
                shutil.rmtree(aside, ignore_errors=True)
                aside.mkdir(parents=True)
            process.wait()
            tensors = state_tensors(trainer)
            if is_sharded(tensors):
                from torch.distributed.checkpoint.state_dict_saver import save as save_shards

                save_shards(tensors, checkpoint_id=str(aside / SHARDS))
                process.wait()
            elif process.is_first:
                save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, aside / TENSORS)
            if process.is_first:
                _finish(aside, final, trainer, identity, progress or {})
                for old in list(stored_steps(folder).values())[: -(keep or trainer.config.keep)]:
                    shutil.rmtree(old, ignore_errors=True)
            process.wait()
    except OutputError:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return final


def _finish(
    aside: Path,
    final: Path,
    trainer: Trainer,
    identity: Mapping[str, str],
    progress: Mapping[str, Any],
) -> None:
    files = {}
    for path in sorted(path for path in aside.rglob("*") if path.is_file()):
        sync(path)
        files[path.relative_to(aside).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    manifest = {
        "version": VERSION,
        "step": trainer.step,
        "total_steps": trainer.total_steps,
        "warmup_steps": trainer.warmup_steps,
        "elapsed": trainer.elapsed,
        "data": trainer.packer.state.to_dict(),
        "config": trainer.config.to_dict(),
        "model": trainer.model.config.to_dict(),
        "layout": [source.layout_key for source in trainer.packer.sources],
        "identity": dict(identity),
        "progress": dict(progress),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "world": trainer.process.world,
        "compiled": trainer.compiled,
        "files": files,
    }
    (aside / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True), "utf-8")
    sync(aside / MANIFEST)
    sync(aside)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(aside, final)
    sync(final.parent)


def _verify(path: Path) -> Checkpoint:
    manifest = read_json_object(path / MANIFEST)
    if manifest.get("version") != VERSION:
        raise ModelFileError(f"it has version {manifest.get('version')!r}, not {VERSION}")
    files = manifest.get("files")
    if not isinstance(files, dict) or not files:
        raise ModelFileError("it names no files")
    for name, facts in files.items():
        file = path / name
        if not file.is_file() or file.stat().st_size != facts["bytes"] or sha256_file(file) != facts["sha256"]:
            raise ModelFileError(f"{name} is not as it was written")
    return Checkpoint(path=path, step=int(manifest["step"]), manifest=manifest)


def stored_steps(folder: Path) -> dict[int, Path]:
    """Return the checkpoints of a folder by their steps, whether complete or not, the first one first."""
    found = ((path.name.removeprefix(_PREFIX), path) for path in sorted(folder.glob(f"{_PREFIX}*")))
    return {int(number): path for number, path in found if number.isdecimal()}


def has_checkpoints(folder: Path) -> bool:
    """Tell whether a folder holds checkpoints, complete or not."""
    return bool(stored_steps(folder) or stored_steps(folder / BEFORE_DECAY))


def complete_checkpoints(folder: Path, notes: list[str]) -> Iterator[Checkpoint]:
    """Yield the complete checkpoints of a folder, the one from before a decay included.

    Args:
        folder: Holds the checkpoints.
        notes: Gets a note for each damaged one that is passed over.

    Yields:
        The checkpoints, the last one first.
    """
    found = [*stored_steps(folder).items(), *stored_steps(folder / BEFORE_DECAY).items()]
    # At equal steps the one from before the decay comes first: the best weights of its time are kept with it.
    for _, path in sorted(found, key=lambda item: (item[0], item[1].parent != folder), reverse=True):
        try:
            checkpoint = _verify(path)
        except (NlpkitError, OSError, ValueError, KeyError, TypeError) as error:
            notes.append(f"the checkpoint {path.name} is damaged and was passed over: {error}")
            continue
        yield checkpoint


def latest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Find the last complete checkpoint.

    Args:
        folder: Holds the checkpoints.

    Returns:
        The checkpoint or None, and a note for each damaged one that was passed over.
    """
    notes: list[str] = []
    return next(complete_checkpoints(folder, notes), None), notes
