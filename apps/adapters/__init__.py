"""Adapters of tasks: those that are shipped in this folder, those that a user names, and which one a row gets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlpkit.apps.languages import same_language
from nlpkit.apps.task import check_example
from nlpkit.core.errors import ModelFileError, NlpkitError, did_you_mean
from nlpkit.core.loaders.brief import BriefTasks, read_brief_tasks
from nlpkit.core.loaders.catalogue import find_entry

if TYPE_CHECKING:
    from nlpkit.apps.task import Example, Task

FOLDER = Path(__file__).parent
"""Holds a folder for each shipped adapter, named for its task."""

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE = "default"
"""Catalogue name of the model that the shipped adapters belong to."""

NONE = "none"
"""What a user says instead of an adapter's name to get the bare model."""


@dataclass(frozen=True)
class TaskAdapter:
    """An adapter's folder.

    Attributes:
        name: What results and records call it: the task's name, or the path that was given.
        path: The folder.
        tuned: What it was tuned for.
    """

    name: str
    path: Path
    tuned: BriefTasks = field(default_factory=BriefTasks, repr=False)

    def lacks(self, task: Task, example: Example) -> str | None:
        """Say what of an example the adapter did not learn.

        Args:
            task: The task.
            example: A prepared row.

        Returns:
            None where it learned all; else the end of a sentence about the adapter, empty where it is the task's own
            rule that a brief prompt does not fit.
        """
        tuned = self.tuned
        if not tuned.names:
            # Tuned with chat prompts, which fit everything.
            return None
        if task.name not in tuned.names:
            return f"was tuned for {' and '.join(sorted(tuned.names))}, not for {task.name}"
        if task.brief(example) is None:
            return ""
        target, form = example.get("target_lang"), str(example.get("form") or "")
        if tuned.languages and isinstance(target, str) and not self._translates(example, target):
            known = ", ".join("-".join(pair) for pair in tuned.languages)
            source = _given_source(example)
            return f"learned {known}, not {f'{source}-{target}' if source else f'to translate to {target}'}"
        if tuned.forms and form and form not in tuned.forms:
            return f"learned the forms {', '.join(sorted(tuned.forms))}, not {form}"
        return None

    def _translates(self, example: Example, target: str) -> bool:
        given = _given_source(example)
        return any(
            same_language(to, target) and (given is None or same_language(source, given))
            for source, to in self.tuned.languages
        )


def _given_source(example: Example) -> str | None:
    """Return the source language that the user named: a detected one may be wrong, above all in short texts."""
    source = example.get("source_lang")
    return None if source in (None, "auto") or "_confidence" in example else str(source)


def shipped_adapters() -> list[TaskAdapter]:
    """Return the adapters that are shipped, by name.

    Raises:
        ModelFileError: A file that says what an adapter was tuned for is damaged.
    """
    folders = sorted(path for path in FOLDER.iterdir() if (path / CONFIG).is_file() and (path / WEIGHTS).is_file())
    return [TaskAdapter(path.name, path, read_brief_tasks(path)) for path in folders]


def is_default_model(name: str) -> bool:
    """Tell whether a model's name is one of the default model's; a path is not, whatever file it leads to."""
    entry = find_entry(name)
    return entry is not None and entry is find_entry(BASE) and not Path(name).expanduser().exists()


def find_adapter(name: str | Path) -> TaskAdapter:
    """Find an adapter that a user names.

    Args:
        name: A folder with an adapter in it, or the name of a shipped one. The folder wins.

    Returns:
        The adapter. Whether it fits a model shows when it is loaded.

    Raises:
        ModelFileError: There is no such adapter.
    """
    path = Path(name).expanduser()
    if _exists(path / CONFIG):
        return TaskAdapter(str(name), path, read_brief_tasks(path))
    shipped = {adapter.name: adapter for adapter in shipped_adapters()}
    if str(name) in shipped:
        return shipped[str(name)]
    if re.fullmatch(r"[\w-]+", str(name)) and not _exists(path):
        hint = did_you_mean(str(name), shipped)
        raise ModelFileError(
            f"There is no adapter {str(name)!r}. {hint}{' ' if hint else ''}An adapter's folder is taken too, and "
            f"{NONE!r} for none."
        )
    raise ModelFileError(f"There is no adapter at {path}: it has no {CONFIG}. Name the adapter's folder.")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


@dataclass(frozen=True)
class Choice:
    """What one row runs on.

    Attributes:
        adapter: The adapter, or None for the bare model.
        note: What a user should know about that, or an empty string.
    """

    adapter: TaskAdapter | None = None
    note: str = ""


class AdapterChooser:
    """Chooses the adapter of each row.

    Without a wish of the user's, the default model gets the task's shipped adapter for every row that this learned, and
    no other model gets any. A named adapter is used for every row.

    Args:
        model: Name of the model, as the user gave it.
        adapter: None for the tasks' own, ``none``, or what `find_adapter` takes.

    Attributes:
        named: The adapter that the user named, or None.

    Raises:
        ModelFileError: There is no such adapter, or it is damaged.
    """

    def __init__(self, model: str, adapter: str | Path | None = None) -> None:
        self.named = None if adapter is None or str(adapter) == NONE else find_adapter(adapter)
        self._shipped: Mapping[str, TaskAdapter] = {}
        if adapter is None and is_default_model(model):
            self._shipped = {shipped.name: shipped for shipped in shipped_adapters()}

    @property
    def chooses(self) -> bool:
        """Whether tasks may differ in their adapters."""
        return bool(self._shipped)

    def usual(self, task: Task) -> TaskAdapter | None:
        """Return the adapter of a task's ordinary rows."""
        return self.named if task.raw or self.named is not None else self._shipped.get(task.name)

    def choose(self, task: Task, example: Example) -> Choice:
        """Choose for one prepared example."""
        adapter = self.usual(task)
        lack = None if adapter is None else adapter.lacks(task, example)
        if adapter is None or lack is None:
            return Choice(adapter)
        if adapter is self.named:
            lack = lack or f"learned no {task.name} of this kind"
            return Choice(adapter, f"the adapter {adapter.name} {lack}")
        return Choice(None, f"the adapter {adapter.name} {lack}: the model works without it" if lack else "")

    def choose_row(self, task: Task, row: Mapping[str, Any] | NlpkitError) -> Choice | None:
        """Choose for one row as it is in the data.

        Returns:
            The choice, or None for a row that the task refuses.
        """
        if self.usual(task) is None:
            return Choice()
        if isinstance(row, NlpkitError):
            return None
        try:
            check_example(task, row, where="the row")
            return self.choose(task, task.prepare(row))
        except NlpkitError:
            return None
