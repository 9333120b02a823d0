"""The `nlpkit` command: parse, call, print. Anything heavy is imported inside the commands.

This module itself imports next to nothing, so that an interrupt finds a handler from the first moments on.
"""

import contextlib
import functools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

if TYPE_CHECKING:
    import typer

_OTHER_WORDS = {"help": "--help", "version": "--version", "-v": "--version", "-V": "--version"}
"""First words of other programs, and what they are here."""


@functools.cache
def build_app() -> "typer.Typer":
    """Put the commands together."""
    import typer

    from nlpkit.apps.cli import tasks
    from nlpkit.apps.cli.bench import bench
    from nlpkit.apps.cli.doctor import doctor
    from nlpkit.apps.cli.mix import mix
    from nlpkit.apps.cli.models import models_app
    from nlpkit.apps.cli.options import command
    from nlpkit.apps.cli.train_options import HowOptions, LoraOptions, NewModelOptions, TrainRunOptions, WhatOptions
    from nlpkit.apps.serve.cli.chat import chat
    from nlpkit.apps.serve.cli.serve import serve
    from nlpkit.apps.serve.cli.web import web
    from nlpkit.eval.cli.commands import app as eval_app

    app = typer.Typer(
        name="nlpkit",
        help="Language tasks on one shared GPT core, offline: translate, summarize, answer, write.",
        pretty_exceptions_enable=False,
        invoke_without_command=True,
        context_settings={"help_option_names": ["--help", "-h"]},
    )

    def show_version(value: bool) -> None:
        if value:
            from importlib.metadata import version

            typer.echo(f"nlpkit {version('nlpkit')}")
            raise typer.Exit

    @app.callback()
    def root(
        context: typer.Context,
        version: Annotated[
            bool, typer.Option("--version", help="Print the version.", callback=show_version, is_eager=True)
        ] = False,
        debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    ) -> None:
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())
            raise typer.Exit(2)

    function: Callable[..., int]
    for function in (tasks.translate, tasks.summarize, tasks.qa, tasks.write, tasks.generate, tasks.run):
        command(app)(function)

    @command(app)
    def train(what: WhatOptions, how: HowOptions, lora: LoraOptions, new: NewModelOptions, run: TrainRunOptions) -> int:
        """Train a model: fine-tune with LoRA or in full, or from scratch."""
        from nlpkit.apps.cli.train import recipe_from_options, run_train
        from nlpkit.eval.statistics.measure import score_pairs

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
        from nlpkit.apps.cli.tune import run_tune
        from nlpkit.eval.statistics.measure import score_pairs

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

    for function in (web, chat, serve, mix, bench, doctor):
        command(app)(function)
    app.add_typer(models_app, name="models")
    app.add_typer(eval_app, name="eval")
    return app


@functools.cache
def build_command(*, plain: bool) -> Any:
    """Return the whole command line, ready to parse.

    Args:
        plain: Whether its help is plain text, without boxes and escape sequences, which cut nothing off.
    """
    import typer

    command = typer.main.get_command(build_app())
    if plain:
        _make_plain(command)
    return command


def _make_plain(command: Any) -> None:
    command.rich_markup_mode = None
    for child in getattr(command, "commands", {}).values():
        _make_plain(child)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; by default those of the process.

    Returns:
        The exit code: 0 done, 2 bad usage or input, 3 some inputs failed, 130 interrupted, 1 a bug.
    """
    from nlpkit.apps.cli.process import run_process, wants_plain_help

    arguments = list(sys.argv[1:] if argv is None else argv)
    word = _OTHER_WORDS.get(arguments[0]) if arguments else None
    if word is not None:
        arguments = [*arguments[1:], word]
    return run_process(build_command(plain=wants_plain_help()), arguments)


def run() -> NoReturn:
    """Run the command line of this process, and end it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end_at_once)
    code = main()
    from nlpkit.apps.cli.process import leave

    leave(code)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """End on Ctrl-C while nothing is open yet, or nothing any more: an exception would break into some import."""
    with contextlib.suppress(OSError):
        os.write(2, b"\nnlpkit: interrupted\n" if os.isatty(2) else b"nlpkit: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    run()
