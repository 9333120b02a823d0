"""The `nlpkit` command: parse, call, print. Anything heavy is imported inside the commands.

This module itself imports next to nothing, so that an interrupt finds a handler from the first moments on.
"""

import contextlib
import functools
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Annotated, Any, NoReturn

_OTHER_WORDS = {"help": "--help", "version": "--version", "-v": "--version", "-V": "--version"}
"""First words of other programs, and what they are here."""


def _train() -> Callable[..., int]:
    from nlpkit.apps.cli.train_options import HowOptions, LoraOptions, NewModelOptions, TrainRunOptions, WhatOptions

    def train(what: WhatOptions, how: HowOptions, lora: LoraOptions, new: NewModelOptions, run: TrainRunOptions) -> int:
        """Train a model: fine-tune with LoRA or in full, or from scratch."""
        from nlpkit.apps.cli.train import recipe_from_options, run_train
        from nlpkit.eval.statistics.measure import score_pairs

        return run_train(recipe_from_options(what, how, lora, new, run), run, scorer=score_pairs)

    return train


def _tune() -> Callable[..., int]:
    import typer

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

    return tune


def _learn() -> Callable[..., int]:
    from nlpkit.apps.cli.translators.learn import build_learn

    def compare(name: str, before: Sequence[str], after: Sequence[str], references: Sequence[tuple[str, ...]]) -> Any:
        from nlpkit.eval.statistics.measure import compare_pairs

        return compare_pairs(name, before, after, references)

    return build_learn(compare)


_COMMANDS: dict[str, tuple[str, str | Callable[[], Callable[..., int]]]] = {
    "translate": ("Translate text and documents.", "apps.cli.tasks:translate"),
    "summarize": ("Summarize text.", "apps.cli.tasks:summarize"),
    "qa": ("Answer a question about a text, or about all texts of a folder.", "apps.cli.tasks:qa"),
    "write": ("Write a story, a poem and the like.", "apps.cli.tasks:write"),
    "classify": ("Tell which of some labels fits a text.", "apps.cli.tasks:classify"),
    "sentiment": ("Tell whether a text speaks well or badly of its matter.", "apps.cli.tasks:sentiment"),
    "generate": ("Continue a prompt: the raw model, with every decoding option.", "apps.cli.tasks:generate"),
    "run": ("Run a task of your own, from a Python file.", "apps.cli.tasks:run"),
    "train": ("Train a model: fine-tune with LoRA or in full, or from scratch.", _train),
    "tune": ("Search for the best hyperparameters of a training.", _tune),
    "chat": ("Talk to a model; Ctrl-C stops an answer, Ctrl-D leaves.", "apps.serve.cli.chat:chat"),
    "web": ("Open a page for all tasks in the browser.", "apps.serve.cli.web:web"),
    "serve": ("Serve models and tasks over HTTP, with a page.", "apps.serve.cli.serve:serve"),
    "learn": ("Learn from a person's corrections of translations.", _learn),
    "memory": ("Translation memories: take in, give out, count.", "apps.cli.translators.memory:memory_app"),
    "mix": ("Mix parallel files into rows to train translation on.", "apps.cli.mix:mix"),
    "bench": ("Measure speed and memory, with --peers beside others.", "apps.cli.bench:bench"),
    "doctor": ("Print what matters for help, and what to do about problems.", "apps.cli.doctor:doctor"),
    "models": ("List, fetch, inspect and convert models.", "apps.cli.models:models_app"),
    "eval": ("Evaluate: run tasks over data, score, compare, report.", "eval.cli.commands:app"),
}
"""The commands in the order of the help: what each does, and where it is, or what makes it.

A command is put together when it is called: the list of all costs next to nothing, and no command pays for another.
"""


@functools.cache
def build_command(*, plain: bool) -> Any:
    """Return the whole command line, ready to parse.

    Args:
        plain: Whether its help is plain text, without boxes and escape sequences, which cut nothing off.
    """
    import typer

    from nlpkit.apps.cli.process import LateCommand

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

    whole: Any = typer.main.get_command(app)
    for name, (summary, place) in _COMMANDS.items():
        load = functools.partial(_load_command, name, place, plain=plain)
        whole.commands[name] = LateCommand(name, summary=summary, load=load)
    if plain:
        _make_plain(whole)
    return whole


def _load_command(name: str, place: str | Callable[[], Callable[..., int]], *, plain: bool) -> Any:
    import typer

    from nlpkit.apps.cli.options import command

    if isinstance(place, str):
        module, _, attribute = place.partition(":")
        found = getattr(importlib.import_module(f"nlpkit.{module}"), attribute)
    else:
        found = place()
    app = found
    if not isinstance(found, typer.Typer):
        app = typer.Typer(add_completion=False)
        command(app, name)(found)
    loaded = typer.main.get_command(app)
    if plain:
        _make_plain(loaded)
    return loaded


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
