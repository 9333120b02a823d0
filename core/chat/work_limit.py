"""What a chat template may cost, and what each of its operations does cost.

A rendering has one `WorkLimit`, of which everything that takes time or memory draws its part beforehand; see
`nlpkit.core.chat.sandbox` for where it is drawn.
"""

from __future__ import annotations

import re
import time
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sized, ValuesView
from contextvars import ContextVar
from typing import Any

import jinja2
import jinja2.utils

BASE_BUDGET = 20_000_000
"""Units of work (characters or nodes of the template) of one rendering, beside what the messages add."""
UNITS_PER_INPUT_CHAR = 64
DEADLINE_SECONDS = 8.0
MAX_INT_BITS = 4_096
MAX_NESTING = 64
CALL_UNITS = 20
ITEM_UNITS = 16
"""A number and a place in a list take about twice as many bytes."""
CONTAINER_UNITS = 64
"""An empty list or dictionary takes about as many bytes."""

# These hand on references, so they cost the number of items and not their length.
_SHALLOW = frozenset(
    {"length", "count", "first", "last", "list", "select", "reject", "selectattr", "rejectattr"}
    | {"map", "items", "default", "d", "reverse", "attr"}
)
_METHODS = frozenset(
    {"capitalize", "casefold", "center", "count", "endswith", "find", "format", "index", "join", "ljust", "lower"}
    | {"lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust", "rpartition"}
    | {"rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper", "zfill"}
    | {"isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable"}
    | {"isspace", "istitle", "isupper", "is_integer", "bit_length"}
)
"""What of texts and numbers is offered: nothing that takes longer than its text is long."""
MAX_WIDTH = 999
"""Widest field of a format, and its most digits."""
_PRINTED_NUMBER = 400
_FIELD = re.compile(r"%(?:\([^)]*\))?[^a-zA-Z%]*")
_BRACES = re.compile(r"\{[^}]*\}")
_DIGITS = re.compile(r"\d+")
_VIEWS = (list, tuple, set, frozenset, KeysView, ValuesView, ItemsView)


class RunawayError(Exception):
    """A template overdrew its budget."""


class WorkLimit:
    """What one rendering may still cost."""

    def __init__(self, units: int) -> None:
        self.units = units
        self.deadline = time.monotonic() + DEADLINE_SECONDS

    def charge(self, units: int) -> None:
        """Draw on the budget.

        Raises:
            RunawayError: Nothing is left, or the time is up.
        """
        self.units -= units
        if self.units < 0 or time.monotonic() > self.deadline:
            raise RunawayError


current: ContextVar[WorkLimit] = ContextVar("nlpkit_template_budget")


def charge(units: int) -> None:
    """Draw on the budget of the rendering that is going on."""
    current.get().charge(units)


def check_int(value: int) -> int:
    """Return about how many digits a number has.

    Raises:
        RunawayError: It has too many bits.
    """
    if value.bit_length() > MAX_INT_BITS:
        raise RunawayError
    return 1 + value.bit_length() // 3


def weigh(value: object) -> int:
    """Return about how long ``str(value)`` is, and draw that on the budget."""
    total = 0
    stack: list[tuple[object, int]] = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        if depth > MAX_NESTING:
            raise RunawayError
        size = 64
        if isinstance(item, (str, bytes)):
            size = len(item) + 1
        elif isinstance(item, int):
            size = check_int(item)
        elif isinstance(item, Mapping):
            size = CONTAINER_UNITS + 4 * len(item)
            stack.extend((part, depth + 1) for pair in item.items() for part in pair)
        elif isinstance(item, _VIEWS):
            size = CONTAINER_UNITS + 2 * len(item)
            stack.extend((part, depth + 1) for part in item)
        elif isinstance(item, jinja2.utils.Namespace):
            stack.append((item._Namespace__attrs, depth + 1))
        charge(size)
        total += size
    return total


def weigh_top(value: object) -> None:
    """Draw the number of characters or items on the budget; what the items hold does not count."""
    if isinstance(value, int):
        check_int(value)
    elif isinstance(value, (str, bytes, Sized)):
        charge(1 + len(value))


def counted(iterable: Iterable[Any]) -> Iterator[Any]:
    """Hand on the items of an iterator, charging for each."""
    for item in iterable:
        charge(ITEM_UNITS)
        yield item


def charge_format(spec: str, values: object, *, braces: bool) -> None:
    """Charge for filling a format with values.

    Args:
        spec: The format.
        values: What is filled in; each field may print all of it.
        braces: Whether it is in the style of ``str.format``, else of ``%``.

    Raises:
        RunawayError: A field is too wide, or its width is a value.
    """
    charge(len(spec))
    fields = (_BRACES if braces else _FIELD).findall(spec)
    # Brackets may stand in a field, and a brace in the brackets: every brace that opens may be one.
    n_fields = spec.count("{") if braces else spec.count("%")
    widest = 0
    for field in fields:
        if "{" in field[1:] or "*" in field:
            raise RunawayError
        numbers = [MAX_WIDTH + 1 if len(digits) > 3 else int(digits) for digits in _DIGITS.findall(field)]
        widest = max(widest, sum(numbers))
        if any(number > MAX_WIDTH for number in numbers):
            raise RunawayError
    charge((1 + n_fields) * (weigh(values) + widest + (_PRINTED_NUMBER if widest else 0)))


