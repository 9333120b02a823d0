"""Checkpoints that training goes on from bit for bit: written aside, verified by hash, renamed."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from nlpkit.core.errors import ConfigError, ModelFileError, NlpkitError
from nlpkit.core.loaders.cache import sha256_file
from nlpkit.core.loaders.json_files import read_json_object
from nlpkit.core.loaders.safetensors_file import open_safetensors
from nlpkit.core.train.config import LENGTH, changed_options
from nlpkit.core.train.distributed import is_sharded, place
from nlpkit.core.train.kept_weights import MANIFEST, TENSORS, disk_errors, sync
from nlpkit.core.train.length import begun_warmup, obstacle, other_length
from nlpkit.core.train.loop import Trainer
from nlpkit.core.train.packing import DataState

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
    with disk_errors(f"The checkpoint of step {trainer.step} cannot be written to {folder}", aside):
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


def _changes(trainer: Trainer, checkpoint: Checkpoint, identity: Mapping[str, str]) -> list[str]:
    """Describe everything that changed since a checkpoint and may not."""
    manifest = checkpoint.manifest
    before, after = manifest["config"], trainer.config.to_dict()
    changes = [
        f"{name} was {before.get(name)!r} and is {after.get(name)!r}"
        for name in changed_options(before, after)
        if name not in LENGTH
    ]
    longer = other_length(trainer, checkpoint)
    if longer and (why := obstacle(trainer, checkpoint)) is not None:
        changes += [*longer, why]
    rows = before["batch_size"] * before["accumulate"] * manifest["world"]
    if rows != trainer.rows_per_step:
        changes.append(
            f"a step had {rows} packed rows and has {trainer.rows_per_step} (batch_size times accumulate times "
            "processes)"
        )
    if manifest["model"] != json.loads(json.dumps(trainer.model.config.to_dict())):
        changes.append("the shape of the model is another one")
    layout = [source.layout_key for source in trainer.packer.sources]
    if manifest.get("layout", layout) != layout:
        changes.append("the rows are laid out in another way")
    named = manifest["identity"]
    changes += [f"{name} changed" for name in sorted({*named, *identity}) if named.get(name) != identity.get(name)]
    return changes


def resume(trainer: Trainer, checkpoint: Checkpoint, *, identity: Mapping[str, str]) -> list[str]:
    """Put a trainer where a checkpoint was written.

    Args:
        trainer: Freshly built from the same configuration and data.
        checkpoint: Where to go on.
        identity: As given to `save_checkpoint`.

    Returns:
        Notes on what makes the continuation exact only up to rounding.

    Raises:
        ConfigError: The configuration, the data or the model changed; everything that did is named.
        ModelFileError: The tensors do not fit.
    """
    manifest = checkpoint.manifest
    changes = _changes(trainer, checkpoint, identity)
    if changes:
        raise ConfigError(
            f"Training cannot go on from {checkpoint.path}: {'; '.join(changes)}. Run with what it began with, or "
            "start anew in another folder."
        )
    _start_optimizer(trainer)
    tensors = state_tensors(trainer)
    if (checkpoint.path / SHARDS).exists():
        from torch.distributed.checkpoint.state_dict_loader import load as load_shards

        alone = trainer.process.world == 1
        with warnings.catch_warnings():
            # Reading the shards of several processes in one is meant.
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            load_shards(tensors, checkpoint_id=str(checkpoint.path / SHARDS), no_dist=alone)
    else:
        stored = open_safetensors(checkpoint.path / TENSORS)
        if set(stored.names) != set(tensors):
            odd = sorted(set(stored.names) ^ set(tensors))[:6]
            raise ModelFileError(f"{checkpoint.path} does not fit this training: {', '.join(odd)}.")
        for name, tensor in tensors.items():
            place(tensor, stored.tensor(name))
    trainer.weights.publish()
    trainer.step = checkpoint.step
    trainer.elapsed = float(manifest.get("elapsed", 0.0))
    if trainer.config.max_minutes is not None and not other_length(trainer, checkpoint):
        trainer.total_steps = int(manifest["total_steps"])
    trainer.warmup_steps = begun_warmup(trainer, checkpoint)
    trainer.packer.restore(DataState(**manifest["data"]))
    notes: list[str] = []
    now = {"torch": torch.__version__, "threads": torch.get_num_threads(), "world": trainer.process.world}
    shown = {"torch": "the version of torch", "threads": "the number of threads", "world": "the number of processes"}
    for key, value in now.items():
        if manifest[key] != value:
            notes.append(f"{shown[key]} was {manifest[key]} and is {value}: the result will agree up to rounding only")
    if manifest.get("compiled", trainer.compiled) != trainer.compiled:
        is_now = "is compiled now and was not" if trainer.compiled else "was compiled and is not now"
        notes.append(f"the model {is_now}: the result will agree up to rounding only")
    return notes


def _start_optimizer(trainer: Trainer) -> None:
    """Make the optimizer allocate its state, by a step that is undone by what is loaded next."""
    for group in trainer.optimizer.param_groups:
        group["lr"] = 0.0
    for master in trainer.weights.masters.values():
        master.grad = torch.zeros_like(master)
    trainer.optimizer.step()
    trainer.weights.clear_gradients()
