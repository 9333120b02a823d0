"""Command-line options for the form that a completion must have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from nlpkit.apps.documents.files import check_text, decode_text, display_name, read_bytes
from nlpkit.core.decode.constraint import Constraint
from nlpkit.core.errors import ConfigError

_PANEL = "Form of the text"
_MAX_BYTES = 8 * 2**20


@dataclass(frozen=True, kw_only=True)
class ConstraintOptions:
    """What the whole completion must look like; one kind at most."""

    choice: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Write one of these texts. Repeatable.", rich_help_panel=_PANEL),
    ] = None
    regex: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="Write what this regular expression matches.", rich_help_panel=_PANEL),
    ] = None
    json_schema: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Write JSON that is valid under the schema there.", rich_help_panel=_PANEL),
    ] = None
    grammar: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Write what the Lark grammar there derives.", rich_help_panel=_PANEL),
    ] = None

    def constraint(self) -> Constraint | None:
        """Return the constraint that the options ask for, or None.

        Raises:
            ConfigError: Several kinds are asked for, or one is malformed.
            InputError: A file cannot be read, or an argument is no valid text.
        """
        given = {
            "--choice": self.choice,
            "--regex": self.regex,
            "--json-schema": self.json_schema,
            "--grammar": self.grammar,
        }
        named = [flag for flag, value in given.items() if value]
        if len(named) > 1:
            raise ConfigError(f"{' and '.join(named)} contradict each other: leave all but one out.")
        if self.choice:
            return Constraint.choice(*(check_text(text, where="--choice") for text in self.choice))
        if self.regex is not None:
            return Constraint.regex(check_text(self.regex, where="--regex"))
        if self.json_schema is not None:
            return Constraint.json_schema(_read(self.json_schema))
        if self.grammar is not None:
            return Constraint.grammar(_read(self.grammar))
        return None


def _read(path: str) -> str:
    return decode_text(read_bytes(path, max_bytes=_MAX_BYTES), where=display_name(path))
