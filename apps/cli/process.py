"""The edge between the command line and its process: exit codes, error paragraphs, signals, the last flush."""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import os
import shutil
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn, Protocol

import typer
from typer.core import TyperCommand

from nlpkit.apps.cli.output import discard_stdout, note, printable, use_utf8
from nlpkit.apps.cli.usage.messages import given_options, one_dash, usage_message
from nlpkit.apps.documents.files import display_name, is_file, looks_like_path
from nlpkit.core.errors import (
    MAX_MESSAGE_CHARS,
    ColumnError,
    InputError,
    NlpkitError,
    OutputError,
    shortened,
    shown,
    without_secrets,
)
from nlpkit.core.machine.processor import calm_openmp

# typer brings its own copy of click or uses the installed one, by version: this is the base of what it raises.
_ClickError = typer.BadParameter.__mro__[2]


INTERRUPTED = 130
"""Exit code after Ctrl-C."""

MIN_BOXED_COLUMNS = 80
"""Narrowest terminal whose help texts stand in boxes."""


class Command(Protocol):
    """A click command, whichever copy of click it comes from."""

    def main(self, args: Sequence[str] | None, prog_name: str | None, *, standalone_mode: bool) -> Any:
        """Parse the arguments and run."""
        ...


class Interrupted(BaseException):
    """A command was interrupted; unlike KeyboardInterrupt it passes through click as it is."""


class LateCommand(TyperCommand):
    """A command that is put together when it is called; a list of commands needs its name and summary alone.

    Args:
        name: Its name.
        summary: What it does, in a line: the first of its help.
        load: Makes the whole command.
    """

    def __init__(self, name: str, *, summary: str, load: Callable[[], Any]) -> None:
        super().__init__(name, help=summary)
        self.load = functools.cache(load)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse the arguments of the whole command, which is the one that the context is of."""
        return self.load().make_context(info_name, args, parent=parent, **extra)


class StrictCommand(TyperCommand):
    """A command that refuses what click lets pass in silence, and says better what it refuses anyway.

    An option that takes one value counts once; an empty value is none; arguments that are too many are often files, or
    a text that lost its quotes.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Check the arguments, then parse them as every command does."""
        try:
            values, rest, order = self.make_parser(ctx).parse_args(args=list(args))
        except Exception as error:
            # The parser does not always know whose arguments they are.
            if getattr(error, "ctx", ctx) is None:
                error.ctx = ctx  # type: ignore[attr-defined]
            raise
        if not ctx.resilient_parsing and not any(parameter.is_eager for parameter in order):
            if meant := one_dash(ctx, args):
                ctx.fail(meant)
            options = [parameter for parameter in order if parameter.param_type_name == "option"]
            for option in dict.fromkeys(options):
                _check_option(ctx, option, values.get(option.name), options.count(option), args)
            if rest and not ctx.allow_extra_args:
                ctx.fail(self._too_many(rest))
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run it; where rows lack a column, name the options that say what stands for it."""
        try:
            return super().invoke(ctx)
        except ColumnError as error:
            if not any("--map" in parameter.opts for parameter in self.params):
                raise
            name = error.column
            raise InputError(
                f"{error} Say what it is called there with --map {name}=NAME, or what it is in all rows with "
                f"--set {name}=VALUE."
            ) from error

    def _too_many(self, rest: Sequence[str]) -> str:
        message = f"Got unexpected extra arguments: {' '.join(map(repr, rest[:5]))}"
        known = {name for parameter in self.params for name in parameter.opts}
        if (flag := "--context" if "--context" in known else "--file") not in known:
            return message
        for argument in rest:
            if is_file(argument) or looks_like_path(argument):
                return f"{message}. To read a file, name it with {flag} {argument}."
        return f"{message}. Put a text of several words in quotes."


