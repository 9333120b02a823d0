"""Data rows: JSON Lines, CSV and TSV, read as a stream, each bad row named by file and line."""

from __future__ import annotations

import codecs
import contextlib
import csv
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import IO, Any, Literal, Protocol

from nlpkit.apps.documents.files import check_encoding, check_text, decode_text, display_name, open_input
from nlpkit.apps.tasks.task import Field
from nlpkit.core.errors import InputError, shortened, shown

Located = tuple[dict[str, Any], str]
"""A row and where it came from."""


RowFormat = Literal["jsonl", "csv", "tsv"]

MAX_ROW_BYTES = 64 * 2**20
"""Longest line, in bytes after decompression."""

MAX_TOTAL_BYTES = 64 * 2**30
"""Most bytes of one file after decompression: a small archive cannot keep the reader busy for ever."""

_SUFFIXES: dict[str, RowFormat] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv"}


@dataclass(frozen=True)
class Table:
    r"""What the rows of one CSV or TSV file have in common.

    Attributes:
        kind: ``csv`` or ``tsv``.
        columns: Names in the header.
        delimiter: What stands between cells.
        newline: ``\r\n`` where the header ends so.
        marked: Whether the file begins with a byte order mark, by which Excel knows UTF-8.
    """

    kind: RowFormat
    columns: tuple[str, ...]
    delimiter: str = ","
    newline: str = "\n"
    marked: bool = False


@dataclass(frozen=True)
class LocatedRow:
    """One data row.

    Attributes:
        values: Column name to value.
        where: Where it came from, such as ``data.jsonl:7``.
        line: Its line (its first line, for a CSV cell with line breaks), from 1.
        table: The table it stands in.
        cells: Its cells as they stand in the table, by column.
        error: Why it cannot be used, where `read_rows` was asked to go on.
    """

    values: dict[str, Any]
    where: str
    line: int
    table: Table | None = None
    cells: dict[str, str] = field(default_factory=dict)
    error: InputError | None = None


class _Lines(Protocol):
    def readline(self, size: int, /) -> bytes: ...


def row_format(path: str) -> RowFormat | None:
    """Return the format that a file's name promises, or None for plain text. ``.gz`` is looked through."""
    name = path.lower().removesuffix(".gz")
    return next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), None)


def read_rows(
    path: str,
    *,
    fields: Sequence[Field] | None = None,
    kind: RowFormat | None = None,
    unique: str | None = None,
    max_row_bytes: int = MAX_ROW_BYTES,
    max_total_bytes: int = MAX_TOTAL_BYTES,
    takes: Callable[[int], bool] | None = None,
    encoding: str | None = None,
    keep_going: bool = False,
) -> Iterator[LocatedRow]:
    """Read the rows of one file, one at a time. Gzip is seen through; blank lines are skipped.

    CSV follows RFC 4180 with a header line; semicolons or tabs may stand for its commas, as the header (or a line
    ``sep=;`` before it) shows. TSV has a header line and no quoting, as its media type says; but a cell in quotes that
    holds doubled quotes, as Excel writes it, is read without them.
    With `fields`, a CSV or TSV cell of a list or dict column is read as JSON, and an empty cell of a column
    that is not required counts as absent.

    Args:
        path: A path, or ``-`` for standard input.
        fields: The task's columns.
        kind: Overrules the file's name.
        unique: A column whose value must not occur twice, such as ``id``; rows without it are let through.
        max_row_bytes: Longest line.
        max_total_bytes: Most bytes, after decompression.
        takes: Asked for each line of JSON, counted from 1; those for which it says no are skipped unread.
        encoding: The encoding; by default it is UTF-8, and errors do not speak of ``--encoding``.
        keep_going: Give rows with an `error` for those that are not well formed, as far as others can follow them.

    Yields:
        The rows, in order.

    Raises:
        InputError: The file cannot be read, or a row is not well formed. Whether a row has what a task needs
            is `nlpkit.apps.tasks.rows.check_row`'s business.
    """
    kind = kind or row_format(path) or "jsonl"
    name = display_name(path)
    seen: dict[Any, int] = {}
    narrow = "utf-8" if encoding is None else check_encoding(encoding)
    with open_input(path) as raw:
        stream: _Lines = raw
        if not _splits_at_bytes(narrow):
            stream, narrow = _Recoded(raw, narrow, name), "utf-8"

        def decode(number: int, data: bytes) -> str:
            # Only the first line tells another kind of file; the rest is to be quick.
            if number > 1 and narrow == "utf-8" and b"\0" not in data:
                with contextlib.suppress(UnicodeDecodeError):
                    return data.decode()
            return decode_text(data, encoding=narrow, where=f"{name}:{number}", by_option=encoding is not None)

        lines = _lines(stream, name, max_row_bytes=max_row_bytes, max_total_bytes=max_total_bytes, takes=takes)
        rows = (
            _json_rows(lines, name, decode, keep_going=keep_going)
            if kind == "jsonl"
            else _table_rows(lines, name, kind, fields, decode, max_record_bytes=max_row_bytes, keep_going=keep_going)
        )
        for row in rows:
            if unique is not None and unique in row.values:
                value = row.values[unique]
                key = value if isinstance(value, (str, int)) else json.dumps(value)
                if key in seen:
                    raise InputError(
                        f"{row.where}: {unique!r} is {shown(value)}, as on line {seen[key]}; it must be unique."
                    )
                seen[key] = row.line
            yield row


