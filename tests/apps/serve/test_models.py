"""Models that are lent: nothing is loaded twice, and room is made before another comes."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from tiny_server import tiny_lm, tiny_models, tiny_settings

from nlpkit.apps.models.adapters import TaskAdapter
from nlpkit.apps.serve.models import ServedModels
from nlpkit.apps.serve.settings import ServedModel, ServeSettings
from nlpkit.core.language_model import LanguageModel
from nlpkit.core.load import weigh_model, weight_bytes

SIZE = weight_bytes(tiny_lm().facts.n_parameters, "fp32")
ABC = tuple(ServedModel(id=name, name=name) for name in "abc")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def served(stack: ExitStack, settings: ServeSettings, load: Any, **options: Any) -> ServedModels:
    models = ServedModels(settings, load=load, **options)
    stack.callback(models.close)
    return models


def test_adapters_that_are_asked_for_at_once_share_one_model(stack: ExitStack) -> None:
    mates: list[LanguageModel | None] = []

    def load(model: ServedModel, adapter: TaskAdapter | None, mate: LanguageModel | None) -> LanguageModel:
        time.sleep(0.1)
        mates.append(mate)
        return tiny_lm()

    models = served(stack, ServeSettings(), load)
    names = [name for name, (_, adapter) in models._by_id.items() if adapter is None or adapter.model is None][:3]
    assert len(names) == 3

    def ask(name: str) -> None:
        with models.lend(name):
            pass

    threads = [threading.Thread(target=ask, args=(name,)) for name in names * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, *others = mates
    assert first is None
    assert len(others) == 2
    assert None not in others


def test_room_is_made_before_a_model_is_loaded(stack: ExitStack) -> None:
    beside: list[tuple[list[str], bool]] = []
    gone: list[weakref.ref[LanguageModel]] = []

    def load(model: ServedModel, adapter: TaskAdapter | None, mate: LanguageModel | None) -> LanguageModel:
        gc.collect()
        beside.append((list(models.loaded), any(one() is not None for one in gone)))
        lm = tiny_lm(model.name)
        if model.id == "a":
            gone.append(weakref.ref(lm))
        return lm

    settings = tiny_settings(models=ABC, memory_bytes=2 * SIZE)
    models = served(stack, settings, load, weigh=lambda model, adapter: SIZE)
    for name in "abc":
        with models.lend(name):
            pass
    # Where it is loaded the weights of the one that went are free already.
    assert beside == [([], False), (["a"], True), (["b"], False)]


def test_what_models_share_counts_once(stack: ExitStack) -> None:
    table = torch.zeros(SIZE // 8)
    loaded: list[str] = []

    def load(model: ServedModel, adapter: TaskAdapter | None, mate: LanguageModel | None) -> LanguageModel:
        lm = tiny_lm()
        lm.embeddings = {"embed.weight": table}
        loaded.append("" if adapter is None else adapter.name)
        return lm

    # Half of each is shared.
    settings = ServeSettings(memory_bytes=2 * SIZE)
    models = served(stack, settings, load, weigh=lambda model, adapter: SIZE)
    names = [name for name, (_, adapter) in models._by_id.items() if adapter is None or adapter.model is None][:3]
    for name in (*names, *names):
        with models.lend(name):
            pass
    assert len(loaded) == 3
    assert models._total() == 2 * SIZE


def test_a_model_that_broke_down_is_loaded_anew_and_its_weights_are_free(stack: ExitStack) -> None:
    models = tiny_models(tiny_settings())
    stack.callback(models.close)
    with models.lend("tiny") as loaded:
        broken = weakref.ref(loaded.lm)
        engine = loaded.engine
    engine._closed = True
    models.thread.leave(engine)
    models.thread.call(lambda: None).result(20)
    del loaded, engine
    with models.lend("tiny") as loaded:
        assert not loaded.engine.closed
    models.thread.call(lambda: None).result(20)
    gc.collect()
    assert broken() is None


def test_a_model_is_weighed_without_being_loaded(default_model: str) -> None:
    assert weigh_model(default_model, dtype="fp32", device="cpu") == 134_515_008 * 4
    assert weigh_model(default_model, dtype="bf16", device="cpu") == 134_515_008 * 2
