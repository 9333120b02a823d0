"""The edge between the command line and its process: exit codes, error paragraphs, signals, the last flush."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import shutil
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn, Protocol

import typer

from nlpkit.apps.cli.output import discard_stdout, note, printable, use_utf8
from nlpkit.apps.documents.files import display_name
from nlpkit.core.errors import MAX_MESSAGE_CHARS, NlpkitError, OutputError, shortened, shown, without_secrets
from nlpkit.core.machine.processor import calm_openmp

# typer brings its own copy of click or uses the installed one, by version: this is the base of what it raises.
_ClickError = typer.BadParameter.__mro__[2]


class Command(Protocol):
    """A click command, whichever copy of click it comes from."""

    def main(self, args: Sequence[str] | None, prog_name: str | None, *, standalone_mode: bool) -> Any:
        """Parse the arguments and run."""
        ...


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
    with _tidy_on_signals():
        code = _guarded(command, list(arguments), debug="--debug" in arguments)
    return _flush(code)


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


def _guarded(command: Command, arguments: list[str], *, debug: bool) -> int:
    try:
        result = command.main(args=arguments, prog_name="nlpkit", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except NlpkitError as error:
        return _fail(str(error), error, debug=debug, code=error.exit_code)
    except KeyboardInterrupt:
        note("interrupted", new_line=True)
        return 130
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
        return 130
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
    message = error.format_message().strip()  # type: ignore[attr-defined]
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(message)
        return 2
    value = _value_got(error, arguments)
    if value is not None and repr(value) not in message:
        message = f"{message.rstrip('.')} (got {value!r})"
    if not message.endswith((".", "?", "!")):
        message += "."
    _complain(f"{message} See `{path} --help`.")
    return 2


def _value_got(error: Exception, arguments: Sequence[str]) -> str | None:
    """Return what the user gave to the option that an error is about: the parser's messages leave it out."""
    names: Sequence[str] = getattr(getattr(error, "param", None), "opts", ())
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in names and name.startswith("-"):
            return value if equals else next(iter(arguments[position + 1 : position + 2]), None)
    return None


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


@contextlib.contextmanager
def _tidy_on_signals() -> Iterator[None]:
    """Let the signals that end a process unwind the stack, so that half-written files are removed."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before: dict[int, Any] = {}
    try:
        for name in ("SIGTERM", "SIGHUP", "SIGQUIT"):
            number = getattr(signal, name, None)
            # Who starts a command under nohup wants it to go on.
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, leave)
    except ValueError:
        # Not in the main thread: somebody else's process, and their business.
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
