"""Which tasks a model or an adapter was tuned for with brief prompts: a file beside its weights says so."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from nlpkit.core.errors import ModelFileError
from nlpkit.core.loaders.hf import read_json_object

FILE_NAME = "nlpkit_tasks.json"
FORMAT_VERSION = 1


def read_brief_tasks(folder: Path) -> frozenset[str]:
    """Read the names of the tasks whose brief prompts the model in a folder learned.

    Args:
        folder: A model's or an adapter's folder, or a model file.

    Returns:
        The names; none where the folder does not say.

    Raises:
        ModelFileError: The file is damaged, or of a later version.
    """
    path = folder / FILE_NAME
    if not folder.is_dir() or not path.exists():
        return frozenset()
    values = read_json_object(path)
    names = values.get("brief_prompts")
    if values.get("format_version") != FORMAT_VERSION or not isinstance(names, list):
        raise ModelFileError(f"{path} cannot be used: it is damaged, or from a later version of nlpkit.")
    return frozenset(str(name) for name in names)


def write_brief_tasks(folder: Path, tasks: Iterable[str]) -> None:
    """Write down the tasks; nothing where there are none.

    Args:
        folder: An existing folder.
        tasks: Their names.
    """
    names = sorted(tasks)
    if names:
        text = json.dumps({"format_version": FORMAT_VERSION, "brief_prompts": names}, indent=2)
        (folder / FILE_NAME).write_text(text + "\n", "utf-8")
