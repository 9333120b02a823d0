"""Data rows: JSON Lines, CSV and TSV, read as a stream, each bad row named by file and line."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal

from nlpkit.apps.documents.files import check_text, decode_text, display_name, open_input
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
class Row:
    """One data row.

    Attributes:
        values: Column name to value.
        where: Where it came from, such as ``data.jsonl:7``.
        line: Its line (its first line, for a CSV cell with line breaks), from 1.
    """

    values: dict[str, Any]
    where: str
    line: int


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
) -> Iterator[Row]:
    """Read the rows of one file, one at a time. It is UTF-8; gzip is seen through; blank lines are skipped.

    CSV follows RFC 4180 with a header line. TSV has a header line and no quoting, as its media type says.
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

    Yields:
        The rows, in order.

    Raises:
        InputError: The file cannot be read, or a row is not well formed. Whether a row has what a task needs
            is `nlpkit.apps.tasks.task.check_example`'s business.
    """
    kind = kind or row_format(path) or "jsonl"
    name = display_name(path)
    seen: dict[Any, int] = {}
    with open_input(path) as stream:
        lines = _lines(stream, name, max_row_bytes=max_row_bytes, max_total_bytes=max_total_bytes, takes=takes)
        rows = (
            _json_rows(lines, name)
            if kind == "jsonl"
            else _table_rows(lines, name, kind, fields, max_record_bytes=max_row_bytes)
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


def _lines(
    stream: IO[bytes],
    name: str,
    *,
    max_row_bytes: int,
    max_total_bytes: int,
    takes: Callable[[int], bool] | None,
) -> Iterator[tuple[int, str]]:
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
            yield number, decode_text(data, where=f"{name}:{number}")


def _json_rows(lines: Iterable[tuple[int, str]], name: str) -> Iterator[Row]:
    for number, line in lines:
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            values = json.loads(line, object_pairs_hook=_unique_keys, parse_constant=_no_constant, parse_float=_finite)
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
        yield Row(values, where, number)


class _Record:
    """Bounds a CSV record: one quote that is not closed makes one cell of the whole rest of a file."""

    def __init__(self, name: str, max_bytes: int) -> None:
        self._name = name
        self._max = max_bytes
        self._chars = 0

    def begin(self) -> None:
        """Begin a new record."""
        self._chars = 0

    def lines(self, lines: Iterable[tuple[int, str]]) -> Iterator[str]:
        """Hand on the lines."""
        for number, line in lines:
            self._chars += len(line)
            if self._chars > self._max:
                raise InputError(
                    f"{self._name}:{number}: the row is longer than {self._max / 2**20:g} MB: is there a quote that is "
                    "not closed?"
                )
            yield line


def _table_rows(
    lines: Iterable[tuple[int, str]],
    name: str,
    kind: RowFormat,
    fields: Sequence[Field] | None,
    *,
    max_record_bytes: int,
) -> Iterator[Row]:
    by_name = {column.name: column for column in fields or ()}
    # The reader's limit belongs to the whole process; the length of a line is bounded by _lines.
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))
    record = _Record(name, max_record_bytes)
    texts = record.lines(lines)
    if kind == "tsv":
        reader = csv.reader(texts, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(texts, strict=True)
    header: list[str] | None = None
    first_line = 1
    try:
        for cells in reader:
            where, number = f"{name}:{first_line}", first_line
            record.begin()
            first_line = reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                if len(set(header)) < len(header) or not all(header):
                    raise InputError(f"{where}: the header {shown(header)} has an empty or repeated column name.")
                continue
            if len(cells) != len(header):
                named = shortened(", ".join(header))
                raise InputError(f"{where}: {len(cells)} cells, but the header names {len(header)} columns: {named}.")
            values: dict[str, Any] = dict(zip(header, cells, strict=True))
            yield Row(_typed(values, by_name, where), where, number)
    except csv.Error as error:
        raise InputError(f"{name}:{first_line}: not well-formed {kind.upper()}: {error}.") from error


def _typed(values: dict[str, Any], by_name: dict[str, Field], where: str) -> dict[str, Any]:
    typed: dict[str, Any] = {}
    for key, cell in values.items():
        check_text(cell, where=f"{where}: {key!r}")
        column = by_name.get(key)
        if column is not None and not cell and not column.required:
            continue
        if column is not None and column.kind in (list, dict):
            try:
                typed[key] = json.loads(cell, parse_constant=_no_constant, parse_float=_finite)
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"{where}: {key!r} is {cell[:80]!r}; in a table it must be a JSON {column.kind.__name__}."
                ) from error
        else:
            typed[key] = cell
    return typed


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


def _check_strings(value: Any, where: str) -> None:
    """Refuse lone surrogates, which JSON can spell and UTF-8 cannot, anywhere in a row."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
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
