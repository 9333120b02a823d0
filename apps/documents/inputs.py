"""Inputs of a command: from an argument, from files, or from a pipe, as one list in order."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from nlpkit.apps.data.rows import RowFormat, read_rows, row_format
from nlpkit.apps.documents.files import (
    MAX_BYTES,
    STDIN,
    check_encoding,
    check_text,
    decode_text,
    display_name,
    read_bytes,
    stdin_waits,
)
from nlpkit.apps.tasks.task import Field
from nlpkit.core.errors import ConfigError, InputError, did_you_mean

InputFormat = Literal["auto", "text", "lines", "jsonl", "csv", "tsv"]

MAX_DOCUMENTS = 1_000_000
"""Most rows or lines of one input: a small archive may hold many millions of empty ones."""


@dataclass(frozen=True)
class Document:
    r"""One input of a command.

    Attributes:
        text: Its text with ``\n`` line ends and without the one that ends the file; empty for a data row.
        name: What to call it in results and errors: a path, ``path:line``, ``standard input`` or
            ``argument``.
        newline: Line end to write with: ``\r\n`` where the whole input used it.
        values: The row, for an input from a data file.
    """

    text: str
    name: str
    newline: str = "\n"
    values: Mapping[str, Any] | None = None

    @property
    def blank(self) -> bool:
        """Whether there is nothing to work on: an empty line of a line-by-line input."""
        return self.values is None and not self.text.strip()


def read_documents(
    text: str | None,
    files: Sequence[str] = (),
    *,
    input_format: str = "auto",
    encoding: str = "utf-8",
    fields: Sequence[Field] | None = None,
    max_bytes: int = MAX_BYTES,
    what: str = "text",
    ways: str = "as an argument, as a file with -f PATH, or through a pipe",
) -> list[Document]:
    """Collect the inputs of a command. Everything is read and checked before any work begins.

    Args:
        text: The command's argument; ``-`` stands for standard input.
        files: Paths; ``-`` for standard input.
        input_format: ``text`` makes one input of each file, ``lines`` one of each line, ``jsonl``, ``csv``
            and ``tsv`` one of each row; ``auto`` goes by the file's name.
        encoding: Encoding of text files. Data rows are always UTF-8.
        fields: The task's columns, for data rows; None refuses data rows.
        max_bytes: Largest input.
        what: What the input is called in errors.
        ways: How it can be given, for the error when it is not.

    Returns:
        At least one input, in the order given. Only ``lines`` gives blank ones, so that line counts can be
        kept.

    Raises:
        ConfigError: Options contradict each other.
        InputError: There is no input, or one cannot be read, decoded or used.
    """
    if input_format not in get_args(InputFormat):
        raise ConfigError(
            f"There is no input format {input_format!r}. {did_you_mean(input_format, get_args(InputFormat))}"
        )
    check_encoding(encoding)
    if text == STDIN:
        text, files = None, (STDIN, *files)
    elif text is not None and files:
        raise ConfigError(
            f"Got both a {what} as an argument ({text[:40]!r}) and a file ({display_name(files[0])!r}): "
            "give one of the two."
        )
    if (text is not None or (files and STDIN not in files)) and stdin_waits():
        given = (
            f"a {what} as an argument ({text[:40]!r})" if text is not None else f"a file ({display_name(files[0])!r})"
        )
        raise ConfigError(
            f"Got both {given} and something on standard input: give one of the two. What a shell's loop reads is kept "
            "from the command with < /dev/null."
        )
    if text is not None:
        return _from_text(check_text(text, where=f"The {what}"), "argument", lines=input_format == "lines", what=what)
    if not files:
        if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
            raise InputError(f"There is no {what} to work on. Give it {ways}.")
        files = (STDIN,)
    if list(files).count(STDIN) > 1:
        raise ConfigError("Standard input (-) is named more than once; it can be read only once.")
    documents: list[Document] = []
    for path in files:
        kind = _row_kind(path, input_format)
        if kind is None:
            name = display_name(path)
            content = decode_text(read_bytes(path, max_bytes=max_bytes), encoding=encoding, where=name)
            documents += _from_text(content, name, lines=input_format == "lines", what=what)
        elif fields is None:
            raise InputError(f"{display_name(path)} holds data rows, which this command does not take.")
        else:
            documents += _from_rows(path, kind, fields=fields, encoding=encoding, max_bytes=max_bytes)
    return documents


def _row_kind(path: str, input_format: str) -> RowFormat | None:
    if input_format == "auto":
        return row_format(path)
    return None if input_format in ("text", "lines") else cast("RowFormat", input_format)


def _from_text(content: str, name: str, *, lines: bool, what: str) -> list[Document]:
    if not content.strip():
        raise InputError(f"The {what} is empty ({name}). Give some text to work on.")
    newline = "\n"
    # A text with mixed line ends keeps them: there is no one right way to write them back.
    if (breaks := content.count("\n")) and content.count("\r\n") == breaks:
        newline, content = "\r\n", content.replace("\r\n", "\n")
    # The line end that ends the file (or what `echo` sent) belongs to the file and not to the text.
    content = content.removesuffix("\n").removesuffix("\r")
    if not lines:
        return [Document(content, name, newline)]
    if content.count("\n") >= MAX_DOCUMENTS:
        raise _too_many(name, "lines")
    # Not str.splitlines, which also splits at form feeds, U+2028 and others: lines out must equal lines in.
    return [
        Document(line.removesuffix("\r"), f"{name}:{number}", newline)
        for number, line in enumerate(content.split("\n"), start=1)
    ]


def _too_many(name: str, what: str) -> InputError:
    return InputError(f"{name} holds more than {MAX_DOCUMENTS:,} {what}, which are all held in memory. Split it.")


def _from_rows(path: str, kind: RowFormat, *, fields: Sequence[Field], encoding: str, max_bytes: int) -> list[Document]:
    if check_encoding(encoding) != "utf-8":
        raise ConfigError(f"{display_name(path)} holds data rows, which are always UTF-8: leave --encoding out.")
    documents: list[Document] = []
    for row in read_rows(path, fields=fields, kind=kind, max_row_bytes=max_bytes, max_total_bytes=max_bytes):
        if len(documents) >= MAX_DOCUMENTS:
            raise _too_many(display_name(path), "rows")
        documents.append(Document("", row.where, values=row.values))
    if not documents:
        raise InputError(f"{display_name(path)} holds no data rows.")
    return documents
