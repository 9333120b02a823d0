"""Inputs of a command: from an argument, from files, or from a pipe, as one list in order."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from nlpkit.apps.data.columns import mapped
from nlpkit.apps.data.rows import LocatedRow, RowFormat, Table, json_list_rows, read_rows, row_format
from nlpkit.apps.documents.document import ReadOptions
from nlpkit.apps.documents.files import (
    MAX_BYTES,
    STDIN,
    check_encoding,
    check_text,
    decode_text,
    display_name,
    is_file,
    read_bytes,
    read_head,
    stdin_waits,
)
from nlpkit.apps.documents.reading import DocumentText, document_text
from nlpkit.apps.documents.registry import FormatEntry, find_format, format_names, read_document
from nlpkit.apps.tasks.task import Field
from nlpkit.core.errors import ConfigError, InputError, NlpkitError, did_you_mean

InputFormat = Literal["auto", "text", "lines", "jsonl", "csv", "tsv"]
INPUT_FORMATS: tuple[str, ...] = get_args(InputFormat)
"""How a file may be taken apart; `nlpkit.apps.documents.registry` has the formats of documents beside these."""

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
        marked: Whether a byte order mark stands before it.
        ended: Whether a line end stands behind it.
        cells: The row's cells as they stand in a table.
        table: That table.
        empty: Whether it is a row of a table whose text is empty.
        error: Why it cannot be used, where `read_documents` was asked to go on.
        source: Of a document in a format of its own, where its text comes from.
    """

    text: str
    name: str
    newline: str = "\n"
    values: Mapping[str, Any] | None = None
    marked: bool = False
    ended: bool = True
    cells: Mapping[str, str] | None = None
    table: Table | None = None
    empty: bool = False
    error: NlpkitError | None = None
    source: DocumentText | None = None

    @property
    def blank(self) -> bool:
        """Whether there is nothing to work on: an empty line of a line-by-line input, or an empty cell."""
        return self.error is None and (self.empty or (self.values is None and not self.text.strip()))

    def place(self, offset: int) -> int:
        """Return where a character of the text stands in the file: its mark and carriage returns count there."""
        if self.source is not None:
            return self.source.offset_in_file(offset)
        returns = self.text.count("\n", 0, offset) if self.newline == "\r\n" else 0
        return offset + returns + self.marked


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
    text_field: str = "",
    keep_going: bool = False,
    optional: bool = False,
    columns: Mapping[str, str] | None = None,
    formats: bool = False,
) -> list[Document]:
    """Collect the inputs of a command. Everything is read and checked before any work begins.

    Args:
        text: The command's argument; ``-`` stands for standard input.
        files: Paths; ``-`` for standard input.
        input_format: ``text`` makes one input of each file, ``lines`` one of each line, ``jsonl``, ``csv``
            and ``tsv`` one of each row; ``auto`` goes by the file's name.
        encoding: Encoding of files.
        fields: The task's columns, for data rows; None refuses data rows.
        max_bytes: Largest input.
        what: What the input is called in errors.
        ways: How it can be given, for the error when it is not.
        text_field: The column without which a row of a table is blank.
        keep_going: Give inputs with an `error` for those that cannot be used.
        optional: Whether a command can do without: one row without values then stands for no input.
        columns: For the task's columns the rows' own names, where they differ; see `nlpkit.apps.data.columns.mapped`.
        formats: Whether files in formats of documents, such as HTML, are read as the text that people see in them.

    Returns:
        At least one input, in the order given. Only ``lines`` and tables give blank ones, so that counts of lines and
        rows can be kept.

    Raises:
        ConfigError: Options contradict each other.
        InputError: There is no input, or one cannot be read, decoded or used.
    """
    known = (*INPUT_FORMATS, *(format_names() if formats else ()))
    if input_format not in known:
        raise ConfigError(f"There is no input format {input_format!r}. {did_you_mean(input_format, known)}")
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
            if optional:
                return [Document("", "argument", values={})]
            raise InputError(f"There is no {what} to work on. Give it {ways}.")
        files = (STDIN,)
        if optional and (content := _optional_text(max_bytes, encoding)) is not None:
            return _from_text(content, display_name(STDIN), lines=input_format == "lines", what=what)
        if optional:
            return [Document("", "argument", values={})]
    if list(files).count(STDIN) > 1:
        raise ConfigError("Standard input (-) is named more than once; it can be read only once.")
    documents: list[Document] = []
    for path in files:
        reader = _Reader(path, encoding, fields, max_bytes, what, text_field, keep_going, columns or {}, formats)
        try:
            # One by one: what stood before a bad row is kept.
            documents.extend(reader.read(input_format))
        except InputError as error:
            if not keep_going:
                raise
            documents.append(Document("", display_name(path), error=error))
    return documents


