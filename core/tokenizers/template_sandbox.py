"""Renders untrusted jinja templates within bounds.

jinja's own sandbox keeps a template from reaching Python's insides; it does not keep it from running for a
day or from building a string of a terabyte. Here every rendering has one budget, and everything that costs
time or memory draws on it:

* every pass through a loop, macro or block costs the size of its body (the calls are added to the parsed
template); * every printed or concatenated value costs its length; * every filter, method and operator costs
the length of what it reads and of what it makes; those that make much out
  of little (``replace``, ``center``, ``*``, ``%``, ``format`` ...) are charged from their arguments,
  beforehand;
* whole numbers have at most 4,096 bits, ``range`` at most 100,000 items, values at most 64 levels.

So time and memory are bounded by the budget, whatever the template is, and a deadline bounds slow machines
too. Nothing is folded at compile time. The few filters that chat templates have no use for and that are hard
to bound are left out. Everything else agrees with what ``transformers`` gives to chat templates.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, Sized, ValuesView
from contextvars import ContextVar
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.parser
import jinja2.sandbox
import jinja2.utils
from jinja2 import nodes
from jinja2.runtime import Context
from jinja2.visitor import NodeTransformer
from nlpkit.core.errors import InputError, ModelFileError

MAX_SOURCE_CHARS = 2**19
BASE_BUDGET = 20_000_000
"""Units of work (characters or nodes of the template) of one rendering, beside what the messages add."""
UNITS_PER_INPUT_CHAR = 64
DEADLINE_SECONDS = 8.0
MAX_INT_BITS = 4_096
MAX_NESTING = 64
_CALL_UNITS = 20

_LEFT_OUT = ("pprint", "random", "urlize", "wordwrap", "xmlattr", "filesizeformat")
# These hand on references, so they cost the number of items and not their length.
_SHALLOW = frozenset(
    {"length", "count", "first", "last", "list", "select", "reject", "selectattr", "rejectattr"}
    | {"map", "items", "default", "d", "reverse", "attr"}
)
_REFUSED_METHODS = frozenset({"translate", "maketrans", "expandtabs", "to_bytes", "from_bytes", "format_map"})
_WIDE_FORMAT = re.compile(r"\d{5}|%[^a-zA-Z%]*\*|\{[^}]*\{")
_WIDE_DATE = re.compile(r"%[^a-zA-Z]*\d{3}")
_VIEWS = (list, tuple, set, frozenset, KeysView, ValuesView, ItemsView)


class _RunawayError(Exception):
    """A template overdrew its budget."""


class _RefusedError(Exception):
    """A template called ``raise_exception``: the conversation does not suit it."""


class _Budget:
    """What one rendering may still cost."""

    def __init__(self, units: int) -> None:
        self.units = units
        self.deadline = time.monotonic() + DEADLINE_SECONDS

    def charge(self, units: int) -> None:
        self.units -= units
        if self.units < 0 or time.monotonic() > self.deadline:
            raise _RunawayError


_current: ContextVar[_Budget] = ContextVar("nlpkit_template_budget")


def _charge(units: int) -> None:
    _current.get().charge(units)


def _check_int(value: int) -> int:
    if value.bit_length() > MAX_INT_BITS:
        raise _RunawayError
    return 1 + value.bit_length() // 3


def _weigh(value: object) -> int:
    """Return about how long ``str(value)`` is, and draw that on the budget."""
    total = 0
    stack: list[tuple[object, int]] = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        if depth > MAX_NESTING:
            raise _RunawayError
        size = 64
        if isinstance(item, (str, bytes)):
            size = len(item) + 1
        elif isinstance(item, int):
            size = _check_int(item)
        elif isinstance(item, Mapping):
            size = 1 + 4 * len(item)
            stack.extend((part, depth + 1) for pair in item.items() for part in pair)
        elif isinstance(item, _VIEWS):
            size = 1 + 2 * len(item)
            stack.extend((part, depth + 1) for part in item)
        elif isinstance(item, jinja2.utils.Namespace):
            stack.append((item._Namespace__attrs, depth + 1))
        _charge(size)
        total += size
    return total


def _weigh_top(value: object) -> None:
    """Draw the number of characters or items on the budget; what the items hold does not count."""
    if isinstance(value, int):
        _check_int(value)
    elif isinstance(value, (str, bytes, Sized)):
        _charge(1 + len(value))


@jinja2.pass_context
def _weighed(_: Context, value: Any) -> Any:
    _weigh(value)
    return value


@jinja2.pass_context
def _charged(_: Context, units: int) -> None:
    _charge(units)


@jinja2.pass_context
def _iterated(_: Context, iterable: Any) -> Any:
    """Charge for the items of a loop, at once where their number is known."""
    if isinstance(iterable, Sized):
        _charge(2 * len(iterable))
        return iterable
    return _counted(iterable)


def _counted(iterable: Iterable[Any]) -> Iterator[Any]:
    for item in iterable:
        _charge(2)
        yield item


class _AddCharges(NodeTransformer):
    """Puts the charging filters into a parsed template."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        node.iter = _filter(node.iter, "nlpkit_iterate")
        return self._charge_body(node)

    def _charge_body(self, node: Any) -> nodes.Node:
        units = sum(map(_static_units, node.body)) + 1
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_filter(nodes.Const(units), "nlpkit_charge")))
        changed: nodes.Node = node
        return changed

    visit_Macro = visit_CallBlock = visit_Block = _charge_body

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [_filter(part, "nlpkit_weigh") for part in node.nodes]
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return _filter(node, "nlpkit_shallow") if isinstance(node.arg, nodes.Slice) else node


