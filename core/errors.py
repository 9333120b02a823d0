"""Errors that nlpkit raises on purpose.

Each message says what happened, which value was got, and what to do. The command line prints the message as one
paragraph and exits with `exit_code`; anything that is not an `NlpkitError` is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NlpkitError(Exception):
    """Base of every error that a user can cause and mend."""

    exit_code = 2


class ConfigError(NlpkitError):
    """An option or configuration value is wrong, or two options contradict each other."""


class InputError(NlpkitError):
    """A text, document or data row cannot be used."""


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
    close = difflib.get_close_matches(name.lower(), [option.lower() for option in known], n=3, cutoff=0.6)
    by_lower = {option.lower(): option for option in known}
    if close:
        return "Did you mean " + " or ".join(repr(by_lower[match]) for match in close) + "?"
    return f"Known: {', '.join(known)}." if known else ""
