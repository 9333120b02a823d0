"""Holding the values of a dataclass against its annotations: what comes from a file may be of any type."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from nlpkit.core.errors import ConfigError, shown

MAX_NUMBER = 1e30
"""Largest number: products of several stay finite."""
_MAX_WHOLE = (1 << 63) - 1


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number with which one can compute.

    Args:
        value: Anything. A whole number of 400 digits is none: it cannot be made a float.
    """
    # Of NaN and infinity, too, this is false.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER


@functools.cache
def _hints(kind: Hashable) -> dict[str, Any]:
    return get_type_hints(kind)


def check_fields(instance: Any, what: str) -> None:
    """Check every field of a dataclass.

    Args:
        instance: Has fields of whole numbers, finite numbers, texts, truth values, `Literal` choices, tuples of these,
            mappings, or other dataclasses; each may be optional.
        what: What the values belong to, such as ``The model's``.

    Raises:
        ConfigError: A value is of another type, not finite, or none of the choices.
    """
    kind: Any = type(instance)
    hints = _hints(kind)
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        if not _fits(value, hints[field.name]):
            raise ConfigError(f"{what} {field.name} is {shown(value)}; it must be {_wanted(hints[field.name])}.")


def check_table(values: Mapping[str, Any], types_: Mapping[str, Any], what: str) -> None:
    """Check the values of a table.

    Args:
        values: The table.
        types_: The type of each value, as an annotation; names without one are let through, and so is None.
        what: What the table is called.

    Raises:
        ConfigError: A value is of another type.
    """
    for name, hint in types_.items():
        value = values.get(name)
        if value is not None and not _fits(value, hint):
            raise ConfigError(f"{what} has {name} = {shown(value)}; it must be {_wanted(hint)}.")


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, inner[0]) for item in value)
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if origin is not None and issubclass(origin, Sequence):
        return isinstance(value, (list, tuple)) and all(_fits(item, inner[0]) for item in value)
    if hint is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        # torch takes whole numbers of 63 bits.
        return number and abs(value) <= (_MAX_WHOLE if isinstance(value, int) else MAX_NUMBER) and math.isfinite(value)
    if hint is int:
        # Nothing counts further, and Python does not even write numbers of thousands of digits.
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MAX_WHOLE
    return isinstance(value, hint)


def _wanted(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(inner)}"
    if origin in (Union, types.UnionType):
        return " or ".join("left out" if one is type(None) else _wanted(one) for one in inner)
    if origin is tuple:
        return f"a list, and each item {_wanted(inner[0])}"
    if origin is not None and issubclass(origin, Mapping):
        return "a table"
    if origin is not None and issubclass(origin, Sequence):
        return f"a list, and each item {_wanted(inner[0])}"
    names = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text"}
    return names.get(hint, f"a {getattr(hint, '__name__', hint)}")
