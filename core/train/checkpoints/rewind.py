"""Going back to the checkpoint from which a training of another length goes on exactly."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nlpkit.core.errors import ConfigError, NlpkitError, OutputError
from nlpkit.core.files.read import read_json_object
from nlpkit.core.train.checkpoints.checkpoint import (
    BEFORE_DECAY,
    Checkpoint,
    complete_checkpoints,
    save_checkpoint,
    stored_steps,
)
from nlpkit.core.train.checkpoints.kept_weights import BEST, MANIFEST, load_best
from nlpkit.core.train.checkpoints.resume import begun_warmup, obstacle, other_length
from nlpkit.core.train.loop import Trainer
from nlpkit.core.train.schedule import decay_start


def checkpoint_for_length(folder: Path, trainer: Trainer) -> tuple[Checkpoint, list[str]]:
    """Find the last checkpoint from which a training of the wanted length goes on exactly.

    Args:
        folder: Holds the checkpoints, at least one of them complete.
        trainer: Freshly built, with the wanted length.

    Returns:
        The checkpoint, and notes for the user.

    Raises:
        ConfigError: There is none.
    """
    notes: list[str] = []
    reason = change = ""
    for checkpoint in complete_checkpoints(folder, notes):
        here = obstacle(trainer, checkpoint)
        if here is not None:
            reason, change = reason or here, change or "; ".join(other_length(trainer, checkpoint))
            continue
        if reason:
            notes.append(f"training goes on from step {checkpoint.step}, and what came later is dropped: {reason}")
        if begun_warmup(trainer, checkpoint) != trainer.warmup_steps:
            notes.append(f"the warm-up keeps the {begun_warmup(trainer, checkpoint)} steps that it began with")
        return checkpoint, notes
    raise ConfigError(
        f"Training in {folder.parent} cannot take another length ({change}): {reason}, so this would be another "
        "training than one of that length. Keep the length, start anew in another folder, or train on from the result "
        "with --base or --adapter. What can be made longer is the schedule constant, and wsd before its rate falls."
    )


def drop_later(folder: Path, checkpoint: Checkpoint) -> bool:
    """Drop what was written after a checkpoint to which training goes back.

    Args:
        folder: Holds the checkpoints.
        checkpoint: Where training goes on.

    Returns:
        Whether the best weights in the folder are those of the checkpoint's time, or there are none.
    """
    for place in (folder, folder / BEFORE_DECAY):
        for step, path in stored_steps(place).items():
            if step > checkpoint.step:
                shutil.rmtree(path, ignore_errors=True)
    if checkpoint.path.parent.name == BEFORE_DECAY:
        shutil.rmtree(folder / BEST, ignore_errors=True)
        if (checkpoint.path.parent / BEST).exists():
            shutil.copytree(checkpoint.path.parent / BEST, folder / BEST)
    best = load_best(folder)
    return best is None or best[0] <= checkpoint.step


def steps_before_decay(folder: Path) -> list[int]:
    """Return the steps whose snapshots belong to the state before the decay, if there is one."""
    for path in stored_steps(folder / BEFORE_DECAY).values():
        try:
            return list(read_json_object(path / MANIFEST)["progress"].get("snapshots", ()))
        except (NlpkitError, KeyError, TypeError, AttributeError):
            continue
    return []


def at_decay(trainer: Trainer) -> bool:
    """Tell whether the next step is the first whose rate falls."""
    start = decay_start(trainer.config, trainer.total_steps, warmup=trainer.warmup_steps)
    return start == trainer.step > 0


def save_before_decay(
    folder: Path, trainer: Trainer, *, identity: Mapping[str, str], progress: Mapping[str, Any]
) -> None:
    """Keep the state from which training can be made longer, with the best weights so far.

    Args:
        folder: Holds the checkpoints.
        trainer: What to save.
        identity: See `save_checkpoint`.
        progress: See `save_checkpoint`.

    Raises:
        OutputError: It cannot be written.
    """
    kept = folder / BEFORE_DECAY
    save_checkpoint(kept, trainer, identity=identity, progress=progress, keep=1)
    if not trainer.process.is_first:
        return
    try:
        shutil.rmtree(kept / BEST, ignore_errors=True)
        if (folder / BEST).exists():
            shutil.copytree(folder / BEST, kept / BEST)
    except OSError as error:
        raise OutputError(f"The best weights cannot be copied to {kept}: {error.strerror or error}.") from error
