"""The command that mixes rows to train translation on."""

from __future__ import annotations

from typing import Annotated

import typer

from nlpkit.apps.cli.output import Writer


def mix(
    plan: Annotated[str, typer.Argument(metavar="PLAN.toml", help="What to mix: see docs/training.md.")],
    data: Annotated[str, typer.Option(metavar="PATH", help="Folder of the parallel files.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="PATH", help="File to write: .jsonl or .jsonl.gz.")],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes on stderr.")] = False,
) -> int:
    """Mix parallel files into rows to train translation on.

    They are thinned, filtered, decontaminated and made noisy, as a plan says.
    """
    from pathlib import Path

    from nlpkit.apps.cli.output import note
    from nlpkit.apps.training.mixing import describe, load_plan
    from nlpkit.apps.training.mixing import mix as mix_rows

    report = mix_rows(load_plan(plan), Path(data), Path(output))
    note(describe(report), quiet=quiet)
    with Writer(None) as writer:
        writer.write(output)
    return 0
