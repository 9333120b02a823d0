"""Rows of tables that people hand in: with commas, or with tabs, where quotes mean nothing and each row is a line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from nlpkit.apps.documents.files import decode_text, display_name, read_bytes
from nlpkit.core.errors import InputError

MAX_BYTES = 512 * 2**20
"""Largest table that is read."""


def read_table(
    path: str, *, headers: frozenset[str] = frozenset(), encoding: str = "utf-8"
) -> Iterator[tuple[int, list[str]]]:
    """Yield line and cells of the rows of a file, as `table_rows`.

    Args:
        path: The file: CSV if it is named so, else with tabs.
        headers: As `table_rows`.
        encoding: Its encoding.

    Raises:
        InputError: It cannot be read.
    """
    name = display_name(path)
    text = decode_text(read_bytes(path, max_bytes=MAX_BYTES), encoding=encoding, where=name)
    delimiter = "," if path.lower().removesuffix(".gz").endswith(".csv") else "\t"
    yield from table_rows(text, name, delimiter=delimiter, headers=headers)


def table_rows(
    text: str, name: str, *, delimiter: str, headers: frozenset[str] = frozenset()
) -> Iterator[tuple[int, list[str]]]:
    """Yield line and cells of the rows of a table.

    Blank rows are left out, and so are rows that begin with ``#``, but for those below a line that names the columns:
    there, what begins so is what it says.

    Args:
        text: The table.
        name: What it is called in errors.
        delimiter: What stands between cells.
        headers: Names of columns, in small letters; a first row with one of them names the columns.

    Raises:
        InputError: It is damaged.
    """
    stream = io.StringIO(text, newline="")
    if delimiter == "\t":
        reader = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    else:
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
    first, comments = True, True
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            begin = row[0] if delimiter == "\t" else row[0].lstrip()
            if comments and begin.startswith("#"):
                continue
            if first:
                comments = headers.isdisjoint(cell.strip().strip('"').lower() for cell in row)
            first = False
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{name}:{reader.line_num}: the table is damaged ({error}). Mend the line.") from error
