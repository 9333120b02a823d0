"""What a task runs on besides the bare model: adapters and whole models that are shipped, and which one a row gets.

Adapters of the default model and models of a task's own lie in ``apps/weights``, a folder a task.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlpkit.apps.tasks.task import Lack, Learned, Task
from nlpkit.core.errors import ConfigError, ModelFileError, did_you_mean
from nlpkit.core.fetch.catalogue import find_entry
from nlpkit.core.formats.gguf.file import open_gguf
from nlpkit.core.formats.learned_tasks import FILE_NAME, GGUF_KEY, LearnedTasks, parse_learned_tasks, read_learned_tasks

FOLDER = Path(__file__).parent.parent / "weights"
"""Holds a folder for each shipped adapter, named for its task."""

MODELS = FOLDER
"""Holds a folder for each shipped model that does one task and needs no other, named for its task."""

MODEL = "model.gguf"
"""Name of a shipped model's file."""

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE = "default"
"""Catalogue name of the model that the shipped adapters belong to."""

NONE = "none"
"""What a user says instead of an adapter's name to get the bare model."""


class NotLearnedError(ConfigError):
    """What a task runs on by default did not learn what a row asks for, and nothing that is shipped did."""


@dataclass(frozen=True)
class TaskAdapter:
    """An adapter's folder, or that of a model of a task's own.

    Attributes:
        name: What results and records call it: the task's name, or the path that was given.
        path: The folder.
        tuned: What it was tuned for.
        model: The file of a model of its own; None for an adapter of the default model.
    """

    name: str
    path: Path
    tuned: LearnedTasks = field(default_factory=LearnedTasks, repr=False)
    model: Path | None = None

    def __str__(self) -> str:
        return f"the {'adapter' if self.model is None else 'model'} {self.name}"

    def lack(self, task: Task[Any], example: Any) -> Lack | None:
        """Say what of an example the adapter did not learn.

        Args:
            task: The task.
            example: A prepared row.

        Returns:
            None where it learned all. The text is empty where it is the task's own rule that a short prompt does not
            fit.
        """
        tuned = self.tuned
        if not tuned.names:
            # Tuned with chat prompts, which fit everything.
            return None
        if task.name not in tuned.names:
            return Lack(f"was tuned for {' and '.join(sorted(tuned.names))}, not for {task.name}")
        if task.prompt(example).short is None:
            return Lack("")
        return task.lack(example, Learned(tuned.learned))


def shipped_adapters() -> list[TaskAdapter]:
    """Return the adapters that are shipped, by name.

    Raises:
        ModelFileError: A file that says what an adapter was tuned for is damaged.
    """
    folders = sorted(path for path in FOLDER.iterdir() if (path / CONFIG).is_file() and (path / WEIGHTS).is_file())
    return [TaskAdapter(path.name, path, read_learned_tasks(path)) for path in folders]


def shipped_models() -> list[TaskAdapter]:
    """Return the models of tasks' own that are shipped, by name.

    Raises:
        ModelFileError: A file that says what a model was tuned for is damaged.
    """
    if not MODELS.is_dir():
        return []
    folders = sorted(path for path in MODELS.iterdir() if (path / MODEL).is_file())
    return [TaskAdapter(path.name, path, _tuned(path), path / MODEL) for path in folders]


def _tuned(folder: Path) -> LearnedTasks:
    # The small file says it at once; the model's own metadata, which hold its vocabulary, take longer to read.
    if (folder / FILE_NAME).exists():
        return read_learned_tasks(folder)

    text = open_gguf(folder / MODEL).metadata.get(GGUF_KEY)
    return LearnedTasks() if text is None else parse_learned_tasks(text, where=str(folder / MODEL))


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
        return TaskAdapter(str(name), path, read_learned_tasks(path))
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
class ModelChoice:
    """What one row runs on.

    Attributes:
        adapter: The adapter or the task's own model, or None for the bare model.
        note: What a user should know about that, or an empty string.
    """

    adapter: TaskAdapter | None = None
    note: str = ""


class AdapterChooser:
    """Chooses what each row runs on.

    Without a wish of the user's, a task runs on its own shipped model where it has one, else on the default model with
    the task's shipped adapter for every row that this learned; no other model gets any. A named adapter is used for
    every row.

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
            self._shipped = {shipped.name: shipped for shipped in (*shipped_adapters(), *shipped_models())}

    @property
    def chooses(self) -> bool:
        """Whether tasks may differ in their adapters."""
        return bool(self._shipped)

    @property
    def shipped(self) -> Sequence[TaskAdapter]:
        """The adapters and models among which tasks choose; none where the user named one, or another model."""
        return tuple(self._shipped.values())

    @property
    def needs_default(self) -> bool:
        """Whether every task needs the default model, because none has one of its own."""
        return all(shipped.model is None for shipped in self._shipped.values())

    def usual(self, task: Task[Any]) -> TaskAdapter | None:
        """Return the adapter of a task's ordinary rows."""
        return self.named if self.named is not None else self._shipped.get(task.name)

    def choose(self, task: Task[Any], example: Any, *, solved: Sequence[Any] = ()) -> ModelChoice:
        """Choose for one prepared example.

        Args:
            task: The task.
            example: The example.
            solved: Solved examples that stand before it; where one of them has no short prompt, none is used.

        Raises:
            NotLearnedError: What the task runs on by default did not learn this, and the bare model would be no help.
        """
        adapter = self.usual(task)
        if adapter is None:
            return ModelChoice()
        lack = adapter.lack(task, example)
        if lack is None and any(adapter.lack(task, one) == Lack("") for one in solved):
            lack = Lack("")
        if lack is None:
            return ModelChoice(adapter)
        if adapter is self.named:
            return ModelChoice(adapter, f"{adapter} {lack.text or f'learned no {task.name} of this kind'}")
        if lack.refused:
            raise NotLearnedError(
                f"What is shipped cannot do this: {adapter} {lack.text}. Name a model that knows these languages with "
                "--model (a GGUF file, a folder or a hub id), or say --adapter none to ask the default model, which "
                "knows little but English."
            )
        return ModelChoice(None, f"{adapter} {lack.text}: the model works without it" if lack.text else "")
