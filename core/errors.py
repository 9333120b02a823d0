"""Errors that nlpkit raises on purpose.

Each message says what happened, which value was got, and what to do. The command line prints the message as one
paragraph and exits with `exit_code`; anything that is not an `NlpkitError` is a bug.
"""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable

MAX_MESSAGE_CHARS = 1_800
"""Longest message: values come from files that may hold anything."""
_USER = re.compile(r"(?<=://)[^/\s]*@")
_QUERY = re.compile(r"(://[^\s?#\"'<>]*)\?[^\s#\"'<>)]+")


def without_secrets(text: str) -> str:
    """Return a text with user, password and query (which carries tokens) taken out of every address in it."""
    if "://" not in text:
        return text
    return _QUERY.sub(r"\1?...", _USER.sub("", text))


def shown(value: object, limit: int = 200) -> str:
    """Return a value as an error shows it: its `repr`, without the middle where that is longer than `limit`."""
    try:
        # A piece of a text is enough; what a container holds is seldom long.
        text = repr(value[: limit + 1]) if isinstance(value, (str, bytes)) else repr(value)
    except (ValueError, RecursionError):
        # A number of more digits than Python writes; nesting.
        return f"a {type(value).__name__} that is too large to show"
    return shortened(text, limit)


def shortened(text: str, limit: int = 200) -> str:
    """Return a text without its middle where it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    tail = limit // 4
    return f"{text[: limit - tail - 5]} ... {text[-tail:]}"


def why_unwritten(error: BaseException) -> str:
    """Return in words why something could not be written; the library of safetensors tells of a full disk in a text."""
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in str(error) or "No space left" in str(error):
        return "the disk is full"
    return str(getattr(error, "strerror", None) or error)


class NlpkitError(Exception):
    """Base of every error that a user can cause and mend.

    The message is kept short, and free of passwords in addresses.
    """

    exit_code = 2

    def __init__(self, *args: object) -> None:
        super().__init__(
            *(shortened(without_secrets(arg), MAX_MESSAGE_CHARS) if isinstance(arg, str) else arg for arg in args)
        )


class ConfigError(NlpkitError):
    """An option or configuration value is wrong, or two options contradict each other."""


class InputError(NlpkitError):
    """A text, document or data row cannot be used."""


class ColumnError(InputError):
    """A row lacks a column.

    Attributes:
        column: The column that is needed.
    """

    def __init__(self, message: str, column: str) -> None:
        super().__init__(message)
        self.column = column


class OutputError(NlpkitError):
    """A result cannot be written."""


class ContextOverflowError(InputError):
    """A prompt, or a prompt plus its token budget, does not fit the model's context."""


class ModelFileError(NlpkitError):
    """A model file is missing, damaged, unsafe or of an unknown kind."""


class TokenizerError(NlpkitError):
    """A tokenizer file cannot be used, or does not fit the model."""


class FetchError(NlpkitError):
    """A model could not be downloaded."""


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Return a hint naming the closest options, or all of them when none is close.

    Args:
        name: What the user wrote.
        options: The names that would have been accepted.

    Returns:
        A sentence such as ``Did you mean 'german'?`` or ``Known: de, en, fr.``; empty when there are no options.
    """
    known = sorted(set(options))
    # What no person typed is close to nothing, and comparing it would take long.
    if not isinstance(name, str) or len(name) > 100:
        name = ""
    close = difflib.get_close_matches(name.lower(), [option.lower() for option in known], n=3, cutoff=0.6)
    by_lower = {option.lower(): option for option in known}
    if close:
        return "Did you mean " + " or ".join(repr(by_lower[match]) for match in close) + "?"
    return f"Known: {', '.join(known)}." if known else ""
