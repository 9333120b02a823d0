"""The command that learns from what a person corrected."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nlpkit.apps.cli.options import ModelOptions, SinkOptions
from nlpkit.apps.cli.output import Writer, note
from nlpkit.core.errors import InputError

if TYPE_CHECKING:
    from nlpkit.apps.documents.tools.corrections import Correction
    from nlpkit.apps.training.corrections import Compare, Lesson

_ADAPTER = "An adapter of your own"


def build_learn(compare: Compare) -> Callable[..., int]:
    """Return the command.

    Args:
        compare: Compares translations before and after: metrics are not known here.
    """

    def learn(
        sink: SinkOptions,
        model: ModelOptions,
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
        new_adapter: Annotated[
            str | None,
            typer.Option(
                metavar="DIR",
                help="Train an adapter, from 200 corrections on, and keep it here if it is better.",
                rich_help_panel=_ADAPTER,
            ),
        ] = None,
        general: Annotated[
            str | None,
            typer.Option(
                metavar="PATH",
                help="Rows of other texts, which must not get worse, instead of the shipped everyday sentences.",
                rich_help_panel=_ADAPTER,
            ),
        ] = None,
    ) -> int:
        """Learn from a person's corrections of translations.

        They go into a memory, and what was often corrected alike is proposed for a glossary. From 200 on, --new-adapter
        trains an adapter with them.
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
        lesson = None
        if new_adapter is not None:
            parted = _parted(found)
            if isinstance(parted, str):
                note(f"no adapter is made. {parted}")
            else:
                from nlpkit.apps.cli.translators.learn_adapter import AdapterLesson

                lesson = AdapterLesson(
                    output=Path(new_adapter),
                    lesson=parted,
                    source_lang=one,
                    target_lang=two,
                    spec=model.spec(),
                    general=general,
                    compare=compare,
                    quiet=sink.quiet,
                )
        with Memory(memory, create=True) as store:
            added = store.add(Entry(row.source, row.right, one, two, name) for row in found)
        candidates = find_candidates(found)
        if terms is not None:
            text = "".join(f"{row.source}\t{row.right}\n" for row in candidates)
            with unwritable(f"{display_name(terms)} cannot be written"), atomic_write(Path(terms)) as file:
                file.write(f"# Proposed from {len(found)} corrections: go through them.\n{text}".encode())
            note(f"{display_name(terms)}: {len(candidates)} terms to go through", quiet=sink.quiet)
        record: dict[str, Any] = {
            "corrections": len(found),
            "new": added.new,
            "replaced": added.replaced,
            "known": added.known,
            "candidates": [vars(candidate) for candidate in candidates],
        }
        counts = f"{added.new} new in the memory, {added.replaced} replaced, {added.known} known"
        lines = [f"{len(found)} corrections: {counts}"]
        lines += [f"{row.source}\t{row.right}\t(instead of {row.wrong}, {row.count} times)" for row in candidates]
        code = 0
        if lesson is not None:
            from nlpkit.apps.cli.translators.learn_adapter import render_lesson

            made = lesson.run()
            record["adapter"] = made
            if made is None:
                code = 130
            else:
                lines += render_lesson(made, use=lesson.use)
        with Writer(sink.output, as_json=sink.as_json) as writer:
            writer.write(record if sink.as_json else "\n".join(lines))
        return code

    return learn


def _parted(found: list[Correction]) -> Lesson | str:
    """Return what is learned and what is held out, or why there is nothing to train on."""
    from nlpkit.apps.training.corrections import Pair, part_corrections

    try:
        return part_corrections([Pair(row.source, row.right) for row in found])
    except InputError as error:
        return str(error)
