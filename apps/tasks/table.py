"""The tasks by name."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from nlpkit.apps.tasks.task import Task
from nlpkit.core.errors import ConfigError, did_you_mean

TASKS: dict[str, str] = {
    "translation": "nlpkit.apps.tasks.translation:Translation",
    "qa": "nlpkit.apps.tasks.qa:QuestionAnswering",
    "summarization": "nlpkit.apps.tasks.summarization:Summarization",
    "writing": "nlpkit.apps.tasks.writing:Writing",
    "generation": "nlpkit.apps.tasks.generation:TextGeneration",
    "chat": "nlpkit.apps.tasks.generation:Chat",
}
"""The built-in tasks. Others register an entry point in the group ``nlpkit.tasks``."""
ALIASES: dict[str, str] = {
    "translate": "translation",
    "summarize": "summarization",
    "answer": "qa",
    "write": "writing",
    "generate": "generation",
}
"""Command names that may stand for a task's name."""


def task_names() -> list[str]:
    """Return the names of all tasks, built in and installed, sorted."""
    return sorted({*TASKS, *(entry.name for entry in entry_points(group="nlpkit.tasks"))})


def load_task(name: str) -> Task:
    """Return one task by name.

    Raises:
        ConfigError: There is no such task, or an installed one cannot be imported.
    """
    name = ALIASES.get(name, name)
    if name in TASKS:
        module, _, attribute = TASKS[name].partition(":")
        task: Task = getattr(import_module(module), attribute)()
        return task
    for entry in entry_points(group="nlpkit.tasks"):
        if entry.name == name:
            try:
                loaded: Task = entry.load()()
            except Exception as error:
                raise ConfigError(f"The installed task {name!r} ({entry.value}) cannot be loaded: {error}") from error
            return loaded
    raise ConfigError(f"There is no task {name!r}. {did_you_mean(name, task_names())}")