def _splits_at_bytes(encoding: str) -> bool:
    """Return whether the byte of a line feed ends a line in an encoding, and means nothing else."""
    return not encoding.startswith(("utf-16", "utf-32", "utf-7")) and "\n".encode(encoding) == b"\n"


class _Recoded:
    """A stream in an encoding of wide characters, line by line as UTF-8."""

    def __init__(self, stream: IO[bytes], encoding: str, name: str) -> None:
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._stream = stream
        self._encoding = encoding
        self._name = name
        self._text = ""
        self._ended = False

    def readline(self, size: int, /) -> bytes:
        while "\n" not in self._text and len(self._text) < size and not self._ended:
            data = self._stream.read(1 << 16)
            self._ended = not data
            try:
                self._text += self._decoder.decode(data, final=not data)
            except UnicodeError as error:
                raise InputError(f"{self._name} is not valid {self._encoding.upper()}: {error}.") from error
        end = self._text.find("\n") + 1 or len(self._text)
        line, self._text = self._text[:end][:size], self._text[min(end, size) :]
        return line.encode("utf-8", "surrogatepass")


def _lines(
    stream: _Lines,
    name: str,
    *,
    max_row_bytes: int,
    max_total_bytes: int,
    takes: Callable[[int], bool] | None,
) -> Iterator[tuple[int, bytes]]:
    total = 0
    number = 0
    while data := stream.readline(max_row_bytes + 1):
        number += 1
        total += len(data)
        if len(data) > max_row_bytes:
            raise InputError(
                f"{name}:{number}: the line is longer than {max_row_bytes / 2**20:g} MB. Put one row on a line."
            )
        if total > max_total_bytes:
            raise InputError(f"{name} holds more than {max_total_bytes / 2**30:g} GB. Split it.")
        if number > 1 and data.startswith(b"\xef\xbb\xbf"):
            raise InputError(f"{name}:{number}: a byte order mark in the middle of the file. Remove it.")
        if takes is None or takes(number):
            yield number, data


_Decode = Callable[[int, bytes], str]


def _json_rows(
    lines: Iterable[tuple[int, bytes]], name: str, decode: _Decode, *, keep_going: bool
) -> Iterator[LocatedRow]:
    for number, data in lines:
        where = f"{name}:{number}"
        try:
            line = decode(number, data)
            if line.strip():
                yield LocatedRow(_json_row(line, where, number), where, number)
        except InputError as error:
            if not keep_going:
                raise
            yield LocatedRow({}, where, number, error=error)