def _check_option(ctx: Any, option: Any, value: Any, times: int, arguments: Sequence[str]) -> None:
    if getattr(option, "is_flag", False) or getattr(option, "count", False):
        return
    given = given_options(option.opts, arguments)
    name = given[-1][0] if given else max(option.opts, key=len)
    if times > 1 and not option.multiple:
        values = ", ".join(repr(text) for _, text in given if text is not None)
        often = "twice" if times == 2 else f"{times} times"
        ctx.fail(f"{name} is given {often}{f' ({values})' if values else ''}, but takes one value")
    if "" in (value if isinstance(value, (list, tuple)) else (value,)):
        ctx.fail(f"The value of {name} is empty. Give one, or leave {name} out.")


def run_process(command: Command, arguments: Sequence[str]) -> int:
    """Run a command as the process's main work.

    Args:
        command: The command.
        arguments: Its arguments.

    Returns:
        The exit code: 0 done, 2 bad usage or input, 3 some inputs failed, 130 interrupted, 1 a bug.
    """
    use_utf8()
    calm_openmp()
    with _tidy_on_signals() as signals:
        code = _guarded(command, list(arguments), signals, debug="--debug" in arguments)
    return _flush(code)


def wants_plain_help() -> bool:
    """Return whether help texts should be plain.

    They are where the user wants no escape sequences, where boxes would cut names off, and where no person is
    watching: drawing boxes takes longer than all the rest.
    """
    watched = sys.stdout is not None and sys.stdout.isatty()
    return bool(os.environ.get("NO_COLOR")) or not watched or shutil.get_terminal_size().columns < MIN_BOXED_COLUMNS


def leave(code: int) -> NoReturn:
    """End the process as the interpreter does, but for taking apart a thousand modules: torch's take 0.3 s.

    Threads are waited for, what is registered with `atexit` is run, and buffers are flushed.

    Args:
        code: The exit code.
    """
    # Both are what `Py_FinalizeEx` calls first; where another interpreter has no such functions, it ends its own way.
    wait, run = getattr(threading, "_shutdown", None), getattr(atexit, "_run_exitfuncs", None)
    if wait is None or run is None or sys.flags.inspect:
        sys.exit(code)
    wait()
    run()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


@dataclass
class _Signals:
    """What was sent to this process while a command ran."""

    interrupted: bool = False
    ending: int | None = None


def _invoke(command: Command, arguments: list[str], signals: _Signals) -> Any:
    try:
        return command.main(args=arguments, prog_name="nlpkit", standalone_mode=False)
    except Exception as error:
        # Libraries make other errors of an interrupt: numpy, for one, says that it cannot be imported.
        if signals.interrupted:
            raise KeyboardInterrupt from error
        raise


def _guarded(command: Command, arguments: list[str], signals: _Signals, *, debug: bool) -> int:
    try:
        result = _invoke(command, arguments, signals)
        if result == INTERRUPTED and signals.interrupted:
            # While click parsed.
            raise KeyboardInterrupt
        return result if isinstance(result, int) else 0
    except NlpkitError as error:
        return _fail(str(error), error, debug=debug, code=error.exit_code)
    except (KeyboardInterrupt, Interrupted):
        note("interrupted", new_line=True)
        return INTERRUPTED
    except BrokenPipeError:
        discard_stdout()
        return 0
    except SystemExit as stop:
        # click and rich leave with 1 when whoever reads the help goes away. Nothing else here exits so.
        if stop.code == 1:
            discard_stdout()
            return 0
        raise
    except MemoryError as error:
        return _fail(_OUT_OF_MEMORY, error, debug=debug, code=2)
    except typer.Abort:
        return INTERRUPTED
    except BaseException as error:  # a library in Rust may throw what is no Exception
        if isinstance(error, Exception) and isinstance(error, _ClickError):
            return _usage(error, arguments)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _fail("The disk is full. Free some space and run again.", error, debug=debug, code=2)
        if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            name = display_name(str(error.filename))
            return _fail(f"{shown(name)} is no path: {error.strerror}.", error, debug=debug, code=2)
        if "allocate memory" in str(error) or "out of memory" in str(error):
            return _fail(_OUT_OF_MEMORY, error, debug=debug, code=2)
        kind = type(error).__name__
        return _fail(
            f"internal error: {kind}: {error}. This is a bug: run again with --debug and report what it prints.",
            error,
            debug=debug,
            code=1,
        )


