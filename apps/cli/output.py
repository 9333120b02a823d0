"""Where results go: standard output, or a file written whole or not at all. Always UTF-8."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import stat
import sys
import weakref
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, TextIO

from nlpkit.apps.documents.files import STDIN, display_name
from nlpkit.core.errors import OutputError, without_secrets
from nlpkit.core.files.write import aside_name, sweep

_STANDARD = {"stdin": 0, "stdout": 1, "stderr": 2}
_BREAKS = re.compile(r"[ \t]*[\r\n]+[ \t]*")


class Writer:
    """Writes records to standard output or to a file, in text or JSON Lines.

    Text records are separated by a blank line, or, with `line_per_record`, hold exactly one line each: line
    breaks inside a record become spaces. Use it as a context manager: a file appears under its name only if
    the block ends without an exception. Each record is flushed, so that a reader of a pipe sees it at once.

    Args:
        path: File to write, or None or ``-`` for standard output.
        as_json: Whether `write` takes mappings, one JSON object a line.
        line_per_record: Whether each text record is one line.

    Raises:
        OutputError: The place cannot be written to.
    """

    def __init__(self, path: str | None, *, as_json: bool = False, line_per_record: bool = False) -> None:
        path = None if path == STDIN else path
        self.as_json = as_json
        self.line_per_record = line_per_record
        self.name = "standard output" if path is None else display_name(path)
        self._path: str | None = None
        self._temporary: str | None = None
        self._records = 0
        with self._errors():
            self._stream = _open_stdout() if path is None else self._open(path)

    @property
    def to_terminal(self) -> bool:
        """Whether a person is watching."""
        return self._path is None and self._stream.isatty()

    @property
    def to_file(self) -> bool:
        """Whether a file of its own comes to be."""
        return self._temporary is not None

    def write(self, record: str | Mapping[str, Any], *, newline: str = "\n", end: bool = True) -> None:
        r"""Write one record and flush.

        Args:
            record: A text, or a mapping with `as_json`.
            newline: Line end to write a text with.
            end: Whether the text ends with one.

        Raises:
            OutputError: The disk is full, or writing fails otherwise.
            BrokenPipeError: The reader is gone.
        """
        if isinstance(record, Mapping):
            text = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
        elif self.line_per_record:
            text = one_line(record) + newline * end
        else:
            text = (newline if self._records else "") + record.replace("\n", newline) + newline * end
        self._records += 1
        self.write_raw(text)

    def write_raw(self, text: str) -> None:
        """Write a piece of a record as it is, and flush.

        Raises:
            OutputError: The disk is full, or writing fails otherwise.
            BrokenPipeError: The reader is gone.
        """
        with self._errors():
            self._stream.write(printable(text) if self.to_terminal else text)
            self._stream.flush()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._path is None:
            return
        if kind is not None:
            self._discard()
            return
        try:
            with self._errors():
                self._stream.flush()
                if self._temporary is not None:
                    os.fsync(self._stream.fileno())
                self._stream.close()
                if self._temporary is not None:
                    os.replace(self._temporary, self._path)
                    self._temporary = None
        except BaseException:
            self._discard()
            raise

    def _open(self, path: str) -> TextIO:
        number = _descriptor(path)
        if number is not None:
            return self._open_descriptor(number)
        # Through links: the file that they name is replaced, not the link.
        self._path = target = os.path.realpath(path)
        mode = None
        with contextlib.suppress(FileNotFoundError):
            mode = os.stat(target).st_mode
        if mode is not None and stat.S_ISDIR(mode):
            raise OutputError(f"{self.name} is a folder. Name the file to write, such as -o {self.name}/out.txt.")
        if mode is not None and not stat.S_ISREG(mode):
            # A device or a named pipe: there is nothing to rename onto it.
            return open(target, "w", encoding="utf-8", newline="")
        if mode is not None and _is_stdout(target):
            raise OutputError(
                f"{self.name} is where standard output goes already: what stands in it would be lost. Leave -o out."
            )
        folder = os.path.dirname(target)
        if not os.path.isdir(folder):
            raise OutputError(f"{self.name} cannot be written: there is no folder {display_name(folder)!r}. Create it.")
        if mode is not None and not os.access(target, os.W_OK):
            raise OutputError(f"{self.name} is read-only. Change its mode, or write elsewhere.")
        sweep(folder)
        self._temporary = os.path.join(folder, aside_name())
        # Armed before the file is there: a signal may come at any moment, also before the ``with`` block begins.
        weakref.finalize(self, _unlink, self._temporary)
        stream = open(self._temporary, "x", encoding="utf-8", newline="")  # noqa: SIM115
        if mode is not None:
            os.chmod(self._temporary, stat.S_IMODE(mode))
        return stream

    def _open_descriptor(self, number: int) -> TextIO:
        """Write to what is open already, such as /dev/stdout: as a stream, which nothing can be renamed onto."""
        if sys.stdout is not None and _fileno(sys.stdout) == number:
            self._path = None
            return _open_stdout()
        self._path = f"/dev/fd/{number}"
        return os.fdopen(os.dup(number), "w", encoding="utf-8", newline="")

    def _discard(self) -> None:
        # Closing flushes, which fails again on a full disk.
        with contextlib.suppress(OSError):
            self._stream.close()
        if self._temporary is not None:
            _unlink(self._temporary)
            self._temporary = None

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OutputError(
                    f"{self.name} cannot be written: the disk is full. Free some space, or write elsewhere with "
                    "-o PATH."
                ) from error
            raise OutputError(
                f"{self.name} cannot be written: {error.strerror or error}. Write elsewhere with -o PATH."
            ) from error


def one_line(text: str) -> str:
    """Return `text` with each run of line breaks, and the blanks around it, as one space."""
    return _BREAKS.sub(" ", text.strip("\r\n"))


def printable(text: str) -> str:
    r"""Return `text` with control characters spelled out (``\x1b``), so that no text can steer a terminal."""
    if text.isprintable():
        return text
    return "".join(
        f"\\x{ord(character):02x}"
        if (character < " " and character not in "\n\r\t") or "\x7f" <= character <= "\x9f"
        else character
        for character in text
    )


def use_utf8() -> None:
    """Make standard output and error write UTF-8, line ends as given, whatever the locale says."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="strict", newline="")
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")


