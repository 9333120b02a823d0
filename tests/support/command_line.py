"""The command line as a tree: every command put together, as if it was called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nlpkit.apps.cli.process import LateCommand


def whole(command: Any) -> Any:
    """Return the command that stands behind its place in the help."""
    return command.load() if isinstance(command, LateCommand) else command


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the words of each command that holds no others, and the command."""
    for name, child in getattr(command, "commands", {}).items():
        yield from leaves(whole(child), (*path, name))
    if not hasattr(command, "commands"):
        yield path, command