_OUT_OF_MEMORY = (
    "There is not enough memory. Lower --batch-tokens or --max-tokens, use a smaller --dtype such as int8, or a "
    "smaller model."
)


def _fail(message: str, error: BaseException, *, debug: bool, code: int) -> int:
    if debug:
        with contextlib.suppress(OSError):
            sys.stderr.write(without_secrets("".join(traceback.format_exception(error))))
    _complain(message)
    if isinstance(error, (OSError, OutputError)):
        # What did not fit on the disk is still in the buffer, and would fail once more at exit.
        discard_stdout()
    return code


def _usage(error: Exception, arguments: Sequence[str]) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "nlpkit"
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(error.format_message().strip())  # type: ignore[attr-defined]
        return 2
    _complain(f"{usage_message(error, arguments)} See `{path} --help`.")
    return 2


def _complain(message: str) -> None:
    message = shortened(without_secrets(" ".join(message.split())), MAX_MESSAGE_CHARS)
    text = printable(f"nlpkit: error: {message}")
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if sys.stderr.isatty():
            text = textwrap.fill(
                text, shutil.get_terminal_size().columns, break_long_words=False, break_on_hyphens=False
            )
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _flush(code: int) -> int:
    """Flush while it can still be handled: the interpreter's own last flush prints a traceback when it fails."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        discard_stdout()
    except OSError as error:
        discard_stdout()
        _complain(f"Standard output cannot be written: {error.strerror}.")
        return code or 2
    return code


def _to_main_thread(number: int) -> None:
    send = getattr(signal, "pthread_kill", None)
    if send is None:  # Windows
        signal.raise_signal(number)
    else:
        send(threading.main_thread().ident, number)


def _must_wait(number: int, frame: FrameType | None) -> bool:
    """Send a signal again a little later, where it comes while torch is imported.

    C++ lies between the frames there, and an exception that has to cross it ends the process with a trace of its own.
    """
    while frame is not None:
        if frame.f_code.co_name == "<module>" and str(frame.f_globals.get("__name__")).partition(".")[0] == "torch":
            again = threading.Timer(0.02, _to_main_thread, (number,))
            again.daemon = True
            again.start()
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def _tidy_on_signals() -> Iterator[_Signals]:
    """Let the signals that end a process unwind the stack, so that half-written files are removed."""
    signals = _Signals()
    report = sys.unraisablehook

    def leave(number: int, frame: FrameType | None) -> None:
        if _must_wait(number, frame):
            return
        signals.ending = number
        raise SystemExit(128 + number)

    def interrupt(number: int, frame: FrameType | None) -> None:
        if _must_wait(number, frame):
            return
        signals.interrupted = True
        raise KeyboardInterrupt

    def send_again(failure: Any) -> None:
        # The signal came while some callback ran, where exceptions are printed and lost: once more, then.
        if failure.exc_type is KeyboardInterrupt:
            signal.raise_signal(signal.SIGINT)
        elif failure.exc_type is SystemExit and signals.ending is not None:
            signal.raise_signal(signals.ending)
        else:
            report(failure)

    before: dict[int, Any] = {}
    try:
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
            number = getattr(signal, name, None)
            # Who starts a command under nohup wants it to go on.
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, interrupt if name == "SIGINT" else leave)
    except ValueError:
        # Not in the main thread: somebody else's process, and their business.
        yield signals
        return
    sys.unraisablehook = send_again
    try:
        yield signals
    finally:
        sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler)
