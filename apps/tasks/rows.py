"""A row of a task is checked, prepared and answered: what code that serves all tasks does with one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic

from nlpkit.apps.tasks.task import E, Field, Prediction, Row, Task
from nlpkit.core.errors import ColumnError, InputError, shown

_MAX_DIGITS = 18
"""Of a whole number in a row: Python refuses to read texts of thousands of digits."""


@dataclass(frozen=True)
class Prepared(Generic[E]):
    """A row that was checked and prepared.

    Attributes:
        row: As it was given.
        example: Prepared.
    """

    row: Row
    example: E


def prepare_row(task: Task[E], row: Row, *, where: str, columns: Iterable[str] | None = None) -> Prepared[E]:
    """Check and prepare one row.

    Args:
        task: The task.
        row: The row.
        where: Where it came from, such as ``data.jsonl:7``, for errors.
        columns: Names of its own columns, where others were added to it.

    Raises:
        NlpkitError: It cannot be used.
    """
    check_row(task, row, where=where, columns=columns)
    return Prepared(row, task.prepare(row))


def read_completion(task: Task[E], completion: str, example: E) -> Prediction:
    """Clean and parse what a model wrote."""
    return task.parse(task.cleaning.clean(completion, like=like_of(task, example)), example)


def like_of(task: Task[E], example: E) -> str:
    """Return the input by which a completion is cleaned."""
    return task.text(example) if task.cleaning.by_input else ""


def resolve_aliases(fields: Iterable[Field], row: Row) -> dict[str, Any]:
    """Return a row with the values of fields that stand under another name, where that can mean one thing only."""
    values = dict(row)
    for column in fields:
        if column.name not in values:
            found = [name for name in column.aliases if isinstance(row.get(name), str)]
            if len(found) == 1:
                values[column.name] = row[found[0]]
    return values


def _strings(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def _is_whole(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= 40 and value.strip().isdecimal() and len(value.strip()) <= _MAX_DIGITS
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**_MAX_DIGITS


_KINDS: dict[type, tuple[Callable[[Any], bool], str]] = {
    str: (lambda value: isinstance(value, str), "a string"),
    list: (lambda value: isinstance(value, list) and _strings(value), "a list of strings"),
    dict: (
        lambda value: isinstance(value, Mapping) and _strings(value) and _strings(value.values()),
        "an object of strings",
    ),
    int: (_is_whole, "a whole number"),
}


def check_row(task: Task[Any], row: Row, *, where: str, columns: Iterable[str] | None = None) -> None:
    """Check one data row against the task's fields.

    Args:
        task: The task it is meant for.
        row: The row.
        where: Where it came from, such as ``data.jsonl:7``, for the error.
        columns: Names of its own columns, where others were added to it.

    Raises:
        InputError: A required field is missing, empty or of the wrong type.
    """
    for column in task.fields:
        if column.name not in row or row[column.name] is None:
            if column.required:
                needed = ", ".join(repr(f.name) for f in task.fields if f.required)
                own = ", ".join(row if columns is None else columns)
                raise ColumnError(
                    f"{where}: the row has no {column.name!r}; {task.name} rows need {needed}. It has: {own}.",
                    column.name,
                )
            continue
        value = row[column.name]
        accepts, kind = _KINDS[column.kind]
        if not accepts(value):
            raise InputError(f"{where}: {column.name!r} must be {kind}, not {shown(value, 80)}.")
        if column.kind is str and column.required and not column.may_be_empty and not value.strip():
            raise InputError(f"{where}: {column.name!r} is empty.")
