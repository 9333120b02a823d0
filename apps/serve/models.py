"""The models that requests may name: loaded when they are first asked for, and put away when memory is short."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nlpkit.apps.models.adapters import NONE, AdapterChooser, TaskAdapter
from nlpkit.apps.models.spec import ModelSpec
from nlpkit.apps.pipeline.pool import ModelPool
from nlpkit.apps.serve.errors import ApiError
from nlpkit.apps.serve.settings import ServedModel, ServeSettings
from nlpkit.apps.tasks.task import Task
from nlpkit.apps.toolkit import Toolkit
from nlpkit.core.decode.shared.submission import ClosedServiceError
from nlpkit.core.decode.shared.thread import DecodeThread
from nlpkit.core.errors import did_you_mean, shown

if TYPE_CHECKING:
    from nlpkit.core.decode.shared.engine import SharedEngine
    from nlpkit.core.language_model import LanguageModel

_BYTES = {"fp32": 4.0, "bf16": 2.0, "int8": 1.13, "int4": 0.63}
"""Bytes of a weight, scales included."""


@dataclass(eq=False)
class LoadedModel:
    """A model in memory.

    Attributes:
        lm: The model.
        engine: Through which everybody decodes with it.
        size: About how many bytes its weights take.
        users: How many are at it: it stays for as long.
        used: When somebody last began to use it, on the clock of `time.monotonic`.
    """

    lm: LanguageModel
    engine: SharedEngine
    size: int
    users: int = 0
    used: float = field(default_factory=time.monotonic)


LoadServed = Callable[[ServedModel, "TaskAdapter | None", "LanguageModel | None"], "LanguageModel"]
"""Loads a model with an adapter; gets one of the same name that is loaded already, to share with it what it can."""
_Key = tuple[str, "TaskAdapter | None"]


class ServedModels:
    """Lends models by id. May be used from several threads; no model is loaded twice.

    Args:
        settings: Which models there are, and how much memory they may take.
        load: Loads one; by default from its files.

    Attributes:
        settings: Which models there are.
        created: When this was made, in seconds since 1970.
        thread: Where all of them compute.
        ending: Whether the server is about to end.
    """

    def __init__(self, settings: ServeSettings, *, load: LoadServed | None = None) -> None:
        self.settings = settings
        self._load_model = load or self._from_files
        self.created = int(time.time())
        self.thread = DecodeThread()
        self.ending = False
        self._choosers = {model.id: AdapterChooser(model.name, model.adapter) for model in settings.models}
        self._by_id: dict[str, tuple[ServedModel, TaskAdapter | None]] = {}
        for model in settings.models:
            chooser = self._choosers[model.id]
            self._by_id[model.id] = model, chooser.named
            for adapter in chooser.shipped:
                self._by_id[f"{model.id}:{adapter.name}"] = model, adapter
        self._loaded: dict[_Key, LoadedModel] = {}
        self._lock = threading.Lock()
        self._loading: dict[_Key, threading.Lock] = {}

    @property
    def ids(self) -> list[str]:
        """What requests may ask for, the first being the usual one."""
        return list(self._by_id)

    @property
    def loaded(self) -> Mapping[str, LoadedModel]:
        """The models in memory, by id."""
        with self._lock:
            return {
                name: self._loaded[model.id, adapter]
                for name, (model, adapter) in self._by_id.items()
                if (model.id, adapter) in self._loaded
            }

    def find(self, name: str) -> tuple[ServedModel, TaskAdapter | None]:
        """Return what an id stands for.

        Raises:
            ApiError: There is no such model, with status 404.
        """
        found = self._by_id.get(name)
        if found is None:
            raise ApiError(
                f"The model {shown(name)} does not exist here. {did_you_mean(name, self._by_id)}",
                status=404,
                param="model",
                code="model_not_found",
            )
        return found

    def usual(self, task: Task[Any]) -> TaskAdapter | None:
        """Return the adapter of a task's ordinary rows on the first model."""
        return self._choosers[self.settings.models[0].id].usual(task)

    @contextlib.contextmanager
    def lend(self, name: str) -> Iterator[LoadedModel]:
        """Lend a model for as long as the block runs; load it first where it is not there. May take long.

        Raises:
            ApiError: There is no such model.
            NlpkitError: It cannot be loaded.
        """
        model, adapter = self.find(name)
        with self._lend(model, adapter) as loaded:
            yield loaded

    @contextlib.contextmanager
    def toolkit(self, name: str) -> Iterator[Toolkit]:
        """Lend the tasks on a model, each with its own adapter where the id names none, as long as the block runs.

        Raises:
            ApiError: There is no such model.
        """
        model, adapter = self.find(name)
        chooser = self._choosers[model.id]
        if adapter is not chooser.named and adapter is not None:
            chooser = AdapterChooser(model.name, NONE)
            chooser.named = adapter
        with ExitStack() as stack:
            pool = ModelPool(lambda chosen, loaded: stack.enter_context(self._lend(model, chosen)).lm)
            yield Toolkit(pool, chooser, name=name)

    @contextlib.contextmanager
    def _lend(self, model: ServedModel, adapter: TaskAdapter | None) -> Iterator[LoadedModel]:
        if self.ending:
            raise ClosedServiceError("The server is about to end. Try again later.")
        key = (model.id, adapter)
        loaded = self._take(key)
        if loaded is None:
            with self._lock:
                lock = self._loading.setdefault(key, threading.Lock())
            with lock:
                loaded = self._take(key) or self._load(key, model, adapter)
        try:
            yield loaded
        finally:
            with self._lock:
                loaded.users -= 1

    def _take(self, key: _Key) -> LoadedModel | None:
        with self._lock:
            loaded = self._loaded.get(key)
            if loaded is not None and loaded.engine.closed:
                # It broke down.
                del self._loaded[key]
                return None
            if loaded is not None:
                loaded.users += 1
                loaded.used = time.monotonic()
            return loaded

    def _load(self, key: _Key, model: ServedModel, adapter: TaskAdapter | None) -> LoadedModel:
        with self._lock:
            mates = [one.lm for (name, _), one in self._loaded.items() if name == model.id]
        lm = self._load_model(model, adapter, mates[0] if mates else None)
        size = int(lm.facts.n_parameters * _BYTES.get(lm.facts.dtype, 4.0))
        with self._lock:
            self._make_room(size)
            engine = lm.share(self.thread, batch_tokens=self.settings.batch_tokens)
            loaded = self._loaded[key] = LoadedModel(lm, engine, size, users=1)
        return loaded

    def _from_files(self, model: ServedModel, adapter: TaskAdapter | None, mate: LanguageModel | None) -> LanguageModel:
        settings = self.settings
        spec = ModelSpec(
            name=model.name,
            adapter=model.adapter,
            dtype=settings.dtype,
            device=settings.device,
            threads=settings.threads,
        )
        return spec.load(adapter, share_with=mate)

    def _make_room(self, size: int) -> None:
        """Put models away that nobody uses, the longest unused first, until so many bytes more are within the limit."""
        limit = self.settings.memory_bytes
        if limit is None:
            return
        idle = sorted(
            (key for key, one in self._loaded.items() if not one.users), key=lambda key: self._loaded[key].used
        )
        total = size + sum(one.size for one in self._loaded.values())
        for key in idle:
            if total <= limit:
                return
            gone = self._loaded.pop(key)
            gone.engine.close()
            total -= gone.size

    def end(self) -> None:
        """Let nobody in any more; whoever waits for a text is told that the end has come."""
        self.ending = True
        for loaded in self.loaded.values():
            loaded.engine.close()

    def close(self) -> None:
        """End everything; whoever waits is told."""
        self.thread.close()
