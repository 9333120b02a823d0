"""Training for longer than was planned, or not as long: when a training of another length came to the same state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nlpkit.core.train.config import LENGTH
from nlpkit.core.train.schedule import learning_rate, warmup_steps

if TYPE_CHECKING:
    from nlpkit.core.train.checkpoint import Checkpoint
    from nlpkit.core.train.loop import Trainer
    from nlpkit.core.train.packing import Packer

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
