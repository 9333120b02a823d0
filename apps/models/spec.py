"""A model as the user names it, loaded."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from nlpkit.apps.cli.options import ModelOptions
from nlpkit.apps.cli.output import note
from nlpkit.apps.cli.progress import show_download
from nlpkit.apps.documents.files import check_text
from nlpkit.apps.models.adapters import TaskAdapter
from nlpkit.core.fetch.catalogue import find_entry
from nlpkit.core.fetch.resolve import resolve_model
from nlpkit.core.machine.lean_torch import import_torch

if TYPE_CHECKING:
    from nlpkit.core.language_model import LanguageModel


def load(
    options: ModelOptions,
    adapter: TaskAdapter | None,
    *,
    quiet: bool,
    like: LanguageModel | None = None,
    lean: bool = False,
) -> LanguageModel:
    """Load the model that the options name, showing a download.

    Args:
        options: Shared options.
        adapter: What to use with it, by `choose_adapters`.
        quiet: Whether to show and say nothing.
        like: A loaded model to share with, as in `load_model`.
        lean: Whether to import torch without what our own decoding leaves alone: not where others' code runs as well.

    Raises:
        NlpkitError: There is no such model, or it cannot be used.
    """
    own = None if adapter is None else adapter.model
    with contextlib.nullcontext() if own is not None else show_download(options.model, quiet=quiet) as bar:
        if own is None and find_entry(options.model) is None:
            # A wrong name is told at once and not after the seconds that torch takes to import.
            resolve_model(options.model, progress=bar)
        if lean:
            import_torch()
        from nlpkit.core.load import load_model

        lm = load_model(
            options.model if own is None else str(own),
            adapter=None if adapter is None or own is not None else adapter.path,
            adapter_name=None if adapter is None or own is not None else adapter.name,
            called=None if adapter is None or own is None else adapter.name,
            dtype=options.dtype,
            device=options.device,
            threads=options.threads,
            like=like,
            progress=bar,
        )
    if options.prefix_cache is not None:
        lm.keep_prefixes(check_text(options.prefix_cache, where="--prefix-cache"))
    for text in lm.notes:
        note(text, quiet=quiet)
    return lm
