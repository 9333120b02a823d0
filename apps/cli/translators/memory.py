"""The commands about translation memories."""

from __future__ import annotations

from typing import Annotated

import typer

from nlpkit.apps.cli.options import SinkOptions, command
from nlpkit.apps.cli.output import Writer, note

memory_app = typer.Typer(
    help="Translation memories: take in, give out, count.", no_args_is_help=True, add_completion=False
)
MemoryPath = Annotated[str, typer.Argument(metavar="MEMORY", help="The memory's file.", show_default=False)]
From = Annotated[str | None, typer.Option("--from", metavar="LANG", help="Language to translate from.")]
To = Annotated[str | None, typer.Option("--to", "-t", metavar="LANG", help="Language to translate to.")]


@command(memory_app, "import")
def memory_import(
    sink: SinkOptions,
    memory: MemoryPath,
    files: Annotated[
        list[str], typer.Argument(metavar="FILE", help="TMX, TSV, CSV or review files.", show_default=False)
    ],
    from_: From = None,
    to: To = None,
) -> int:
    """Take sentences and their translations into a memory, which is made if it is not there."""
    from nlpkit.apps.documents.files import display_name
    from nlpkit.apps.documents.memory.exchange import read_entries
    from nlpkit.apps.documents.memory.store import Memory

    with Memory(memory, create=True) as store, Writer(sink.output, as_json=sink.as_json) as writer:
        for path in files:
            added = store.add(read_entries(path, source_lang=_code(from_), target_lang=_code(to)))
            name = display_name(path)
            record = {"file": name, "new": added.new, "replaced": added.replaced, "known": added.known}
            said = f"{name}: {added.new} new, {added.replaced} replaced, {added.known} known"
            writer.write(record if sink.as_json else said)
    return 0


@command(memory_app, "export")
def memory_export(sink: SinkOptions, memory: MemoryPath, from_: From = None, to: To = None) -> int:
    """Give out a memory as TMX, or as a table if -o says .tsv or .csv."""
    from importlib.metadata import version

    from nlpkit.apps.documents.memory.exchange import write_entries
    from nlpkit.apps.documents.memory.store import Memory
    from nlpkit.apps.documents.memory.tmx import write_tmx

    with Memory(memory) as store:
        entries = store.entries(_code(from_), _code(to))
        if sink.as_json:
            with Writer(sink.output, as_json=True) as writer:
                for entry in entries:
                    writer.write(vars(entry))
            return 0
        delimiter = {".tsv": "\t", ".csv": ","}.get((sink.output or "")[-4:].lower())
        if delimiter is None:
            pieces = write_tmx(entries, version=version("nlpkit"))
        else:
            pieces = write_entries(entries, delimiter=delimiter)
        with Writer(sink.output, as_json=False) as writer:
            for piece in pieces:
                writer.write_raw(piece)
    return 0


@command(memory_app, "stats")
def memory_stats(sink: SinkOptions, memory: MemoryPath) -> int:
    """Count the entries of a memory by languages."""
    from nlpkit.apps.documents.memory.store import Memory

    with Memory(memory) as store, Writer(sink.output, as_json=sink.as_json) as writer:
        counts = store.counts()
        for (one, two), count in counts.items():
            record = {"source_lang": one, "target_lang": two, "entries": count}
            writer.write(record if sink.as_json else f"{one} -> {two}\t{count}")
        if not counts:
            note("the memory is empty", quiet=sink.quiet)
    return 0


def _code(name: str | None) -> str | None:
    from nlpkit.apps.text.languages import parse_language

    return None if name is None else parse_language(name)
