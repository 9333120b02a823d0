"""The tasks by name."""

from __future__ import annotations

import hashlib
import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from nlpkit.apps.tasks.task import Task, check_task
from nlpkit.core.errors import ConfigError, did_you_mean

TASKS: dict[str, str] = {
    "translation": "nlpkit.apps.tasks.translation:Translation",
    "qa": "nlpkit.apps.tasks.qa:QuestionAnswering",
    "summarization": "nlpkit.apps.tasks.summarization:Summarization",
    "writing": "nlpkit.apps.tasks.writing:Writing",
    "classification": "nlpkit.apps.tasks.classification:Classification",
    "sentiment": "nlpkit.apps.tasks.sentiment:Sentiment",
    "generation": "nlpkit.apps.tasks.generation:TextGeneration",
    "chat": "nlpkit.apps.tasks.generation:Chat",
}
"""The built-in tasks. Others register an entry point in the group ``nlpkit.tasks``."""
ALIASES: dict[str, str] = {
    "translate": "translation",
    "summarize": "summarization",
    "answer": "qa",
    "write": "writing",
    "classify": "classification",
    "generate": "generation",
}
"""Command names that may stand for a task's name."""


_FILES: dict[str, tuple[type[Task[Any]], str]] = {}
"""Tasks from files that the user named on the command line, by path, with the sha256 of the file."""


def task_names() -> list[str]:
    """Return the names of all tasks, built in and installed, sorted."""
    return sorted({*TASKS, *(entry.name for entry in entry_points(group="nlpkit.tasks"))})


def load_task(name: str) -> Task[Any]:
    """Return one task by name, or by the path of a file that `run_task_file` ran.

    Raises:
        ConfigError: There is no such task, or an installed one cannot be imported.
    """
    name = ALIASES.get(name, name)
    if name in _FILES:
        return _FILES[name][0]()
    if is_task_file(name):
        raise ConfigError(
            f"The task file {name} is not run here: only a file that is named on the command line is, as in "
            f"nlpkit train --task {name}."
        )
    if name in TASKS:
        module, _, attribute = TASKS[name].partition(":")
        task: Task[Any] = getattr(import_module(module), attribute)()
        return task
    for entry in entry_points(group="nlpkit.tasks"):
        if entry.name == name:
            try:
                loaded = entry.load()()
            except Exception as error:
                raise ConfigError(f"The installed task {name!r} ({entry.value}) cannot be loaded: {error}") from error
            return check_task(loaded, where=entry.value)
    raise ConfigError(f"There is no task {name!r}. {did_you_mean(name, task_names())}")


def is_task_file(name: str) -> bool:
    """Tell whether a user named a file instead of a task."""
    return name.endswith(".py")


def file_sha256(task: Task[Any]) -> str | None:
    """Return the hex sha256 of a task's file; None where it is no task from a file."""
    return next((sha256 for known, sha256 in _FILES.values() if known is type(task)), None)


def run_task_file(path: str) -> Task[Any]:
    """Run a Python file that the user named, and return the task in it.

    This is the only place that runs a file of the user's. From then on `load_task` knows the task by the path.

    Args:
        path: A Python file with one task: a class of its own that no other class in it builds on.

    Raises:
        ConfigError: There is no such file, it fails, or it does not hold one complete task.
    """
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigError(f"The task file {path} cannot be read: {getattr(error, 'strerror', error)}.") from error
    sha256 = hashlib.sha256(content).hexdigest()
    # A name of its own for each file and content: dataclasses look their module up.
    name = f"nlpkit_task_{sha256[:16]}"
    module = ModuleType(name)
    module.__file__ = path
    sys.modules[name] = module
    try:
        # The very content that was hashed, and without the import system, which would write bytecode beside the file.
        exec(compile(content, path, "exec"), module.__dict__)  # noqa: S102 - what the user asks for
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ConfigError(f"The task file {path} cannot be run: {type(error).__name__}: {error}") from error
    own = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == name]
    tasks = [value for value in own if issubclass(value, Task)]
    found = [one for one in tasks if not any(one is not other and issubclass(other, one) for other in tasks)]
    if len(found) != 1:
        names = ", ".join(one.__name__ for one in found) or "none"
        raise ConfigError(
            f"The task file {path} must hold one task, a class that builds on nlpkit.Task; it has {names}."
        )
    task = check_task(found[0](), where=f"{found[0].__name__} in {path}")
    if task.name in TASKS:
        raise ConfigError(
            f"The task in {path} is called {task.name!r}, as one of nlpkit's own is. Give it another name."
        )
    _FILES[path] = found[0], sha256
    return task
