"""Adapters as they are shipped, without weights, and a loader that gives each one a fake model of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from nlpkit.apps.models import adapters
from nlpkit.core.formats.learned_tasks import read_learned_tasks, write_learned_tasks

PAIRS = [("en", "de"), ("de", "en"), ("en", "fr"), ("fr", "en")]
LEARNED = [{"source_lang": source, "target_lang": target} for source, target in PAIRS]


def ship(folder: Path, task: str, **tuned: Any) -> Path:
    """Write an adapter that cannot be loaded, but has all that choosing needs."""
    path = folder / task
    path.mkdir(parents=True)
    (path / adapters.CONFIG).write_text(json.dumps({"peft_type": "LORA"}))
    (path / adapters.WEIGHTS).write_bytes(b"weights of " + task.encode())
    write_learned_tasks(path, [task], **tuned)
    return path


def ship_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ship an adapter for each task, instead of those of the project."""
    ship(folder, "translation", learned=LEARNED)
    ship(folder, "qa")
    ship(folder, "summarization")
    ship(folder, "writing", learned=[{"form": "haiku"}, {"form": "poem"}])
    monkeypatch.setattr(adapters, "FOLDER", folder)
    monkeypatch.setattr(adapters, "MODELS", folder.parent / "models")
    return folder


def ship_model(task: str, *, learned: Sequence[Mapping[str, str]] | None = None) -> Path:
    """Write a model of a task's own that cannot be loaded, but has all that choosing needs."""
    path = adapters.MODELS / task
    path.mkdir(parents=True)
    (path / adapters.MODEL).write_bytes(b"weights of the model")
    write_learned_tasks(path, [task], learned=LEARNED if learned is None else learned)
    return path


class Loads:
    """What was loaded, in order: model and adapter name. `models` has the models."""

    def __init__(self) -> None:
        self.names: list[tuple[str, str | None]] = []
        self.paths: list[Any] = []
        self.models: list[Any] = []


def install_loader(build: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> Loads:
    """Let `load_model` give a new fake model for each call, which says what it was tuned for."""
    loads = Loads()

    def load_model(
        name: str = "default",
        *,
        adapter: Any = None,
        adapter_name: str | None = None,
        called: str | None = None,
        **_: Any,
    ) -> Any:
        model = build()
        model.name, model.adapter = called or name, adapter_name
        folder = Path(name).parent if adapter is None else Path(adapter)
        if adapter is not None or Path(name).name == adapters.MODEL:
            model.learned_tasks = read_learned_tasks(folder).names
            model.learned_options = read_learned_tasks(folder).learned
        if adapter is not None:
            model.adapter_sha256 = "f" * 64
        loads.names.append((called or name, adapter_name))
        loads.paths.append(adapter)
        loads.models.append(model)
        return model

    monkeypatch.setattr("nlpkit.core.load.load_model", load_model)
    monkeypatch.setattr("nlpkit.core.load.check_options", lambda **_: None)
    return loads