def _filter(value: Any, name: str) -> nodes.Filter:
    return nodes.Filter(value, name, [], [], None, None)


def _static_units(node: nodes.Node) -> int:
    """Return the size of a piece of a template, without the bodies that are charged for by themselves."""
    if isinstance(node, nodes.TemplateData):
        return 1 + len(node.data)
    if isinstance(node, nodes.Const) and isinstance(node.value, str):
        return 1 + len(node.value)
    return 1 + sum(map(_static_units, node.iter_child_nodes()))


class _GenerationBlocks(jinja2.ext.Extension):
    """Reads ``{% generation %}``, which marks text to train on, as its content."""

    tags = frozenset({"generation"})  # type: ignore[assignment]

    def parse(self, parser: jinja2.parser.Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template = _AddCharges().visit(super()._parse(source, name, filename))
        template.set_environment(self)
        template.set_lineno(1)
        parsed: nodes.Template = template
        return parsed

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _charge_operator(operator, left, right)
        result = super().call_binop(context, operator, left, right)
        _weigh_top(result)
        return result

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        _charge(_CALL_UNITS)
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, (str, bytes, int, float)):
            args = _charge_method(owner, getattr(__obj, "__name__", ""), args)
        for argument in (*args, *kwargs.values()):
            _weigh_top(argument)
        result = super().call(__context, __obj, *args, **kwargs)
        _weigh_top(result)
        return result

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        formatter = super().wrap_str_format(value)
        if formatter is None:
            return None
        spec = value.__self__

        def bounded(*args: Any, **kwargs: Any) -> str:
            _charge_format(spec, spec.count("{"), (*args, *kwargs.values()))
            return formatter(*args, **kwargs)

        return bounded


def _charge_format(spec: str, fields: int, values: object) -> None:
    if _WIDE_FORMAT.search(spec):
        raise _RunawayError
    _charge(len(spec) + _weigh(values) * (1 + fields))


def _charge_operator(operator: str, left: Any, right: Any) -> None:
    _charge(_CALL_UNITS)
    if operator == "%" and isinstance(left, (str, bytes)):
        _charge_format(str(left), str(left).count("%"), right)
    elif operator in "+*":
        for one, other in ((left, right), (right, left)):
            if isinstance(one, Sized):
                _charge(len(one) * (abs(other) if operator == "*" and isinstance(other, int) else 1))
    if isinstance(left, int) and isinstance(right, int):
        bits = max(left.bit_length(), 1)
        _check_int(left)
        if operator == "**" and right > 0 and bits * right > MAX_INT_BITS:
            raise _RunawayError
        if operator == "**" and right.bit_length() > 64:
            raise _RunawayError


