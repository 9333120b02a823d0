"""Columns of rows under other names than a task's, and values that all rows have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nlpkit.apps.data.rows import ABSENT, read_cell
from nlpkit.apps.tasks.task import Field
from nlpkit.core.errors import ConfigError, InputError, did_you_mean, shortened


def reach(values: Mapping[str, Any], path: str, where: str) -> Any:
    """Return a value by its column's name; dots reach into nested objects (``translation.en``).

    Args:
        values: The row.
        path: The name.
        where: Where the row came from, for errors.

    Raises:
        InputError: There is no such column.
    """
    if path in values:
        return values[path]
    current: Any = values
    for step in path.split("."):
        if not isinstance(current, Mapping) or step not in current:
            has = shortened(", ".join(map(str, values)))
            raise InputError(f"{where}: the row has no column {path!r}. It has: {has}.")
        current = current[step]
    return current


def mapped(
    values: Mapping[str, Any], where: str, *, fields: Sequence[Field], columns: Mapping[str, str]
) -> dict[str, Any]:
    """Return a row with a task's columns taken from others of the row.

    Args:
        values: The row.
        where: Where it came from, for errors.
        fields: The task's columns: a text is read for them as a cell of a table is.
        columns: For columns of the task the row's own name.

    Returns:
        The row, its own columns included.

    Raises:
        InputError: The row has no such column, or its cell is not what the column needs.
    """
    row = dict(values)
    by_name = {column.name: column for column in fields}
    for column, theirs in columns.items():
        value = reach(values, theirs, where)
        if isinstance(value, str):
            value = read_cell(value, by_name.get(column), f"{where}: {theirs!r}")
        row.pop(column, None)
        if value is not ABSENT:
            row[column] = value
    return row


def parse_pairs(entries: Sequence[str], flag: str) -> dict[str, str]:
    """Read repeated ``NAME=VALUE`` options.

    Args:
        entries: The option's values.
        flag: The option, for errors.

    Raises:
        ConfigError: One has no ``=``, or a name comes twice.
    """
    pairs: dict[str, str] = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"{flag} is {entry!r}; it must be NAME=VALUE.")
        if name.strip() in pairs:
            raise ConfigError(f"{flag} gives {name.strip()!r} twice.")
        pairs[name.strip()] = value
    return pairs


def check_columns(columns: Mapping[str, Any], fields: Sequence[Field], task: str, flag: str) -> None:
    """Refuse names that are no columns of a task.

    Args:
        columns: Keyed by the names.
        fields: The task's columns.
        task: The task's name.
        flag: The option that gave them, for errors.

    Raises:
        ConfigError: One is none.
    """
    known = [column.name for column in fields]
    for name in columns:
        if name not in known:
            raise ConfigError(f"{flag} {name}: the task {task} has no field {name!r}. {did_you_mean(name, known)}")
