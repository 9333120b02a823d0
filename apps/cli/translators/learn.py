"""The command that learns from what a person corrected."""

from __future__ import annotations

from typing import Annotated

import typer

from nlpkit.apps.cli.options import SinkOptions
from nlpkit.apps.cli.output import Writer, note
from nlpkit.core.errors import InputError


def learn(
    sink: SinkOptions,
    corrections: Annotated[
        str,
        typer.Argument(metavar="CORRECTIONS", help="TSV of source, wrong, right; or an edited review file."),
    ],
    memory: Annotated[str, typer.Option(metavar="PATH", help="The memory that takes the corrections in.")],
    from_: Annotated[str, typer.Option("--from", metavar="LANG", help="Language of the sources.")],
    to: Annotated[str, typer.Option("--to", "-t", metavar="LANG", help="Language of the translations.")],
    terms: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Write what looks like terms here, as a glossary to go through."),
    ] = None,
) -> int:
    """Learn from a person's corrections of translations.

    They go into a memory, and what was often corrected alike is proposed for a glossary.
    """
    from pathlib import Path

    from nlpkit.apps.documents.files import display_name
    from nlpkit.apps.documents.memory.entries import Entry
    from nlpkit.apps.documents.memory.store import Memory
    from nlpkit.apps.documents.tools.corrections import find_candidates, read_corrections
    from nlpkit.apps.text.languages import parse_language
    from nlpkit.core.files.write import atomic_write, unwritable

    one, two = parse_language(from_), parse_language(to)
    found = read_corrections(corrections)
    name = display_name(corrections)
    if not found:
        raise InputError(f"Nothing is corrected in {name}: no translation differs from what stood there before.")
    with Memory(memory, create=True) as store:
        added = store.add(Entry(row.source, row.right, one, two, name) for row in found)
    candidates = find_candidates(found)
    with Writer(sink.output, as_json=sink.as_json) as writer:
        record = {
            "corrections": len(found),
            "new": added.new,
            "replaced": added.replaced,
            "known": added.known,
            "candidates": [vars(candidate) for candidate in candidates],
        }
        counts = f"{added.new} new in the memory, {added.replaced} replaced, {added.known} known"
        lines = [f"{len(found)} corrections: {counts}"]
        lines += [f"{row.source}\t{row.right}\t(instead of {row.wrong}, {row.count} times)" for row in candidates]
        writer.write(record if sink.as_json else "\n".join(lines))
    if terms is not None:
        text = "".join(f"{row.source}\t{row.right}\n" for row in candidates)
        with unwritable(f"{display_name(terms)} cannot be written"), atomic_write(Path(terms)) as file:
            file.write(f"# Proposed from {len(found)} corrections: go through them.\n{text}".encode())
        note(f"{display_name(terms)}: {len(candidates)} terms to go through", quiet=sink.quiet)
    return 0
