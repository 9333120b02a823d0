"""An adapter on the way between the one that a training went on from and the one that it came to.

Weights part of the way keep most of what was learned and forget less of what was known (Wortsman et al. 2022,
"Robust fine-tuning of zero-shot models", arXiv:2109.01903).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from nlpkit.apps.models.adapters import WEIGHTS
from nlpkit.core.errors import ModelFileError
from nlpkit.core.files.write import unwritable, whole_folder


def go_part_way(folder: Path, trained: Path, start: Path | None, *, share: float) -> None:
    """Write an adapter that has gone a share of the way.

    Args:
        folder: Where to; what stands there gives way.
        trained: Folder of the trained adapter.
        start: Folder of the adapter that the training went on from; None where it began with one that changes nothing.
        share: How far, from 0 to 1.

    Raises:
        ModelFileError: The two have different weights.
        OutputError: It cannot be written.
    """
    from safetensors.torch import load_file, save_file

    after = load_file(trained / WEIGHTS)
    before = {} if start is None else load_file(start / WEIGHTS)
    if start is not None and {name: value.shape for name, value in before.items()} != {
        name: value.shape for name, value in after.items()
    }:
        raise ModelFileError(f"{trained} has other weights than {start}, which it went on from.")
    mixed = {}
    for name, value in after.items():
        if start is not None:
            mixed[name] = before[name].to(value.dtype).lerp(value, share)
        else:
            # The second factor begins at 0, so the product goes from nothing to all of it with this factor alone.
            mixed[name] = value * share if ".lora_B." in name else value
    with unwritable(f"{folder} cannot be written"), whole_folder(folder) as aside:
        for path in trained.iterdir():
            if path.is_file() and path.name != WEIGHTS:
                shutil.copyfile(path, aside / path.name)
        save_file(mixed, aside / WEIGHTS, metadata={"format": "pt"})
