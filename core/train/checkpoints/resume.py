"""Training for longer than was planned, or not as long: when a training of another length came to the same state."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from nlpkit.core.errors import ConfigError, ModelFileError
from nlpkit.core.files.safetensors import open_safetensors
from nlpkit.core.train.checkpoints.checkpoint import SHARDS, Checkpoint, state_tensors
from nlpkit.core.train.checkpoints.kept_weights import TENSORS
from nlpkit.core.train.config import LENGTH, changed_options
from nlpkit.core.train.data.packing import DataState
from nlpkit.core.train.distributed import place
from nlpkit.core.train.loop import Trainer
from nlpkit.core.train.schedule import learning_rate, warmup_steps

if TYPE_CHECKING:
    from nlpkit.core.train.checkpoints.checkpoint import Checkpoint
    from nlpkit.core.train.data.packing import Packer
    from nlpkit.core.train.loop import Trainer

_BINS = 4096


def other_length(trainer: Trainer, checkpoint: Checkpoint) -> list[str]:
    """Describe how the wanted length differs from that of a checkpoint; empty where it does not."""
    before, after = checkpoint.manifest["config"], trainer.config.to_dict()
    return [
        f"{name} was {before.get(name)!r} and is {after[name]!r}"
        for name in sorted(LENGTH)
        if before.get(name) != after[name]
    ]


def begun_warmup(trainer: Trainer, checkpoint: Checkpoint) -> int:
    """Return the steps of warm-up that a checkpoint's training began with."""
    stored = checkpoint.manifest.get("warmup_steps")
    return warmup_steps(trainer.config, int(checkpoint.manifest["total_steps"])) if stored is None else int(stored)


def obstacle(trainer: Trainer, checkpoint: Checkpoint) -> str | None:
    """Say why a training of the wanted length would not have come to a checkpoint's state.

    Args:
        trainer: Freshly built, with the wanted length.
        checkpoint: Where to go on.

    Returns:
        One clause; None where every step done had the learning rate and the rows that it would have had.
    """
    done, config = checkpoint.step, trainer.config
    before, after = int(checkpoint.manifest["total_steps"]), trainer.total_steps
    if done > after:
        return f"{done} steps are done already"
    warmup = begun_warmup(trainer, checkpoint)
    for step in range(done):
        rates = {learning_rate(config, step, total, warmup=warmup) for total in (before, after)}
        if len(rates) > 1:
            if config.schedule == "wsd":
                return f"the learning rate falls from step {step + 1} on"
            return f"with the schedule {config.schedule} the learning rate of every step depends on the length"
    epochs = checkpoint.manifest["config"].get("epochs")
    if epochs != config.epochs and not _same_bins(trainer.packer, epochs, done * trainer.rows_per_step):
        return "the last rows were packed as the end of the data, with none of the next epoch"
    return None


def _same_bins(packer: Packer, epochs: float | None, count: int) -> bool:
    """Tell whether the first `count` bins are the same with `epochs` as with the packer's own."""
    before, after = packer.rewound(epochs), packer.rewound(packer.epochs)
    for start in range(0, count, _BINS):
        size = min(_BINS, count - start)
        if before.take(size) != after.take(size):
            return False
    return True


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
