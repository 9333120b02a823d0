"""Loading a model while a person may be watching."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from nlpkit.apps.cli.output import note
from nlpkit.apps.cli.progress import show_download
from nlpkit.apps.models.adapters import TaskAdapter
from nlpkit.apps.models.spec import ModelSpec
from nlpkit.core.fetch import resolve
from nlpkit.core.fetch.catalogue import find_entry
from nlpkit.core.machine.lean_torch import import_torch

if TYPE_CHECKING:
    from nlpkit.core.language_model import LanguageModel


def load_shown(
    spec: ModelSpec,
    adapter: TaskAdapter | None,
    *,
    quiet: bool,
    share_with: LanguageModel | None = None,
    lean: bool = False,
) -> LanguageModel:
    """Load a model as `ModelSpec.load` does, showing a download and saying what its notes are.

    Args:
        spec: The model.
        adapter: What to use with it.
        quiet: Whether to show and say nothing.
        share_with: A loaded model to share with.
        lean: Whether to import torch without what our own decoding leaves alone: not where others' code runs too.

    Raises:
        NlpkitError: There is no such model, or it cannot be used.
    """
    shipped = adapter is not None and adapter.model is not None
    with contextlib.nullcontext() if shipped else show_download(spec.name, quiet=quiet) as bar:
        if not shipped and find_entry(spec.name) is None:
            # A wrong name is told at once and not after the seconds that torch takes to import.
            resolve.resolve_model(spec.name, progress=bar)
        if lean:
            import_torch()
        lm = spec.load(adapter, share_with=share_with, progress=bar)
    for text in lm.notes:
        note(text, quiet=quiet)
    return lm