def note(text: str, *, quiet: bool = False, new_line: bool = False) -> None:
    """Print one line for the user to stderr; a closed stderr is no error.

    Args:
        text: What to say.
        quiet: Whether the user wants no notes.
        new_line: Whether a terminal's cursor may stand in the middle of a line.
    """
    if quiet or sys.stderr is None:
        return
    # A handler of signals may come in the middle of a write to the same stream, which is an error of its own.
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        if new_line and sys.stderr.isatty():
            sys.stderr.write("\n")
        sys.stderr.write(f"nlpkit: {printable(without_secrets(text))}\n")
        sys.stderr.flush()


def discard_stdout() -> None:
    """Point standard output at nothing, so that the interpreter's last flush has nothing to fail on."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _fileno(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _is_stdout(path: str) -> bool:
    number = None if sys.stdout is None else _fileno(sys.stdout)
    try:
        return number is not None and os.path.samestat(os.fstat(number), os.stat(path))
    except OSError:
        return False


def _descriptor(path: str) -> int | None:
    """Return the number of the open file that a path stands for, through links; None for any other path."""
    place = os.path.abspath(path)
    for _ in range(40):
        folder, base = os.path.split(place)
        folder = os.path.realpath(folder)
        if folder == "/dev" and base in _STANDARD:
            return _STANDARD[base]
        if base.isdecimal() and len(base) < 10 and re.fullmatch(rf"/dev/fd|/proc/{os.getpid()}(/task/\d+)?/fd", folder):
            return int(base)
        place = os.path.join(folder, base)
        if not os.path.islink(place):
            return None
        place = os.path.normpath(os.path.join(folder, os.readlink(place)))
    return None


def _open_stdout() -> TextIO:
    if sys.stdout is None:
        raise OutputError("Standard output is closed. Write to a file with -o PATH.")
    return sys.stdout


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
