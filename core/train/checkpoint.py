"""Checkpoints that training goes on from bit for bit: written aside, verified by hash, renamed."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from nlpkit.core.errors import ConfigError, ModelFileError, NlpkitError, OutputError
from nlpkit.core.loaders.cache import sha256_file
from nlpkit.core.loaders.hf import read_json_object
from nlpkit.core.loaders.safetensors_file import open_safetensors
from nlpkit.core.train.config import changed_options
from nlpkit.core.train.distributed import is_sharded, place
from nlpkit.core.train.loop import Trainer
from nlpkit.core.train.packing import DataState

VERSION = 1
MANIFEST, TENSORS, SHARDS = "state.json", "state.safetensors", "shards"
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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        # Some file systems do not let a folder be synchronised.
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _disk_errors(what: str, aside: Path) -> Iterator[None]:
    """Turn a full or broken disk into one clear error, with nothing half-written left."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise OutputError(
            f"{what}: {reason}. Earlier checkpoints are as they were: make room and run again with --resume."
        ) from error


def save_checkpoint(
    folder: Path,
    trainer: Trainer,
    *,
    identity: Mapping[str, str],
    progress: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint of the state between two steps, and drop old ones.

    Args:
        folder: Holds the checkpoints.
        trainer: What to save.
        identity: What the training is made from, such as hashes of the data, by a name for people.
        progress: Anything JSON-ready that the caller needs to go on.

    Returns:
        The checkpoint's folder.

    Raises:
        OutputError: It cannot be written; earlier checkpoints are as they were.
    """
    process = trainer.process
    final = folder / f"{_PREFIX}{trainer.step:08d}"
    aside = folder / f".{final.name}.aside"
    with _disk_errors(f"The checkpoint of step {trainer.step} cannot be written to {folder}", aside):
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
            _finish(folder, aside, final, trainer, identity, progress or {})
        process.wait()
    return final


def _finish(
    folder: Path,
    aside: Path,
    final: Path,
    trainer: Trainer,
    identity: Mapping[str, str],
    progress: Mapping[str, Any],
) -> None:
    files = {}
    for path in sorted(path for path in aside.rglob("*") if path.is_file()):
        _sync(path)
        files[path.relative_to(aside).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    manifest = {
        "version": VERSION,
        "step": trainer.step,
        "total_steps": trainer.total_steps,
        "data": trainer.packer.state.to_dict(),
        "config": trainer.config.to_dict(),
        "model": trainer.model.config.to_dict(),
        "identity": dict(identity),
        "progress": dict(progress),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "world": trainer.process.world,
        "files": files,
    }
    (aside / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True), "utf-8")
    _sync(aside / MANIFEST)
    _sync(aside)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(aside, final)
    _sync(folder)
    for old in sorted(folder.glob(f"{_PREFIX}*"))[: -trainer.config.keep]:
        shutil.rmtree(old, ignore_errors=True)


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


def latest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Find the last complete checkpoint.

    Args:
        folder: Holds the checkpoints.

    Returns:
        The checkpoint or None, and a note for each damaged one that was passed over.
    """
    notes: list[str] = []
    for path in sorted(folder.glob(f"{_PREFIX}*"), reverse=True):
        try:
            return _verify(path), notes
        except (NlpkitError, OSError, ValueError, KeyError, TypeError) as error:
            notes.append(f"the checkpoint {path.name} is damaged and was passed over: {error}")
    return None, notes


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
    changes = changed_options(manifest["config"], trainer.config.to_dict())
    if manifest["model"] != json.loads(json.dumps(trainer.model.config.to_dict())):
        changes.append("the shape of the model is another one")
    before = manifest["identity"]
    for name in sorted(set(before) | set(identity)):
        if before.get(name) != identity.get(name):
            changes.append(f"{name} changed")
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
    trainer.packer.restore(DataState(**manifest["data"]))
    notes: list[str] = []
    now = {"torch": torch.__version__, "threads": torch.get_num_threads(), "world": trainer.process.world}
    shown = {"torch": "the version of torch", "threads": "the number of threads", "world": "the number of processes"}
    for key, value in now.items():
        if manifest[key] != value:
            notes.append(f"{shown[key]} was {manifest[key]} and is {value}: the result will agree up to rounding only")
    return notes


def _start_optimizer(trainer: Trainer) -> None:
    """Make the optimizer allocate its state, by a step that is undone by what is loaded next."""
    for group in trainer.optimizer.param_groups:
        group["lr"] = 0.0
    for master in trainer.weights.masters.values():
        master.grad = torch.zeros_like(master)
    trainer.optimizer.step()
    trainer.weights.clear_gradients()


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
    aside, final = folder / ".best.aside", folder / "best"
    with _disk_errors(f"The best weights cannot be written to {final}", aside):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        save_file({name: tensor.cpu().contiguous() for name, tensor in weights.items()}, aside / TENSORS)
        (aside / MANIFEST).write_text(json.dumps({"step": step, "metric": metric, "value": value}), "utf-8")
        shutil.rmtree(final, ignore_errors=True)
        os.replace(aside, final)


def load_best(folder: Path) -> tuple[int, dict[str, Tensor]] | None:
    """Read the best weights, or return None where there are none."""
    path = folder / "best"
    if not (path / MANIFEST).exists():
        return None
    stored = open_safetensors(path / TENSORS)
    return int(read_json_object(path / MANIFEST)["step"]), {name: stored.tensor(name) for name in stored.names}