def read_text(
    path: str, *, input_format: str = "auto", encoding: str = "utf-8", max_bytes: int = MAX_BYTES
) -> Document:
    """Read one file as the text that people see in it.

    Args:
        path: The file; ``-`` for standard input.
        input_format: Its format; ``auto`` goes by name and content.
        encoding: Encoding of text files.
        max_bytes: Largest file.

    Raises:
        InputError: It cannot be read or decoded, holds no text, or data rows.
    """
    if input_format in ("lines", "jsonl", "csv", "tsv"):
        raise ConfigError(
            f"The input format {input_format!r} makes several inputs of a file; here each file is one text."
        )
    reader = _Reader(path, encoding, None, max_bytes, "context", "", False, {}, True)
    (found,) = reader.read(input_format)
    return found


def _optional_text(max_bytes: int, encoding: str) -> str | None:
    content = decode_text(read_bytes(STDIN, max_bytes=max_bytes), encoding=encoding, where=display_name(STDIN))
    return content if content.strip() else None


@dataclass(frozen=True)
class _Reader:
    """Reads the inputs of one file."""

    path: str
    encoding: str
    fields: Sequence[Field] | None
    max_bytes: int
    what: str
    text_field: str
    keep_going: bool
    columns: Mapping[str, str]
    formats: bool

    def read(self, input_format: str) -> Iterator[Document]:
        name = display_name(self.path)
        if (entry := self._format(input_format)) is not None:
            yield self._document(entry, name)
            return
        if input_format == "auto" and is_json(self.path):
            yield from self._json(name)
            return
        kind = _row_kind(self.path, "text" if input_format not in INPUT_FORMATS else input_format)
        if kind is None:
            content = self._content(name)
            yield from _from_text(content, name, lines=input_format == "lines", what=self.what)
        else:
            yield from self._rows(self._read_rows(kind), name)

    def _format(self, input_format: str) -> FormatEntry | None:
        """Return the format of a document; None for plain text and rows."""
        if not self.formats:
            return None
        if input_format not in INPUT_FORMATS:
            entry = find_format(self.path, name=input_format)
        elif input_format != "auto" or row_format(self.path) or self.path == STDIN or self._is_rows():
            entry = None
        else:
            entry = find_format(self.path, read_head(self.path))
        return None if entry is None or entry.name == "text" else entry

    def _is_rows(self) -> bool:
        """Whether what a name promises to be JSON is to be read as rows, or refused."""
        if self.fields is None or not is_json(self.path):
            return is_json(self.path)
        names = row_names(self.fields, self.columns)
        return holds_rows(self.path, names=names, encoding=self.encoding, max_bytes=self.max_bytes)

    def _document(self, entry: FormatEntry, name: str) -> Document:
        data = read_bytes(self.path, max_bytes=self.max_bytes)
        read = document_text(read_document(data, entry, ReadOptions(name=name, encoding=self.encoding)))
        if not read.text.strip():
            raise InputError(f"The {self.what} is empty ({name}): there is no text for people in it.")
        return Document(read.text, name, source=read)

    def _content(self, name: str) -> str:
        data = read_bytes(self.path, max_bytes=self.max_bytes)
        return decode_text(data, encoding=self.encoding, where=name, keep_mark=True)

    def _json(self, name: str) -> Iterator[Document]:
        """Read what a name promises to be JSON: a list of objects, or one object a line."""
        content = self._content(name).removeprefix("\ufeff")
        rows: Iterable[LocatedRow] | None = json_list_rows(content, name)
        if rows is None and content.lstrip().startswith("{") and self.path != STDIN and _is_json_lines(content):
            rows = self._read_rows("jsonl")
        if rows is None:
            raise InputError(
                f"{name} is neither a JSON list of rows nor one JSON object a line. As a text it would come out as no "
                "JSON any more: take the texts out of it, or say --input-format text to have it so."
            )
        yield from self._rows(rows, name)

    def _read_rows(self, kind: RowFormat) -> Iterator[LocatedRow]:
        return read_rows(
            self.path,
            fields=self.fields,
            kind=kind,
            max_row_bytes=self.max_bytes,
            max_total_bytes=self.max_bytes,
            encoding=self.encoding,
            keep_going=self.keep_going,
        )

    def _rows(self, rows: Iterable[LocatedRow], name: str) -> Iterator[Document]:
        if self.fields is None:
            raise InputError(f"{name} holds data rows, which this command does not take.")
        needed = any(
            column.name == self.text_field and column.required and not column.may_be_empty for column in self.fields
        )
        count = 0
        for count, row in enumerate(rows, start=1):
            if count > MAX_DOCUMENTS:
                raise _too_many(name, "rows")
            row = self._mapped(row)
            text = row.values.get(self.text_field)
            # Tables have empty cells, as texts have empty lines; an object that says "" is a mistake.
            empty = needed and row.table is not None and isinstance(text, str) and not text.strip()
            yield Document(
                "",
                row.where,
                values=row.values,
                cells=row.cells,
                table=row.table,
                empty=empty and row.error is None,
                error=row.error,
            )
        if not count:
            raise InputError(f"{name} holds no data rows.")

    def _mapped(self, row: LocatedRow) -> LocatedRow:
        if not self.columns or row.error is not None:
            return row
        try:
            values = mapped(row.values, row.where, fields=self.fields or (), columns=self.columns)
        except InputError as error:
            if not self.keep_going:
                raise
            return dataclasses.replace(row, error=error)
        return dataclasses.replace(row, values=values)


