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
from nlpkit.core.load import weight_bytes

if TYPE_CHECKING:
    from nlpkit.core.decode.shared.engine import SharedEngine
    from nlpkit.core.language_model import LanguageModel


@dataclass(eq=False)
class LoadedModel:
    """A model in memory.

    Attributes:
        lm: The model.
        engine: Through which everybody decodes with it.
        size: About how many bytes its weights take, those that it shares included.
        users: How many are at it: it stays for as long.
        used: When somebody last began to use it, on the clock of `time.monotonic`.
    """

    lm: LanguageModel
    engine: SharedEngine
    size: int
    users: int = 0
    used: float = field(default_factory=time.monotonic)

    @property
    def shares(self) -> dict[int, int]:
        """About how many bytes each table takes that another model may share, by its place in memory."""
        tables = self.lm.embeddings.values()
        return {table.data_ptr(): weight_bytes(table.numel(), self.lm.facts.dtype) for table in tables}


LoadServed = Callable[[ServedModel, "TaskAdapter | None", "LanguageModel | None"], "LanguageModel"]
"""Loads a model with an adapter; gets one of the same name that is loaded already, to share with it what it can."""
WeighServed = Callable[[ServedModel, "TaskAdapter | None"], int]
"""Says about how many bytes a model's weights will take, before it is loaded."""
_Key = tuple[str, "TaskAdapter | None"]


class ServedModels:
    """Lends models by id. May be used from several threads; no model is loaded twice.

    Args:
        settings: Which models there are, and how much memory they may take.
        load: Loads one; by default from its files.
        weigh: Weighs one that was not loaded before; by default by its files.

    Attributes:
        settings: Which models there are.
        created: When this was made, in seconds since 1970.
        thread: Where all of them compute.
        ending: Whether the server is about to end.
    """

    def __init__(
        self, settings: ServeSettings, *, load: LoadServed | None = None, weigh: WeighServed | None = None
    ) -> None:
        self.settings = settings
        self._load_model = load or (lambda model, adapter, mate: self._spec(model).load(adapter, share_with=mate))
        self._weigh_model = weigh or (lambda model, adapter: self._spec(model).weigh(adapter))
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
        self._sizes: dict[_Key, int] = {}
        self._coming: dict[_Key, int] = {}
        self._lock = threading.Lock()
        # Of one model, one at a time: the second shares with the first what it can.
        self._loading = {model.id: threading.Lock() for model in settings.models}

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
            with self._loading[model.id]:
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
        if self.settings.memory_bytes is not None:
            self._make_room(key, self._sizes.get(key) or self._weigh_model(model, adapter))
        try:
            mate = self._mate(key)
            lm = self._load_model(model, adapter, None if mate is None else mate.lm)
            size = self._sizes[key] = weight_bytes(lm.facts.n_parameters, lm.facts.dtype)
            engine = lm.share(self.thread, batch_tokens=self.settings.batch_tokens)
            with self._lock:
                loaded = self._loaded[key] = LoadedModel(lm, engine, size, users=1)
        finally:
            with self._lock:
                self._coming.pop(key, None)
        return loaded

    def _mate(self, key: _Key) -> LoadedModel | None:
        """Return a loaded model that shares with one what it can, if there is one."""
        model, adapter = key
        if _is_own(adapter):
            return None
        with self._lock:
            mates = (one for (name, other), one in self._loaded.items() if name == model and not _is_own(other))
            return next(mates, None)

    def _spec(self, model: ServedModel) -> ModelSpec:
        settings = self.settings
        return ModelSpec(
            name=model.name,
            adapter=model.adapter,
            dtype=settings.dtype,
            device=settings.device,
            threads=settings.threads,
        )

    def _make_room(self, key: _Key, size: int) -> None:
        """Put models away that nobody uses, the longest unused first, until one that comes is within the limit."""
        limit = self.settings.memory_bytes or 0
        mate = self._mate(key)
        with self._lock:
            # What it shares with another takes no more room; that one goes last.
            shared = 0 if mate is None else sum(mate.shares.values())
            self._coming[key] = max(0, size - shared)
            idle = sorted(
                (one for one in self._loaded.items() if not one[1].users),
                key=lambda one: (one[1] is mate, one[1].used),
            )
            gone = False
            for name, one in idle:
                if self._total() <= limit:
                    break
                del self._loaded[name]
                one.engine.close()
                gone = True
        if gone:
            # The thread lets go of their weights between two turns.
            with contextlib.suppress(ClosedServiceError):
                self.thread.call(lambda: None).result()

    def _total(self) -> int:
        """Return about how many bytes all weights take, those that are on their way included."""
        total = sum(self._coming.values())
        seen: set[int] = set()
        for one in self._loaded.values():
            shares = one.shares
            total += one.size - sum(size for place, size in shares.items() if place in seen)
            seen |= shares.keys()
        return total

    def end(self) -> None:
        """Let nobody in any more; whoever waits for a text is told that the end has come."""
        self.ending = True
        for loaded in self.loaded.values():
            loaded.engine.close()

    def close(self) -> None:
        """End everything; whoever waits is told."""
        self.thread.close()


def _is_own(adapter: TaskAdapter | None) -> bool:
    """Tell whether it is a model of a task's own instead of an adapter on others' weights."""
    return adapter is not None and adapter.model is not None