def _json_row(line: str, where: str, number: int) -> dict[str, Any]:
    try:
        values = _DECODER.decode(line)
    except json.JSONDecodeError as error:
        hint = " Turn a JSON list into lines with `jq -c '.[]'`." if number == 1 and line.lstrip()[0] == "[" else ""
        raise InputError(
            f"{where}: not a JSON object: {error.msg} at character {error.pos + 1}. Each line holds one "
            f"whole object.{hint}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not a usable JSON object: {error}.") from error
    if not isinstance(values, dict):
        hint = " Turn a JSON list into lines with `jq -c '.[]'`." if isinstance(values, list) else ""
        raise InputError(f"{where}: a JSON {type(values).__name__}, not an object.{hint}")
    _check_strings(values, where)
    return values


def json_list_rows(text: str, name: str) -> list[LocatedRow] | None:
    """Read a whole JSON file that is a list of objects as rows.

    Args:
        text: The file's text.
        name: What it is called in errors and places, such as ``data.json: item 2``.

    Returns:
        The rows; None where the file is no JSON, or holds something else.

    Raises:
        InputError: An object cannot be used.
    """
    try:
        values = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant, parse_float=_finite)
    except json.JSONDecodeError:
        return None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: not usable JSON: {error}.") from error
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        return None
    _check_strings(values, name)
    return [LocatedRow(value, f"{name}: item {number}", number) for number, value in enumerate(values, start=1)]


class _Record:
    """Bounds a CSV record: one quote that is not closed makes one cell of the whole rest of a file.

    Attributes:
        error: Why a line of the record could not be read.
        newline: Line end of the first line.
    """

    def __init__(self, name: str, max_bytes: int) -> None:
        self._name = name
        self._max = max_bytes
        self._chars = 0
        self.error: InputError | None = None
        self.newline = "\n"

    def begin(self) -> None:
        """Begin a new record."""
        self._chars = 0
        self.error = None

    def lines(self, lines: Iterable[tuple[int, bytes]], decode: _Decode, *, keep_going: bool) -> Iterator[str]:
        """Hand on the lines, decoded."""
        for number, data in lines:
            if number == 1 and data.endswith(b"\r\n"):
                self.newline = "\r\n"
            try:
                line = decode(number, data)
            except InputError as error:
                if not keep_going or number == 1:
                    raise
                self.error, line = error, data.decode("ascii", "replace")
            self._chars += len(line)
            if self._chars > self._max:
                raise InputError(
                    f"{self._name}:{number}: the row is longer than {self._max / 2**20:g} MB: is there a quote that is "
                    "not closed?"
                )
            yield line