def charge_compare(operator: str, left: Any, right: Any) -> None:
    """Charge for a comparison: lists that share their parts are compared as if they did not.

    Args:
        operator: As jinja names it, such as ``eq``, ``lteq`` or ``notin``.
        left: The first value.
        right: The second one; the container, for ``in``.
    """
    charge(2)
    if operator in ("in", "notin"):
        if isinstance(right, (str, bytes)):
            weigh_top(right)
            weigh_top(left)
        else:
            # Each item may be compared with it; a dictionary hashes it.
            charge(
                weigh(left) * (1 + (0 if isinstance(right, Mapping) else len(right) if isinstance(right, Sized) else 1))
            )
    elif isinstance(left, (str, bytes)) or isinstance(right, (str, bytes)):
        weigh_top(left if isinstance(left, (str, bytes)) else right)
    elif not isinstance(left, (int, float, type(None))) and not isinstance(right, (int, float, type(None))):
        weigh(left)


def charge_operator(operator: str, left: Any, right: Any) -> None:
    """Charge for an arithmetic operator before it is applied."""
    charge(CALL_UNITS)
    if operator == "%" and isinstance(left, (str, bytes)):
        charge_format(str(left), right, braces=False)
    elif operator in "+*":
        for one, other in ((left, right), (right, left)):
            if isinstance(one, Sized):
                charge(len(one) * (abs(other) if operator == "*" and isinstance(other, int) else 1))
    if isinstance(left, int) and isinstance(right, int):
        bits = max(left.bit_length(), 1)
        check_int(left)
        if operator == "**" and right > 0 and bits * right > MAX_INT_BITS:
            raise RunawayError
        if operator == "**" and right.bit_length() > 64:
            raise RunawayError


def charge_method(owner: Any, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Charge for a method of a string or number before it is called.

    Returns:
        The arguments to call it with.

    Raises:
        jinja2.exceptions.SecurityError: The method is not offered.
    """
    if name not in _METHODS:
        raise jinja2.exceptions.SecurityError(f"the method {name!r} is not offered to chat templates")
    weigh_top(owner)
    if name in ("center", "ljust", "rjust", "zfill") and args and isinstance(args[0], int):
        charge(max(args[0], 0))
    elif name == "replace" and len(args) >= 2:
        charge_replace(owner, args[0], args[1])
    elif name == "join" and args:
        items = listed(args[0])
        charge(weigh(items) + len(items) * len(owner))
        return (items, *args[1:])
    return args


def charge_replace(text: Any, old: Any, new: Any) -> None:
    """Charge for replacing `old` by `new` throughout a text."""
    text, old, new = str(text), str(old), str(new)
    charge(2 * len(text) + text.count(old) * len(new))


def listed(value: Any) -> Any:
    """Turn an iterator into a list, so that its length is known; leave everything else alone."""
    return list(counted(value)) if isinstance(value, Iterator) else value


def charge_filter(name: str, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Charge for a filter before it is applied."""
    if name in _SHALLOW:
        weigh_top(value)
        if name == "list" and isinstance(value, (str, bytes)):
            charge(CONTAINER_UNITS * len(value))
        return
    size = weigh(value)
    given = (*args, *kwargs.values())
    # What stands in lists and tuples counts as well, such as the separators of tojson.
    flat = [part for item in given for part in (item if isinstance(item, (list, tuple)) else (item,))]
    numbers = [abs(item) for item in flat if isinstance(item, int)]
    width = max([*numbers, *(len(item) for item in flat if isinstance(item, (str, bytes)))], default=0)
    items = len(value) if isinstance(value, Sized) else 1
    if name == "replace" and len(given) >= 2:
        charge_replace(value, given[0], given[1])
    elif name == "format" and isinstance(value, str):
        charge_format(value, given, braces=False)
    elif name == "round" and max(numbers, default=0) > 400:
        raise RunawayError
    elif name == "indent":
        charge((str(value).count("\n") + 1) * (width + 4))
    elif name == "tojson":
        # Each character may be escaped, each item stands between separators, or on a line of its own.
        charge(size * (6 + MAX_NESTING * width))
    elif name == "sum":
        charge(size * items)
    elif name in ("sort", "dictsort", "unique", "groupby", "min", "max"):
        # Comparisons: each value takes part in about so many.
        charge(size * (2 + items.bit_length()) + CONTAINER_UNITS * items)
    elif name in ("join", "batch", "slice"):
        weigh(given)
        charge(CONTAINER_UNITS * items if name != "join" else 0)
        charge(items * max((weigh(item) for item in given if not isinstance(item, int)), default=0))
        charge(max(numbers, default=0))
    else:
        charge(width)
