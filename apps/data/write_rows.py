"""Writes data rows back with what a task made of them: JSON Lines, CSV and TSV."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nlpkit.apps.data.rows import RowFormat, Table, unquoted

PREDICTION = "prediction"
"""Column of the result; further ones of the same row are ``prediction_2`` and so on."""

ERROR = "error"
"""Column that says why a row failed."""

_BREAKS = re.compile(r"[\t\r\n]+")


@dataclass(frozen=True, kw_only=True)
class RowWriter:
    r"""Renders rows in one format, each with all columns that it was read with.

    Attributes:
        kind: The format.
        columns: Names of all columns of the input, in order.
        results: Number of results a row.
        errors: Whether there is a column `ERROR`.
        delimiter: What stands between the cells of CSV.
        newline: Line end.
        marked: Whether to begin with a byte order mark.
    """

    kind: RowFormat
    columns: tuple[str, ...]
    results: int = 1
    errors: bool = False
    delimiter: str = ","
    newline: str = "\n"
    marked: bool = False

    @staticmethod
    def build(
        kind: RowFormat, tables: Sequence[Table], columns: Sequence[str], *, results: int, errors: bool
    ) -> RowWriter:
        """Return a writer that keeps to the ways of the first table of the same format among the inputs."""
        alike = next((table for table in tables if table.kind == kind), None)
        style = {"delimiter": alike.delimiter, "newline": alike.newline, "marked": alike.marked} if alike else {}
        return RowWriter(kind=kind, columns=tuple(columns), results=results, errors=errors, **style)  # type: ignore[arg-type]

    @property
    def added(self) -> tuple[str, ...]:
        """Names of the columns that are added, or that replace one of the input."""
        names = [PREDICTION if number == 1 else f"{PREDICTION}_{number}" for number in range(1, self.results + 1)]
        return (*names, *([ERROR] if self.errors else []))

    def header(self) -> str:
        """Return what stands before the first row."""
        if self.kind == "jsonl":
            return ""
        kept = [name for name in self.columns if name not in self.added]
        return ("\ufeff" if self.marked else "") + self._line([*kept, *self.added])

    def row(
        self,
        values: Mapping[str, Any],
        predictions: Sequence[str],
        *,
        cells: Mapping[str, str] | None = None,
        table: Table | None = None,
        error: str | None = None,
    ) -> str:
        """Render one row.

        Args:
            values: The row as it was read.
            predictions: Its results, at most `results`; empty ones are added.
            cells: Its cells as they stand in a table, which are written as they are.
            table: That table.
            error: Why it failed.

        Returns:
            One line, or more where a cell of CSV holds line breaks.
        """
        texts = [*predictions, *[""] * (self.results - len(predictions))]
        results: dict[str, Any] = dict(zip(self.added, texts, strict=False))
        if self.errors:
            results[ERROR] = error
        if self.kind == "jsonl":
            return json.dumps({**values, **results}, ensure_ascii=False, allow_nan=False) + "\n"
        given = cells if cells else values
        if cells and table is not None and table.kind == "tsv" and self.kind == "csv":
            given = {name: unquoted(cell) for name, cell in cells.items()}
        kept = [given.get(name) for name in self.columns if name not in results]
        return self._line([*kept, *results.values()])

    def _line(self, values: Sequence[Any]) -> str:
        cells = [_cell(value) for value in values]
        if self.kind == "tsv":
            # TSV has no way to spell a tab or a line break.
            return "\t".join(_BREAKS.sub(" ", cell) for cell in cells) + self.newline
        text = io.StringIO()
        csv.writer(text, delimiter=self.delimiter, lineterminator=self.newline).writerow(cells)
        return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
