"""What a wrong command line is answered with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from nlpkit.apps.cli.usage.foreign import AS_ARGUMENT, FOREIGN_COMMANDS, FOREIGN_OPTIONS

_KINDS = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "a text"}
_VALIDATOR = re.compile(r"Input should be (?:a |an )?(?:valid )?(\w+)(?:, unable to parse [^(]*?)?(?= \(|\.|$)")


def usage_message(error: Any, arguments: Sequence[str]) -> str:
    """Say what is wrong with a command line, as the user wrote it, and what to type next.

    Args:
        error: The parser's.
        arguments: All of the command line.

    Returns:
        A sentence or two.
    """
    message = str(error.format_message()).strip()
    context = getattr(error, "ctx", None)
    meant = None
    if context is not None:
        meant = one_dash(context, arguments) or _own_option(error, context) or _own_command(error, context)
    if meant is not None:
        return meant
    message = plain(message)
    value = _value_got(error, arguments)
    if value is not None and repr(value) not in message:
        message = f"{message.rstrip('.')} (got {value!r})"
    return message if message.endswith((".", "?", "!")) else message + "."


def plain(message: str) -> str:
    """Say in words what a library says of a value that does not fit."""
    message = message.replace("Value error, ", "")
    return _VALIDATOR.sub(lambda found: f"{_KINDS.get(found[1], found[1])} is needed", message)


def _options(context: Any) -> set[str]:
    return {name for parameter in context.command.params for name in parameter.opts}


def one_dash(context: Any, arguments: Sequence[str]) -> str | None:
    """Find a long name behind one dash, which the parser reads as a short one and its value.

    Args:
        context: The command's.
        arguments: Of the command.

    Returns:
        What to say of it; None where there is none.
    """
    known = _options(context)
    flags = {
        name
        for one in context.command.params
        if getattr(one, "is_flag", False) or getattr(one, "count", False)
        for name in one.opts
    }
    before = ""
    for argument in arguments:
        if argument == "--":
            break
        name = argument.partition("=")[0]
        is_value = before in known - flags
        if not is_value and re.fullmatch(r"-[a-z][a-z-]+", name) and f"-{name}" in known:
            return f"No such option: {name}. Did you mean -{name}?"
        before = argument
    return None


def _own_option(error: Any, context: Any) -> str | None:
    """Name the option that does what an unknown one does elsewhere; None where there is no such option."""
    if type(error).__name__ != "NoSuchOption":
        return None
    wanted, known = str(error.option_name), _options(context)
    own = next((name for name in FOREIGN_OPTIONS.get(wanted, ()) if name in known), None)
    if own is None and wanted.lower().replace("_", "-") in known:
        own = wanted.lower().replace("_", "-")
    if own is not None:
        return f"No such option: {wanted}. Did you mean {own}?"
    argument = next((one for one in context.command.params if one.param_type_name == "argument"), None)
    if argument is None:
        return None
    name = str(argument.metavar or argument.name).strip("[]").lower()
    if wanted in AS_ARGUMENT:
        return f'No such option: {wanted}. The {name} stands by itself, in quotes: {context.command_path} "...".'
    if re.match(r"-[^A-Za-z-]", wanted):
        return (
            f"No such option: {wanted}. What begins with a dash and is no option stands behind two: "
            f'{context.command_path} -- "-...".'
        )
    return None


def _own_command(error: Any, context: Any) -> str | None:
    """Name the command that is called otherwise elsewhere."""
    found = re.match(r"No such command '([^']*)'\.", str(error.format_message()))
    if found is None or "Did you mean" in error.format_message():
        return None
    own = FOREIGN_COMMANDS.get(found[1].lower())
    group = context.command_path.removeprefix("nlpkit").strip()
    if own is None or (group and not own.startswith(f"{group} ")):
        return None
    return f"No such command {found[1]!r}. Did you mean 'nlpkit {own}'?"


def _value_got(error: Exception, arguments: Sequence[str]) -> str | None:
    """Return what the user gave to the option that an error is about: the parser's messages leave it out."""
    given = given_options(getattr(getattr(error, "param", None), "opts", ()), arguments)
    return given[0][1] if given else None


def given_options(names: Sequence[str], arguments: Sequence[str]) -> list[tuple[str, str | None]]:
    """Return each time that an option was given.

    Args:
        names: Those that it has.
        arguments: All of the command line.

    Returns:
        Its name as it was written, and its value.
    """
    found: list[tuple[str, str | None]] = []
    for position, argument in enumerate(arguments):
        if argument == "--":
            break
        name, equals, value = argument.partition("=")
        if name in names and name.startswith("-"):
            found.append((name, value if equals else next(iter(arguments[position + 1 : position + 2]), None)))
        elif argument[:2] in names and len(argument) > 2 and argument[1] != "-":
            found.append((argument[:2], argument[2:]))
    return found
