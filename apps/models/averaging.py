"""The mean of several adapters of one model and one task.

Weights that were tuned from the same start can be averaged as weights, and the mean often does better on unseen text
than its parts (model soups; Wortsman et al. 2022, arXiv:2203.05482).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from nlpkit.apps.models.adapters import WEIGHTS, find_adapter
from nlpkit.apps.tasks.table import TASKS
from nlpkit.core.errors import ConfigError, ModelFileError
from nlpkit.core.fetch.resolve import resolve_model
from nlpkit.core.files.write import new_directory
from nlpkit.core.formats.learned_tasks import read_learned_tasks, write_learned_tasks
from nlpkit.core.formats.open import open_model
from nlpkit.core.formats.peft.adapter import check_base, open_adapter
from nlpkit.core.formats.peft.save import save_adapter
from nlpkit.core.model.lora import LoraWeights


@dataclass(frozen=True)
class Averaged:
    """What averaging did.

    Attributes:
        path: The new adapter.
        modules: Number of adapted layers.
        lost: Share of the mean update's squared norm that its rank has no room for.
    """

    path: Path
    modules: int
    lost: float


def average_adapters(
    name: str, adapters: Sequence[str], output: str, *, weights: Sequence[float] = (), rank: int = 0
) -> Averaged:
    """Write the mean of adapters as an adapter.

    The mean is that of the updates ``s B A``, not of the factors, which mean nothing by themselves; what is written is
    the nearest update of the wanted rank, by singular value decomposition (Eckart and Young 1936). A layer that an
    adapter leaves alone counts as an update of zero.

    Args:
        name: The model that the adapters were trained on.
        adapters: Folders, or names of shipped ones; at least two.
        output: Folder to write; must not exist, or be empty.
        weights: A weight above 0 for each adapter; none are equal weights.
        rank: Rank of the mean; 0 takes for each layer the largest of its ranks.

    Returns:
        What was done.

    Raises:
        ConfigError: An option is wrong, or the adapters do not belong together.
        ModelFileError: An adapter is damaged or does not fit the model.
        InputError: There is something at `output` already, or it cannot be written.
        OutputError: Writing failed on the way; nothing is left of it.
    """
    shares = list(weights) or [1.0] * len(adapters)
    if len(adapters) < 2:
        raise ConfigError(f"A mean is of at least two adapters; got {len(adapters)}.")
    if len(shares) != len(adapters) or not all(math.isfinite(share) and share > 0 for share in shares):
        raise ConfigError(
            f"There are {len(adapters)} adapters and the weights {shares}: each adapter needs one above 0, or none any."
        )
    if rank < 0:
        raise ConfigError(f"The rank is {rank}; it must be a whole number from 1, or 0 for that of the adapters.")
    source = open_model(resolve_model(name))
    opened = [open_adapter(find_adapter(adapter).path) for adapter in adapters]
    tuned = [read_learned_tasks(adapter.path) for adapter in opened]
    for adapter, wanted in zip(opened, tuned, strict=True):
        check_base(adapter, source.files())
        if adapter.settings.get("use_dora"):
            raise ConfigError(
                f"The adapter {adapter.path} is a DoRA: its updates depend on the weights, so they have no mean that "
                "is an adapter. Train plain LoRAs for this."
            )
        # One that learned a task both ways and one that did not have a mean that still knows both, if less well.
        if _tasks(wanted.names) != _tasks(tuned[0].names):
            raise ConfigError(
                f"The adapters {opened[0].path} and {adapter.path} were tuned for different tasks or prompts: "
                f"{_named(tuned[0].names)}, and {_named(wanted.names)}. Average adapters of one task."
            )
    updates = [adapter.internal(source.config) for adapter in opened]
    total = sum(shares)
    mean: dict[str, LoraWeights] = {}
    whole = lost = 0.0
    for module in dict.fromkeys(module for found in updates for module in found):
        parts = [
            (found[module], share / total) for found, share in zip(updates, shares, strict=True) if module in found
        ]
        mean[module], energy, missing = _mean(parts, rank)
        whole, lost = whole + energy, lost + missing
    with new_directory(Path(output)) as aside:
        save_adapter(aside, source.config, mean, base_model=opened[0].base_model)
        # safetensors makes files that nobody else may read.
        (aside / WEIGHTS).chmod(0o644)
        learned = [one for each in tuned for one in each.learned]
        write_learned_tasks(
            aside,
            {name for one in tuned for name in one.names},
            learned=[one for n, one in enumerate(learned) if one not in learned[:n]],
            base_sha256=next((one.base_sha256 for one in tuned if one.base_sha256 is not None), None),
        )
    return Averaged(Path(output), len(mean), lost / whole if whole else 0.0)


def _tasks(names: Iterable[str]) -> set[str]:
    """Return the tasks of short prompts: one of ours may have several, such as ``qa`` and ``qa-inverse``."""
    return {task if (task := name.partition("-")[0]) in TASKS else name for name in names}


def _mean(parts: Sequence[tuple[LoraWeights, float]], rank: int) -> tuple[LoraWeights, float, float]:
    """Return the nearest update of a rank to the mean of some, the mean's squared norm, and what is lost of it."""
    if not all(factor.isfinite().all() for update, _ in parts for factor in (update.a, update.b)):
        raise ModelFileError("An adapter holds numbers that are not finite, so it has no mean with others.")
    down = torch.cat([update.a.double() for update, _ in parts])
    up = torch.cat([update.b.double() * (update.scale * share) for update, share in parts], 1)
    left, left_rest = torch.linalg.qr(up)
    right, right_rest = torch.linalg.qr(down.T)
    u, sizes, v = torch.linalg.svd(left_rest @ right_rest.T)
    kept = min(rank or max(update.a.shape[0] for update, _ in parts), len(sizes))
    # The scale stays what it was; both factors get the same share of the rest.
    scale = abs(parts[0][0].scale) or 1.0
    root = (sizes[:kept] / scale).sqrt()
    b, a = left @ u[:, :kept] * root, (root[:, None] * v[:kept]) @ right.T
    energy = sizes.square()
    return LoraWeights(a.float(), b.float(), scale), float(energy.sum()), float(energy[kept:].sum())


def _named(names: frozenset[str]) -> str:
    return " and ".join(sorted(names)) or "chat prompts"
