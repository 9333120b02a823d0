"""Renders untrusted jinja templates within bounds.

jinja's own sandbox keeps a template from reaching Python's insides; it does not keep it from running for a
day or from building a string of a terabyte. Here every rendering has one budget, and everything that costs
time or memory draws on it:

* every pass through a loop, macro or block costs the size of its body (the calls are added to the parsed
template); * every printed or concatenated value costs its length; * every filter, method and operator costs
the length of what it reads and of what it makes; those that make much out
  of little (``replace``, ``center``, ``*``, ``%``, ``format`` ...) are charged from their arguments,
  beforehand;
* a comparison, and a key that is looked up, cost what is compared or hashed; of the methods of texts a list of
  known ones is offered;
* the text has at most a million characters beside four times the messages;
* whole numbers have at most 4,096 bits, ``range`` at most 100,000 items, values at most 64 levels.

So time and memory are bounded by the budget, whatever the template is, and a deadline bounds slow machines
too. Nothing is folded at compile time. The few filters that chat templates have no use for and that are hard
to bound are left out. Everything else agrees with what ``transformers`` gives to chat templates.
"""

from __future__ import annotations

import functools
import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sized
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.parser
import jinja2.sandbox
import jinja2.utils
from jinja2 import nodes
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.visitor import NodeTransformer

from nlpkit.core.chat.work_limit import (
    BASE_BUDGET,
    CALL_UNITS,
    CONTAINER_UNITS,
    ITEM_UNITS,
    UNITS_PER_INPUT_CHAR,
    RunawayError,
    WorkLimit,
    charge,
    charge_compare,
    charge_filter,
    charge_format,
    charge_method,
    charge_operator,
    counted,
    current,
    listed,
    weigh,
    weigh_top,
)
from nlpkit.core.errors import InputError, ModelFileError

MAX_SOURCE_CHARS = 2**19
MAX_TEXT_CHARS = 1_000_000
"""Longest text that a template makes of nothing."""
TEXT_CHARS_PER_INPUT_CHAR = 4
_LEFT_OUT = ("pprint", "random", "urlize", "wordwrap", "xmlattr", "filesizeformat")
_WIDE_DATE = re.compile(r"%[^a-zA-Z]*\d{3}")


class RefusedError(Exception):
    """A template called ``raise_exception``: the conversation does not suit it."""


@jinja2.pass_context
def _weighed(_: Context, value: Any) -> Any:
    weigh(value)
    return value


@jinja2.pass_context
def _charged(_: Context, units: int) -> None:
    charge(units)


@jinja2.pass_context
def _iterated(_: Context, iterable: Any) -> Any:
    """Charge for the items of a loop, at once where their number is known."""
    if isinstance(iterable, Sized):
        charge(ITEM_UNITS * len(iterable))
        return iterable
    return counted(iterable)


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

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        if len(node.ops) > 1:
            # In a chain each value is compared twice; all of them are weighed.
            node.expr = _filter(node.expr, "nlpkit_key")
            for operand in node.ops:
                operand.expr = _filter(operand.expr, "nlpkit_key")
            return node
        operand = node.ops[0]
        return nodes.Filter(node.expr, "nlpkit_compare", [nodes.Const(operand.op), operand.expr], [], None, None)

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.key, nodes.Const):
            node.key = _filter(node.key, "nlpkit_key")
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.arg, (nodes.Slice, nodes.Const)):
            node.arg = _filter(node.arg, "nlpkit_key")
        return _filter(node, "nlpkit_shallow") if isinstance(node.arg, nodes.Slice) else node


def _filter(value: Any, name: str) -> nodes.Filter:
    return nodes.Filter(value, name, [], [], None, None)