def _table_rows(
    lines: Iterator[tuple[int, bytes]],
    name: str,
    kind: RowFormat,
    fields: Sequence[Field] | None,
    decode: _Decode,
    *,
    max_record_bytes: int,
    keep_going: bool,
) -> Iterator[LocatedRow]:
    by_name = {column.name: column for column in fields or ()}
    # The reader's limit belongs to the whole process; the length of a line is bounded by _lines.
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))
    first = next(lines, None)
    if first is None:
        return
    marked = first[1].startswith(codecs.BOM_UTF8)
    record = _Record(name, max_record_bytes)
    texts = record.lines(chain([first], lines), decode, keep_going=keep_going)
    skipped, delimiter = 0, "\t"
    if kind == "tsv":
        reader = csv.reader(texts, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        top = next(texts)
        if (said := top.strip().lower()).startswith("sep=") and len(said) == 5:
            # A line of Excel's own before the header.
            delimiter, skipped = said[4], 1
        else:
            delimiter, texts = _delimiter(top, by_name), chain([top], texts)
        reader = csv.reader(texts, strict=True, delimiter=delimiter)
    table: Table | None = None
    first_line = 1 + skipped
    try:
        for cells in reader:
            where, number, error = f"{name}:{first_line}", first_line, record.error
            record.begin()
            first_line = reader.line_num + 1 + skipped
            if not cells:
                continue
            if table is None:
                header = [cell.strip() for cell in cells]
                if len(set(header)) < len(header) or not all(header):
                    raise InputError(f"{where}: the header {shown(header)} has an empty or repeated column name.")
                table = Table(kind, tuple(header), delimiter, record.newline, marked)
                continue
            try:
                if error is not None:
                    raise error
                yield _table_row(cells, table, by_name, where, number)
            except InputError as failure:
                if not keep_going:
                    raise
                yield LocatedRow({}, where, number, table, dict(zip(table.columns, cells, strict=False)), failure)
    except csv.Error as error:
        if "new-line character" in str(error):
            raise InputError(
                f"{name}:{first_line}: its lines end in carriage returns alone. Make line feeds of them, as "
                "`tr '\\r' '\\n'` does."
            ) from error
        raise InputError(f"{name}:{first_line}: not well-formed {kind.upper()}: {error}.") from error


def _delimiter(header: str, names: Collection[str]) -> str:
    """Return what stands between the columns of a CSV file: Excel writes semicolons where the comma is in numbers."""

    def fits(delimiter: str) -> tuple[int, bool]:
        cells: list[str] = []
        with contextlib.suppress(csv.Error):
            cells = next(csv.reader([header.rstrip("\r\n")], delimiter=delimiter), [])
        return sum(cell.strip() in names for cell in cells), len(cells) > 1

    return max(",;\t", key=fits)


def _table_row(cells: list[str], table: Table, by_name: dict[str, Field], where: str, number: int) -> LocatedRow:
    if len(cells) != len(table.columns):
        named = shortened(", ".join(table.columns))
        raise InputError(f"{where}: {len(cells)} cells, but the header names {len(table.columns)} columns: {named}.")
    raw = dict(zip(table.columns, cells, strict=True))
    read = {name: unquoted(cell) for name, cell in raw.items()} if table.kind == "tsv" else raw
    return LocatedRow(_typed(read, by_name, where), where, number, table, raw)


def unquoted(cell: str) -> str:
    """Return a cell of a TSV file without the quotes that Excel puts around one that holds quotes, which it doubles."""
    inner = cell[1:-1]
    if cell[:1] == cell[-1:] == '"' and '""' in inner and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return cell


def _typed(values: dict[str, Any], by_name: dict[str, Field], where: str) -> dict[str, Any]:
    typed = {key: read_cell(cell, by_name.get(key), f"{where}: {key!r}") for key, cell in values.items()}
    return {key: value for key, value in typed.items() if value is not ABSENT}


ABSENT: Any = object()
"""What an empty cell of a column is that need not be there."""


def read_cell(cell: str, column: Field | None, where: str) -> Any:
    """Return what a cell of a table says for a column of a task.

    Args:
        cell: The cell.
        column: The column; None for one that no task knows.
        where: File, line and name of the cell, for errors.

    Returns:
        The text, what JSON it holds for a list or a mapping, or `ABSENT`.

    Raises:
        InputError: It is no text, or not the JSON that the column needs.
    """
    check_text(cell, where=where)
    if column is None or (cell and column.kind not in (list, dict)):
        return cell
    if not cell and not column.required:
        return ABSENT
    if column.kind not in (list, dict):
        return cell
    try:
        value = json.loads(cell, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is {cell[:80]!r}; in a table it must be a JSON {column.kind.__name__}.") from error
    _check_strings(value, where)
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shown(twice)} occurs twice")
    return values


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(number: str) -> float:
    """Read a number; one that is too large, such as 1e999, would be infinity, which no result could hold."""
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"the number {shown(number, 60)} is too large")
    return value


# Made once: `json.loads` makes one for each row.
_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_no_constant, parse_float=_finite)


def _check_strings(value: Any, where: str) -> None:
    """Refuse what JSON can spell and a text cannot hold, anywhere in a row: lone surrogates and NUL characters."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if "\0" in item:
                raise InputError(f"{where}: a string holds a NUL character: that is not a text.")
            try:
                item.encode("utf-8")
            except UnicodeEncodeError as error:
                raise InputError(
                    f"{where}: a string holds the lone surrogate U+{ord(item[error.start]):04X}."
                ) from error
        elif isinstance(item, dict):
            stack.extend(item.keys())
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