def is_json(path: str) -> bool:
    """Return whether a file's name promises one JSON value. ``.gz`` is looked through."""
    return path.lower().removesuffix(".gz").endswith(".json")


def row_names(fields: Iterable[Field], columns: Mapping[str, str]) -> frozenset[str]:
    """Return the names by which a task's rows are known: of what it reads, and of what stands in for that.

    Args:
        fields: The task's columns.
        columns: For columns of the task the rows' own names, where they differ.
    """
    own = {name for column in fields if column.role == "text" for name in (column.name, *column.aliases)}
    return frozenset({*own, *columns.values(), *(name.split(".")[0] for name in columns.values())})


def holds_rows(path: str, *, names: Collection[str], encoding: str = "utf-8", max_bytes: int = MAX_BYTES) -> bool:
    """Return whether a file whose name promises JSON holds data rows: a list of objects, or one a line.

    Args:
        path: Its path.
        names: What rows have at least one of; see `row_names`.
        encoding: Of the file.
        max_bytes: Largest file that is looked at.
    """
    if not is_json(path) or not is_file(path):
        return False
    try:
        content = decode_text(read_bytes(path, max_bytes=max_bytes), encoding=encoding, where=path)
    except InputError:
        return False
    if _is_json_lines(content):
        return True
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return False
    # One that lacks them is a bad row among good ones.
    return isinstance(value, list) and any(isinstance(row, dict) and not row.keys().isdisjoint(names) for row in value)


def _is_json_lines(content: str) -> bool:
    """Return whether the first of several lines is a whole JSON object."""
    lines = [line for line in content.split("\n", 3)[:3] if line.strip()]
    try:
        return len(lines) > 1 and isinstance(json.loads(lines[0]), dict)
    except (ValueError, RecursionError):
        return False


def _row_kind(path: str, input_format: str) -> RowFormat | None:
    if input_format == "auto":
        return row_format(path)
    return None if input_format in ("text", "lines") else cast("RowFormat", input_format)


def _from_text(content: str, name: str, *, lines: bool, what: str) -> list[Document]:
    marked = content.startswith("\ufeff")
    content = content.removeprefix("\ufeff")
    if not content.strip():
        raise InputError(f"The {what} is empty ({name}). Give some text to work on.")
    newline = "\n"
    # A text with mixed line ends keeps them: there is no one right way to write them back.
    if (breaks := content.count("\n")) and content.count("\r\n") == breaks:
        newline, content = "\r\n", content.replace("\r\n", "\n")
    # The line end that ends the file (or what `echo` sent) belongs to the file and not to the text.
    ended = content.endswith(("\n", "\r")) or name == "argument"
    content = content.removesuffix("\n").removesuffix("\r")
    if not lines:
        return [Document(content, name, newline, marked=marked, ended=ended)]
    if content.count("\n") >= MAX_DOCUMENTS:
        raise _too_many(name, "lines")
    # Not str.splitlines, which also splits at form feeds, U+2028 and others: lines out must equal lines in.
    return [
        Document(line.removesuffix("\r"), f"{name}:{number}", newline, marked=marked and number == 1, ended=ended)
        for number, line in enumerate(content.split("\n"), start=1)
    ]


def _too_many(name: str, what: str) -> InputError:
    return InputError(f"{name} holds more than {MAX_DOCUMENTS:,} {what}, which are all held in memory. Split it.")
