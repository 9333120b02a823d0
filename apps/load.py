"""A name becomes a toolkit: a model, and what its tasks have of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nlpkit.apps.models.adapters import AdapterChooser
from nlpkit.apps.models.spec import ModelSpec
from nlpkit.apps.pipeline.pool import ModelPool
from nlpkit.apps.toolkit import Toolkit
from nlpkit.core import load as loading
from nlpkit.core.fetch import resolve


def load(
    name: str = "default",
    *,
    adapter: str | Path | None = None,
    dtype: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Toolkit:
    """Load a model and return the tasks on it.

    The default model is loaded when a task is first used, with that task's shipped adapter. A task with a model of its
    own needs no other; where no task has one, the default model is downloaded here already, if it is not there. Any
    other model, and the default model with a named adapter or none, is loaded at once.

    Args:
        name: Name in the catalogue, path of a model file or directory, or hub id.
        adapter: None for the tasks' own adapters, which the default model has; ``none`` for none; else the name of a
            shipped adapter or an adapter's folder, for all tasks.
        dtype: ``auto``, ``fp32``, ``bf16``, ``int8`` or ``int4``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        threads: CPU threads; None lets the engine choose.
        progress: Called with bytes done and bytes in total while the model is downloaded.

    Raises:
        NlpkitError: There is no such model, or it cannot be used.
    """
    chooser = AdapterChooser(name, adapter)
    spec = ModelSpec(
        name=name, adapter=None if adapter is None else str(adapter), dtype=dtype, device=device, threads=threads
    )
    pool = ModelPool(lambda chosen, loaded: spec.load(chosen, share_with=loaded, progress=progress))
    if chooser.chooses:
        # What can go wrong should go wrong here, and a download is no part of the first answer.
        loading.check_options(dtype=dtype, device=device)
        if chooser.needs_default:
            resolve.resolve_model(name, progress=progress)
    else:
        pool.get(chooser.named)
    return Toolkit(pool, chooser, name=name)
