"""Which model to run, and how: a value, by which loaded models are told apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nlpkit.core import load as loading

if TYPE_CHECKING:
    from nlpkit.apps.models.adapters import TaskAdapter
    from nlpkit.core.language_model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model and how it runs.

    Attributes:
        name: Name in the catalogue, path of a model file or directory, or hub id.
        adapter: None for the tasks' own adapters, which the default model has; ``none`` for none; else the name of a
            shipped adapter or an adapter's folder.
        dtype: ``auto``, ``fp32``, ``bf16``, ``int8`` or ``int4``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        threads: CPU threads; None lets the engine choose.
        prefix_cache: Folder in which to keep what is computed for beginnings of prompts, or None.
    """

    name: str = "default"
    adapter: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    threads: int | None = None
    prefix_cache: str | None = None

    def load(
        self,
        adapter: TaskAdapter | None,
        *,
        share_with: LanguageModel | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> LanguageModel:
        """Load it.

        Args:
            adapter: What to use with it, or instead of it where that is a model of its own; see `AdapterChooser`.
            share_with: A loaded model to share with, as in `load_model`.
            progress: Called with bytes done and bytes in total while a model is downloaded.

        Raises:
            NlpkitError: There is no such model, or it cannot be used.
        """
        own = None if adapter is None else adapter.model
        beside = None if own is not None else adapter
        lm = loading.load_model(
            self.name if own is None else str(own),
            adapter=None if beside is None else beside.path,
            adapter_name=None if beside is None else beside.name,
            called=None if adapter is None or own is None else adapter.name,
            dtype=self.dtype,
            device=self.device,
            threads=self.threads,
            share_with=share_with,
            progress=progress,
        )
        if self.prefix_cache is not None:
            lm.keep_prefixes(self.prefix_cache)
        return lm

    def weigh(self, adapter: TaskAdapter | None) -> int:
        """Say about how many bytes its weights will take in memory, without loading them.

        Args:
            adapter: As `load` takes it.

        Raises:
            NlpkitError: There is no such model, or it cannot be used.
        """
        own = None if adapter is None else adapter.model
        return loading.weigh_model(self.name if own is None else str(own), dtype=self.dtype, device=self.device)
