"""What the columns of rows are for, told by the fields of the tasks: for rows whose task is not at hand."""

from __future__ import annotations

from functools import cache

from nlpkit.apps.tasks.table import TASKS, load_task
from nlpkit.apps.tasks.task import Field


@cache
def _fields() -> tuple[Field, ...]:
    return tuple(column for name in TASKS for column in load_task(name).fields)


@cache
def option_names() -> frozenset[str]:
    """Return the columns that are an option of some built-in task."""
    return frozenset(column.name for column in _fields() if column.role == "option")


@cache
def input_names() -> tuple[str, ...]:
    """Return the columns that some built-in task reads."""
    return tuple(dict.fromkeys(column.name for column in _fields() if column.role == "text" and column.kind is str))


@cache
def reference_names() -> frozenset[str]:
    """Return the columns that say what should come out of some built-in task."""
    return frozenset(column.name for column in _fields() if column.role == "reference")
