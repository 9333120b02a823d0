"""Options of `nlpkit translate` for people who translate documents for a living."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

_TOOLS = "Translators' tools, for documents"


@dataclass(frozen=True, kw_only=True)
class ToolOptions:
    """What goes into a translation besides the model, and what comes out besides the documents."""

    memory: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Take sentences from this translation memory.", rich_help_panel=_TOOLS),
    ] = None
    memory_like: Annotated[
        float | None,
        typer.Option(
            min=0.5,
            max=1.0,
            metavar="MIN",
            help="Take also sentences that are as alike as this, such as 0.9; they are marked to be looked at.",
            rich_help_panel=_TOOLS,
        ),
    ] = None
    keep_terms: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Terms that stay as they are, one a line.", rich_help_panel=_TOOLS),
    ] = None
    bilingual: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Write source and translation side by side: .html or .tsv.", rich_help_panel=_TOOLS
        ),
    ] = None
    review: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Write all sentences as a table to edit, the least sure first.", rich_help_panel=_TOOLS
        ),
    ] = None
    reviewed: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Take sentences from an edited review file.", rich_help_panel=_TOOLS),
    ] = None

    @property
    def given(self) -> list[str]:
        """The options that the user gave."""
        return [f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value is not None]
