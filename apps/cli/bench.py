"""The command that measures speed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from nlpkit.apps.bench.plan import BenchLine
from nlpkit.apps.cli.options import SinkOptions
from nlpkit.apps.cli.output import Writer
from nlpkit.apps.show.tables import render_table


def bench(
    sink: SinkOptions,
    model: Annotated[str, typer.Option("--model", "-m", help="Name, file, folder or hub id.")] = "default",
    peers: Annotated[bool, typer.Option("--peers", help="Measure transformers on the same weights too.")] = False,
    dtype: Annotated[
        list[str] | None, typer.Option(help="Number format: auto, fp32, bf16, int8 or int4. Repeatable.")
    ] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Rows to decode at once. Repeatable.")] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Length of the prompt that is read.")] = 512,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to write for each row.")] = 64,
    runs: Annotated[int, typer.Option(min=1, help="Repetitions, of which the median counts.")] = 3,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
) -> int:
    """Measure speed and memory, with --peers beside others."""
    from dataclasses import asdict

    from nlpkit.apps.bench.measure import build_plans, measure
    from nlpkit.apps.cli.progress import ProgressBar, show_download
    from nlpkit.core.fetch.resolve import resolve_model

    with Writer(sink.output, as_json=sink.as_json) as writer:
        with show_download(model, quiet=sink.quiet) as bar:
            path = resolve_model(model, progress=bar)
        plans = build_plans(
            path,
            peers=peers,
            dtypes=dtype or (),
            batches=batch or (),
            prompt_tokens=prompt_tokens,
            new_tokens=new_tokens,
            runs=runs,
            threads=threads,
        )
        lines = []
        with ProgressBar("measuring", enabled=not sink.quiet) as bar:
            for done, plan in enumerate(plans):
                bar(done, len(plans))
                for line in measure(plan):
                    lines.append(line)
                    if sink.as_json:
                        writer.write(asdict(line))
        if not sink.as_json:
            writer.write(render_bench(lines))
    return 0


def render_bench(lines: Sequence[BenchLine]) -> str:
    """Lay measurements out as a table, with each one's decode speed relative to the first engine's at that batch."""
    base: dict[int, float] = {}
    for line in lines:
        base.setdefault(line.batch, line.decode_tokens_per_s)
    head = ("engine", "dtype", "batch", "prefill t/s", "decode t/s", "ratio", "load s", "first token s", "peak MB")
    rows = [
        (
            line.engine,
            line.dtype,
            str(line.batch),
            f"{line.prefill_tokens_per_s:.0f}",
            f"{line.decode_tokens_per_s:.1f}",
            f"{base[line.batch] / line.decode_tokens_per_s:.2f}x",
            f"{line.load_s:.2f}",
            f"{line.first_token_s:.2f}",
            f"{line.peak_memory_bytes / 1e6:.0f}",
        )
        for line in lines
    ]
    note = f"ratio: how many times faster {lines[0].engine} {lines[0].dtype} decodes" if lines else ""
    return f"{render_table(head, rows, left=(0, 1))}\n{note}"