def _static_units(node: nodes.Node) -> int:
    """Return the size of a piece of a template, without the bodies that are charged for by themselves."""
    if isinstance(node, nodes.TemplateData):
        return 1 + len(node.data)
    if isinstance(node, nodes.Const) and isinstance(node.value, str):
        return 1 + len(node.value)
    own = CONTAINER_UNITS if isinstance(node, (nodes.List, nodes.Dict, nodes.Tuple)) else 1
    return own + sum(map(_static_units, node.iter_child_nodes()))


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
        charge_operator(operator, left, right)
        result = super().call_binop(context, operator, left, right)
        weigh_top(result)
        return result

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        charge(CALL_UNITS)
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, (str, bytes, int, float)):
            args = charge_method(owner, getattr(__obj, "__name__", ""), args)
        elif not isinstance(__obj, (Macro, LoopContext)):
            # What compares or hashes its arguments: ``loop.changed``, ``list.count``, ``dict`` ...
            cost = sum(weigh(listed(argument)) for argument in args if not isinstance(argument, Iterator))
            charge(cost * (len(owner) if isinstance(owner, (list, tuple)) else 1))
        for argument in (*args, *kwargs.values()):
            weigh_top(argument)
        result = super().call(__context, __obj, *args, **kwargs)
        weigh_top(result)
        return result

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        formatter = super().wrap_str_format(value)
        if formatter is None:
            return None
        spec = value.__self__

        def bounded(*args: Any, **kwargs: Any) -> str:
            charge_format(spec, (*args, *kwargs.values()), braces=True)
            return formatter(*args, **kwargs)

        return bounded


def _bounded_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap one of jinja's filters so that it draws on the budget."""
    wants = getattr(getattr(function, "jinja_pass_arg", None), "name", "")

    # Being given the context also keeps jinja from evaluating the filter at compile time.
    @jinja2.pass_context
    @functools.wraps(function, updated=())
    def bounded(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        value = listed(value)
        charge(CALL_UNITS)
        charge_filter(name, value, args, kwargs)
        first = {
            "context": context,
            "eval_context": context.eval_ctx,
            "environment": context.environment,
        }.get(wants)
        result = function(first, value, *args, **kwargs) if wants else function(value, *args, **kwargs)
        weigh_top(result)
        return result

    return bounded


_COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
    "in": lambda left, right: left in right,
    "notin": lambda left, right: left not in right,
}
_COMPARING_TESTS = (
    "eq",
    "equalto",
    "==",
    "ne",
    "!=",
    "lt",
    "lessthan",
    "<",
    "le",
    "<=",
    "gt",
    "greaterthan",
    ">",
    "ge",
)


@jinja2.pass_context
def _compared(_: Context, left: Any, name: str, right: Any) -> Any:
    right = listed(right)
    charge_compare(name, left, right)
    return _COMPARISONS[name](left, right)


def _bounded_test(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap one of jinja's tests that compare, so that it draws on the budget."""

    def bounded(left: Any, right: Any) -> Any:
        right = listed(right)
        charge_compare(name, left, right)
        return function(left, right)

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
    raise RefusedError(str(message)[:1_000])


def _strftime_now(date_format: str) -> str:
    if _WIDE_DATE.search(date_format):
        raise RunawayError
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
        nlpkit_compare=_compared,
        nlpkit_key=_keyed,
    )
    for name in (*_COMPARING_TESTS, ">=", "in"):
        function: Any = environment.tests[name]
        environment.tests[name] = _bounded_test(name, function)
    del environment.globals["lipsum"]
    environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
    return environment


@jinja2.pass_context
def _shallow(_: Context, value: Any) -> Any:
    weigh_top(value)
    return value


@jinja2.pass_context
def _keyed(_: Context, value: Any) -> Any:
    # Texts remember their hash.
    if not isinstance(value, (str, int)):
        weigh(value)
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
        token = current.set(WorkLimit(budget))
        try:
            text = self._template.render(variables)
            if len(text) > MAX_TEXT_CHARS + TEXT_CHARS_PER_INPUT_CHAR * chars:
                raise RunawayError
            return text
        except RefusedError as error:
            raise InputError(f"The model's chat template refuses this conversation: {error}") from error
        except RunawayError as error:
            raise ModelFileError(
                "The model's chat template runs away: it loops, or builds text, far beyond what a conversation "
                "of this size needs. The model file is damaged or hostile; use another one."
            ) from error
        except Exception as error:
            raise ModelFileError(f"The model's chat template fails on this conversation: {_told(error)}") from error
        finally:
            current.reset(token)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:500] or 'no details'}."
