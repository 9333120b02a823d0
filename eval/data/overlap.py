"""Overlap of data files: which test rows share long runs of words with the training data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nlpkit.apps.data.parallel import read_lines
from nlpkit.apps.data.parquet import read_parquet
from nlpkit.apps.data.rows import Located, read_rows, row_format
from nlpkit.apps.data.squad import read_squad
from nlpkit.core.errors import ConfigError, InputError
from nlpkit.eval.data.columns import option_names
from nlpkit.eval.data.contamination import DEFAULT_ORDERS, OverlapReport, find_overlap
from nlpkit.eval.data.datasets import describe_file
from nlpkit.eval.metrics.text import unicode_tokens

SKIPPED = frozenset({"id", "lang", "label", "labels"})
"""Columns that hold no text, whatever the task; the options of all tasks hold none either."""


@dataclass(frozen=True)
class OverlapText:
    """One text of a row.

    Attributes:
        row: Index of the row.
        column: Where it stands in the row; empty for a line of a text file.
        text: The text.
    """

    row: int
    column: str
    text: str


def read_any(path: str) -> Iterator[Located]:
    """Read the rows of a file of any known kind; lines of plain text are rows with a ``text``.

    Raises:
        InputError: It cannot be read.
    """
    kind = row_format(path)
    if kind is not None:
        for row in read_rows(path):
            yield row.values, row.where
    elif path.lower().removesuffix(".gz").endswith(".json"):
        yield from read_squad(path)
    elif path.lower().endswith(".parquet"):
        yield from read_parquet(path, None)
    else:
        for number, line in enumerate(read_lines(path), 1):
            yield {"text": line}, f"{path}:{number}"


def row_texts(row: int, values: Mapping[str, Any], columns: Sequence[str] = ()) -> Iterator[OverlapText]:
    """Yield the texts of a row: strings and lists of strings.

    Args:
        row: Index of the row.
        values: The row.
        columns: Only these; by default all but ids, languages and labels.
    """
    skipped = SKIPPED | option_names()
    for name, value in values.items():
        if (columns and name not in columns) or (not columns and name in skipped):
            continue
        for text in [value] if isinstance(value, str) else value if isinstance(value, (list, tuple)) else ():
            if isinstance(text, str) and text.strip():
                yield OverlapText(row, name, text)


def _train_texts(paths: Sequence[str], columns: Sequence[str]) -> Iterator[str]:
    for path in paths:
        for values, _ in read_any(path):
            for text in row_texts(0, values, columns):
                yield text.text


@dataclass(frozen=True)
class DataOverlap:
    """The overlap of test rows with training files.

    Attributes:
        reports: One for each n-gram length, over the texts.
        texts: The texts that the reports number.
        ids: Ids of the test rows.
        train: Path and hash of each training file.
    """

    reports: tuple[OverlapReport, ...]
    texts: tuple[OverlapText, ...]
    ids: tuple[str, ...]
    train: tuple[dict[str, Any], ...]

    def rows(self, n: int) -> frozenset[int]:
        """Return the indices of the rows that share an n-gram of this length.

        Raises:
            ConfigError: This length was not looked for.
        """
        for report in self.reports:
            if report.n == n:
                return frozenset(self.texts[index].row for index in report.indices)
        raise ConfigError(
            f"There is no report for {n}-grams; there is one for {[report.n for report in self.reports]}."
        )

    def summary(self) -> list[dict[str, Any]]:
        """Return the counts for each n-gram length, JSON-ready."""
        found = []
        for report in self.reports:
            rows = self.rows(report.n)
            columns: dict[str, set[int]] = {}
            for index in report.indices:
                columns.setdefault(self.texts[index].column, set()).add(self.texts[index].row)
            long_enough = self._rows_long_enough(report)
            found.append(
                {
                    "n": report.n,
                    "rows": len(self.ids),
                    "overlapping": len(rows),
                    "share": len(rows) / len(self.ids) if self.ids else 0.0,
                    "too_short": len(self.ids) - long_enough,
                    "by_column": {name: len(members) for name, members in sorted(columns.items())},
                    "train_texts": report.n_train,
                }
            )
        return found

    def _rows_long_enough(self, report: OverlapReport) -> int:
        return len({text.row for text in self.texts if len(unicode_tokens(text.text)) >= report.n})

    def details(self) -> Iterator[dict[str, Any]]:
        """Yield each overlapping text: row, column, how much of it is shared, and the first shared n-gram."""
        for report in self.reports:
            for row in report.rows:
                text = self.texts[row.index]
                yield {
                    "n": report.n,
                    "index": text.row,
                    "id": self.ids[text.row],
                    "column": text.column,
                    "coverage": round(row.coverage, 4),
                    "ngrams": len(row.hits),
                    "example": row.hits[0].ngram,
                }


def data_overlap(
    train: Sequence[str],
    rows: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    columns: Sequence[str] = (),
    orders: Sequence[int] = DEFAULT_ORDERS,
) -> DataOverlap:
    """Compare test rows with training files.

    Args:
        train: Training files: rows or plain text.
        rows: Id and values of each test row.
        columns: Only these columns of both.
        orders: Lengths of the n-grams.

    Returns:
        The overlap.

    Raises:
        InputError: A file cannot be read, or the test rows hold no text.
        ConfigError: An n-gram length is below 1.
    """
    texts = tuple(text for index, (_, values) in enumerate(rows) for text in row_texts(index, values, columns))
    if not texts:
        what = f" in the columns {', '.join(columns)}" if columns else ""
        raise InputError(f"The test rows hold no text{what}. Name the columns to look at with --column.")
    reports = find_overlap(
        _train_texts(train, columns), [text.text for text in texts], orders=tuple(dict.fromkeys(orders))
    )
    return DataOverlap(reports, texts, tuple(name for name, _ in rows), tuple(describe_file(path) for path in train))


def read_test_rows(paths: Sequence[str]) -> list[tuple[str, Mapping[str, Any]]]:
    """Read test files as `data_overlap` wants them.

    Raises:
        InputError: A file cannot be read, or there are no rows.
    """
    rows: list[tuple[str, Mapping[str, Any]]] = []
    for path in paths:
        for values, _ in read_any(path):
            name = values.get("id")
            rows.append((str(len(rows)) if name is None else str(name), values))
    if not rows:
        raise InputError(f"{', '.join(paths)} holds no rows.")
    return rows
