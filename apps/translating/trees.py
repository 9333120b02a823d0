"""Which files a command works on, and where their translations go."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nlpkit.apps.documents.files import STDIN, display_name
from nlpkit.core.errors import ConfigError, InputError

MAX_FILES = 100_000
"""Most files of one run."""


@dataclass(frozen=True)
class FoundFile:
    """A file to work on.

    Attributes:
        path: Its path; ``-`` for standard input.
        relative: Its path below the folder that it was found in, or its name.
        named: Whether it was named itself, rather than found in a folder or by a pattern.
    """

    path: str
    relative: str
    named: bool = True


def find_files(paths: Sequence[str]) -> list[FoundFile]:
    """Return the files that paths, folders and patterns such as ``docs/**/*.md`` stand for.

    Folders are walked in the order of names, hidden files and folders left out; what a pattern finds keeps its path
    below the part of the pattern that is none.

    Args:
        paths: What the user named.

    Raises:
        InputError: A pattern finds nothing, or there are too many files.
    """
    found: dict[str, FoundFile] = {}
    for path in paths:
        for file in _files(path):
            found.setdefault(os.path.realpath(file.path) if file.path != STDIN else STDIN, file)
            if len(found) > MAX_FILES:
                raise InputError(f"There are more than {MAX_FILES:,} files in {display_name(path)}. Name fewer.")
    return list(found.values())


def is_many(path: str) -> bool:
    """Return whether a path stands for several files: a folder, or a pattern that is no file's name."""
    return os.path.isdir(path) or (glob.has_magic(path) and not os.path.exists(path))


def _files(path: str) -> Iterator[FoundFile]:
    if os.path.isdir(path):
        yield from _walk(path)
    elif glob.has_magic(path) and not os.path.exists(path):
        base = _fixed(path)
        matches = sorted(glob.glob(path, recursive=True))
        if not matches:
            raise InputError(f"Nothing is named like {display_name(path)!r}. Check the pattern and the current folder.")
        for match in matches:
            if os.path.isfile(match):
                yield FoundFile(match, os.path.relpath(match, base or "."), named=False)
    else:
        yield FoundFile(path, os.path.basename(path) or path)


def _walk(folder: str) -> Iterator[FoundFile]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = os.path.join(here, name)
            if not name.startswith(".") and os.path.isfile(path):
                yield FoundFile(path, os.path.relpath(path, folder), named=False)


def _fixed(pattern: str) -> str:
    """Return the folder that a pattern begins with, up to its first sign that stands for others."""
    folder = pattern
    while folder and glob.has_magic(folder):
        folder = os.path.dirname(folder)
    return folder


@dataclass(frozen=True)
class Destination:
    """Where results go.

    Attributes:
        output: The file or folder that the user named; None for standard output, or beside the sources with `suffix`.
        suffix: What is put before the last suffix of every name, such as ``.de``.
        folder: Whether `output` is a folder, which gets the tree of the sources.
    """

    output: str | None
    suffix: str = ""
    folder: bool = False

    @staticmethod
    def choose(files: Sequence[FoundFile], output: str | None, suffix: str | None) -> Destination:
        """Say where the results of files go.

        Raises:
            ConfigError: That cannot be told: many files, and neither a folder nor a suffix.
        """
        suffix = suffix or ""
        if suffix and ("/" in suffix or os.sep in suffix):
            raise ConfigError(f"--suffix {suffix!r} is no part of a file's name. Give one such as .de.")
        many = len(files) > 1 or any(not file.named for file in files)
        if output is not None and output != STDIN:
            folder = many or output.endswith(("/", os.sep)) or os.path.isdir(output)
            if folder and os.path.exists(output) and not os.path.isdir(output):
                raise ConfigError(
                    f"-o {display_name(output)} is a file, but there are {len(files)} files to write. Name a folder."
                )
            return Destination(output, suffix, folder)
        if suffix and not any(file.path == STDIN for file in files):
            return Destination(None, suffix)
        if many:
            raise ConfigError(
                f"There are {len(files)} files to write: name a folder for them with -o DIR, or say --suffix .de to "
                "have each beside its source."
            )
        return Destination(None)

    def path(self, file: FoundFile) -> Path | None:
        """Return where a file's result goes; None for standard output.

        Raises:
            ConfigError: That is the source itself.
        """
        if self.output is not None and not self.folder:
            return Path(self.output)
        if self.output is None and not self.suffix:
            return None
        # What was compressed comes out as it was before.
        relative = file.relative[:-3] if file.relative.lower().endswith(".gz") else file.relative
        stem, dot, last = relative.rpartition(".")
        name = f"{stem}{self.suffix}{dot}{last}" if dot and "/" not in last else relative + self.suffix
        place = Path(self.output, name) if self.output is not None else Path(file.path).with_name(Path(name).name)
        if place.exists() and os.path.exists(file.path) and os.path.samefile(place, file.path):
            raise ConfigError(
                f"{display_name(file.path)} would be replaced by its translation. Name another folder with -o, or add "
                "--suffix .de."
            )
        return place