def _charge_method(owner: Any, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    if name in _REFUSED_METHODS:
        raise jinja2.exceptions.SecurityError(f"the method {name!r} is not offered to chat templates")
    _weigh_top(owner)
    if name in ("center", "ljust", "rjust", "zfill") and args and isinstance(args[0], int):
        _charge(max(args[0], 0))
    elif name == "replace" and len(args) >= 2:
        _charge_replace(owner, args[0], args[1])
    elif name == "join" and args:
        items = _listed(args[0])
        _charge(_weigh(items) + len(items) * len(owner))
        return (items, *args[1:])
    return args


def _charge_replace(text: Any, old: Any, new: Any) -> None:
    text, old, new = str(text), str(old), str(new)
    _charge(2 * len(text) + text.count(old) * len(new))


def _listed(value: Any) -> Any:
    """Turn an iterator into a list, so that its length is known; leave everything else alone."""
    return list(_counted(value)) if isinstance(value, Iterator) else value


def _charge_filter(name: str, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    if name in _SHALLOW:
        _weigh_top(value)
        return
    size = _weigh(value)
    given = (*args, *kwargs.values())
    numbers = [abs(item) for item in given if isinstance(item, int)]
    width = max([*numbers, *(len(item) for item in given if isinstance(item, str))], default=0)
    items = len(value) if isinstance(value, Sized) else 1
    if name == "replace" and len(given) >= 2:
        _charge_replace(value, given[0], given[1])
    elif name == "format" and isinstance(value, str):
        _charge_format(value, value.count("%"), given)
    elif name == "round" and max(numbers, default=0) > 400:
        raise _RunawayError
    elif name == "indent":
        _charge((str(value).count("\n") + 1) * (width + 4))
    elif name == "tojson":
        _charge(size * MAX_NESTING * width)
    elif name == "sum":
        _charge(size * items)
    elif name in ("join", "batch", "slice"):
        _weigh(given)
        _charge(items * max((_weigh(item) for item in given if not isinstance(item, int)), default=0))
        _charge(max(numbers, default=0))
    else:
        _charge(width)


def _bounded_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap one of jinja's filters so that it draws on the budget."""
    wants = getattr(getattr(function, "jinja_pass_arg", None), "name", "")

    # Being given the context also keeps jinja from evaluating the filter at compile time.
    @jinja2.pass_context
    @functools.wraps(function, updated=())
    def bounded(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        value = _listed(value)
        _charge(_CALL_UNITS)
        _charge_filter(name, value, args, kwargs)
        first = {
            "context": context,
            "eval_context": context.eval_ctx,
            "environment": context.environment,
        }.get(wants)
        result = function(first, value, *args, **kwargs) if wants else function(value, *args, **kwargs)
        _weigh_top(result)
        return result

    return bounded


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja's own filter escapes <, > and & for HTML.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: object) -> None:
    raise _RefusedError(str(message)[:1_000])


def _strftime_now(date_format: str) -> str:
    if _WIDE_DATE.search(date_format):
        raise _RunawayError
    return datetime.now().strftime(date_format)


@functools.cache
def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,
        finalize=_weighed,
        extensions=[jinja2.ext.loopcontrols, _GenerationBlocks],
    )
    filters = {**environment.filters, "tojson": _tojson}
    for name in _LEFT_OUT:
        del filters[name]
    environment.filters.clear()
    environment.filters.update({name: _bounded_filter(name, function) for name, function in filters.items()})
    environment.filters.update(
        nlpkit_weigh=_weighed,
        nlpkit_charge=_charged,
        nlpkit_iterate=_iterated,
        nlpkit_shallow=_shallow,
    )
    del environment.globals["lipsum"]
    environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
    return environment


@jinja2.pass_context
def _shallow(_: Context, value: Any) -> Any:
    _weigh_top(value)
    return value


class SandboxedTemplate:
    """One compiled template.

    Args:
        source: Untrusted jinja source.

    Raises:
        ModelFileError: It is too long, is no valid jinja, or asks for a filter that is not offered.
    """

    def __init__(self, source: str) -> None:
        if len(source) > MAX_SOURCE_CHARS:
            raise ModelFileError(
                f"The chat template has {len(source):,} characters; at most {MAX_SOURCE_CHARS:,} may be. "
                "The model file is damaged or hostile."
            )
        self._source_chars = len(source)
        try:
            self._template = _environment().from_string(source)
        except Exception as error:  # the parser and Python's compiler raise many kinds on hostile input
            raise ModelFileError(f"The model's chat template cannot be compiled: {_told(error)}") from error

    def render(self, variables: Mapping[str, Any]) -> str:
        """Render with these variables, which must be plain JSON values.

        Raises:
            InputError: The template itself refuses the conversation.
            ModelFileError: The template fails or exceeds its budget.
        """
        messages = variables.get("messages", ())
        chars = sum(len(value) for message in messages for value in message.values())
        budget = BASE_BUDGET + UNITS_PER_INPUT_CHAR * chars + 8 * self._source_chars * len(messages)
        token = _current.set(_Budget(budget))
        try:
            return self._template.render(variables)
        except _RefusedError as error:
            raise InputError(f"The model's chat template refuses this conversation: {error}") from error
        except _RunawayError as error:
            raise ModelFileError(
                "The model's chat template runs away: it loops, or builds text, far beyond what a conversation "
                "of this size needs. The model file is damaged or hostile; use another one."
            ) from error
        except Exception as error:
            raise ModelFileError(f"The model's chat template fails on this conversation: {_told(error)}") from error
        finally:
            _current.reset(token)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:500] or 'no details'}."
