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


def find_files(paths: Sequence[str], *, output: str | None = None, suffix: str | None = None) -> list[FoundFile]:
    """Return the files that paths, folders and patterns such as ``docs/**/*.md`` stand for.

    Folders are walked in the order of names, hidden files and folders left out; what a pattern finds keeps its path
    below the part of the pattern that is none. Results of an earlier run are no sources: what lies in the folder of
    results, and ``a.de.md`` beside ``a.md`` where results are called so, are found only if they are named themselves.

    Args:
        paths: What the user named.
        output: The file or folder of results, if the user named one.
        suffix: What is put before the last suffix of every result's name.

    Raises:
        InputError: A pattern finds nothing, or there are too many files.
    """
    found: dict[str, FoundFile] = {}
    for path in paths:
        for file in _files(path, output):
            found.setdefault(os.path.realpath(file.path) if file.path != STDIN else STDIN, file)
            if len(found) > MAX_FILES:
                raise InputError(f"There are more than {MAX_FILES:,} files in {display_name(path)}. Name fewer.")
    results = {_result_name(os.path.abspath(file.path), suffix) for file in found.values()} if suffix else set()
    return [file for file in found.values() if file.named or os.path.abspath(file.path) not in results]


def is_many(path: str) -> bool:
    """Return whether a path stands for several files: a folder, or a pattern that is no file's name."""
    return os.path.isdir(path) or (glob.has_magic(path) and not os.path.exists(path))


def _files(path: str, output: str | None) -> Iterator[FoundFile]:
    if os.path.isdir(path):
        yield from _walk(path, output)
    elif glob.has_magic(path) and not os.path.exists(path):
        base = _fixed(path)
        matches = sorted(glob.glob(path, recursive=True))
        if not matches:
            raise InputError(f"Nothing is named like {display_name(path)!r}. Check the pattern and the current folder.")
        for match in matches:
            if os.path.isfile(match) and not _holds_results(os.path.dirname(match), base or ".", output):
                yield FoundFile(match, os.path.relpath(match, base or "."), named=False)
    else:
        yield FoundFile(path, os.path.basename(path) or path)


def _walk(folder: str, output: str | None) -> Iterator[FoundFile]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not _holds_results(os.path.join(here, name), folder, output)
        )
        for name in sorted(names):
            path = os.path.join(here, name)
            if not name.startswith(".") and os.path.isfile(path):
                yield FoundFile(path, os.path.relpath(path, folder), named=False)


def _holds_results(folder: str, base: str, output: str | None) -> bool:
    """Tell whether a folder below the one that is searched is that of the results, or lies in it."""
    if output is None or not os.path.isdir(output):
        return False
    results = Path(os.path.realpath(output))
    return not Path(os.path.realpath(base)).is_relative_to(results) and Path(os.path.realpath(folder)).is_relative_to(
        results
    )


def _result_name(name: str, suffix: str) -> str:
    """Return what the result of a file is called: what was compressed comes out as it was before."""
    name = name[:-3] if name.lower().endswith(".gz") else name
    stem, dot, last = name.rpartition(".")
    return f"{stem}{suffix}{dot}{last}" if dot and "/" not in last else name + suffix


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

    def places(self, files: Sequence[FoundFile], sources: Sequence[FoundFile]) -> list[Path | None]:
        """Return where the results of files go, one a file; None for standard output.

        Args:
            files: The files.
            sources: These, and what else was found.

        Raises:
            ConfigError: A result would replace a source, or that of another file.
        """
        there = {_identity(file.path): file for file in sources if file.path != STDIN and os.path.exists(file.path)}
        taken: dict[str, FoundFile] = {}
        places: list[Path | None] = []
        for file in files:
            place = self._path(file)
            places.append(place)
            if place is None:
                continue
            replaced = there.get(_identity(place)) if place.exists() else None
            if replaced is not None:
                by = "its translation"
                if replaced.path != file.path:
                    by = f"the translation of {display_name(file.path)}"
                raise ConfigError(
                    f"{display_name(replaced.path)} would be replaced by {by}. Name another place with -o, or add "
                    "--suffix .de."
                )
            other = taken.setdefault(os.path.realpath(place), file)
            if other is not file:
                raise ConfigError(
                    f"The translations of {display_name(other.path)} and {display_name(file.path)} would both be "
                    f"written to {display_name(str(place))}. Name the folder that they have in common with -f, or "
                    "translate one after the other, each with an -o of its own."
                )
        return places

    def _path(self, file: FoundFile) -> Path | None:
        if self.output is not None and not self.folder:
            return Path(self.output)
        if self.output is None and not self.suffix:
            return None
        name = _result_name(file.relative, self.suffix)
        return Path(self.output, name) if self.output is not None else Path(file.path).with_name(Path(name).name)


def _identity(path: str | Path) -> tuple[int, int]:
    """Return what two names of one file have in common."""
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino
