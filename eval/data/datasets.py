"""Loading test data: our JSONL, CSV and TSV, SQuAD JSON, pairs of text files, and parquet, all as rows of a task."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from nlpkit.apps.data import parallel, parquet, squad
from nlpkit.apps.data.columns import mapped
from nlpkit.apps.data.rows import read_rows, row_format
from nlpkit.apps.tasks.rows import Prepared, prepare_row, resolve_aliases
from nlpkit.apps.tasks.task import Field, Row, Task
from nlpkit.core.errors import ConfigError, InputError, NlpkitError, did_you_mean
from nlpkit.core.files.hashing import hash_value

DataFormat = Literal["auto", "jsonl", "csv", "tsv", "squad", "text", "parquet"]


@dataclass(frozen=True)
class DataRow:
    """One row to evaluate.

    Attributes:
        index: Its position in the data, from 0.
        id: Its ``id``, or its index as text.
        example: The row by the task's column names, or the error of a row that cannot be used.
        where: File and line, for errors.
        sha256: Hash of the example.
        prepared: What the task prepared of it; None of a row that cannot be used.
    """

    index: int
    id: str
    example: Row | NlpkitError
    where: str
    sha256: str
    prepared: Prepared[Any] | None = None


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How to read data.

    Attributes:
        format: ``auto`` goes by the file's name and first bytes.
        references: For plain text: files with one reference a line.
        columns: Task column to the data's own column; dots reach into nested ones (``translation.en``).
        values: Columns that all rows share, such as ``target_lang``.
        split: Which split of a folder of parquet files.
    """

    format: DataFormat = "auto"
    references: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    split: str | None = None


@dataclass(frozen=True)
class Dataset:
    """Rows with their origin.

    Attributes:
        name: Short name for folders and tables.
        format: What the data were read as.
        files: ``path``, ``bytes`` and ``sha256`` of each file, as read.
        rows: The rows.
        n_rows: How many rows the data have, before any selection.
        selection: What was taken of them: ``limit``, ``shard`` and so on; empty for all.
    """

    name: str
    format: str
    files: tuple[dict[str, Any], ...]
    rows: tuple[DataRow, ...]
    n_rows: int
    selection: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Hash of the selected rows: index and content."""
        return hash_value([[row.index, row.sha256] for row in self.rows])

    def describe(self) -> dict[str, Any]:
        """Return what a run record says about the data."""
        return {
            "name": self.name,
            "format": self.format,
            "files": [dict(file) for file in self.files],
            "rows_in_data": self.n_rows,
            "rows": len(self.rows),
            "sha256": self.sha256,
            "selection": dict(self.selection),
        }

    def select(self, keep: Callable[[DataRow], bool], note: Mapping[str, Any]) -> Dataset:
        """Keep some rows.

        Args:
            keep: Whether to keep a row.
            note: What to write into `selection`.

        Raises:
            InputError: No row is left.
        """
        rows = tuple(row for row in self.rows if keep(row))
        if not rows:
            what = ", ".join(f"{name} {value}" for name, value in note.items() if not isinstance(value, (dict, list)))
            raise InputError(f"Of the {len(self.rows)} rows of {self.name} none is left ({what}). Choose more rows.")
        return replace(self, rows=rows, selection={**self.selection, **note})

    def limit(self, n: int) -> Dataset:
        """Keep the first rows.

        Raises:
            ConfigError: `n` is below 1.
        """
        if n < 1:
            raise ConfigError(f"The limit is {n}; it must be at least 1.")
        chosen = {row.index for row in self.rows[:n]}
        return self.select(lambda row: row.index in chosen, {"limit": n})

    def shard(self, number: int, count: int) -> Dataset:
        """Keep every `count`-th row, beginning with row `number` (from 1).

        Raises:
            ConfigError: There is no such shard.
        """
        if not 1 <= number <= count:
            raise ConfigError(f"There is no shard {number} of {count}. Shards are 1/{count} to {count}/{count}.")
        chosen = {row.index for row in self.rows[number - 1 :: count]}
        return self.select(lambda row: row.index in chosen, {"shard": f"{number}/{count}"})


def load_dataset(
    paths: Sequence[str], task: Task[Any], *, options: DataOptions | None = None, keep_going: bool = False
) -> Dataset:
    """Read data for a task. All rows are checked before anything runs.

    Args:
        paths: Files, or one folder of parquet files. Standard input cannot be read again, and so not be resumed.
        task: The task.
        options: How to read.
        keep_going: Keep rows that the task cannot use, with their error, instead of refusing the data.

    Returns:
        The data.

    Raises:
        InputError: A file cannot be read, a row is malformed or not fit for the task, or there are none.
        ConfigError: The options contradict each other or the data.
    """
    options = options or DataOptions()
    if not paths:
        raise ConfigError("There are no data. Name a file with --data.")
    known = {column.name for column in task.fields}
    unknown = next((name for name in (*options.columns, *options.values) if known and name not in known), None)
    if unknown is not None and unknown != "id":
        raise ConfigError(f"{task.name} rows have no column {unknown!r}. {did_you_mean(unknown, known)}")
    rows: list[DataRow] = []
    kinds: list[str] = []
    files: list[dict[str, Any]] = []
    for path in paths:
        kind, pieces = _open(path, task, options)
        kinds.append(kind)
        for values, where in pieces:
            rows.append(_row(len(rows), values, where, task, options, keep_going=keep_going))
        files += [describe_file(file) for file in _files(path, kind, options)]
    if not rows:
        raise InputError(f"{', '.join(paths)} holds no rows.")
    first = Path(paths[0])
    name = (
        first.name.removesuffix(".gz") if kinds[0] != "parquet" else "-".join(filter(None, [first.name, options.split]))
    )
    stem = Path(name).stem if Path(name).suffix.lower() in parquet.SUFFIXES else name
    return Dataset(stem or "data", "+".join(dict.fromkeys(kinds)), tuple(files), tuple(rows), len(rows))


def describe_file(path: str | Path) -> dict[str, Any]:
    """Return path, size and sha256 of a file.

    Raises:
        InputError: It cannot be read.
    """
    digest = hashlib.sha256()
    size = 0
    try:
        with Path(path).open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
                size += len(block)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    return {"path": str(path), "bytes": size, "sha256": digest.hexdigest()}


def _files(path: str, kind: str, options: DataOptions) -> list[str | Path]:
    if kind == "parquet":
        return list(parquet.parquet_files(path, options.split))
    return [path, *(options.references if kind == "text" else ())]


def detect_format(path: str, options: DataOptions) -> str:
    """Tell what a file is, by its name, and for JSON and text by what was asked for.

    Raises:
        ConfigError: It cannot be told.
    """
    if options.format != "auto":
        return options.format
    if path == "-":
        raise ConfigError(
            "Data for an evaluation cannot come from standard input: a run that stops could not be taken up again. "
            "Save them to a file."
        )
    if Path(path).is_dir() or path.lower().endswith(".parquet"):
        return "parquet"
    kind = row_format(path)
    if kind is not None:
        return kind
    if path.lower().removesuffix(".gz").endswith(".json"):
        return "squad"
    if options.references:
        return "text"
    raise ConfigError(
        f"What kind of data {path!r} is cannot be told from its name. Name it .jsonl, .csv, .tsv, .json (SQuAD) or "
        ".parquet, or give --format; for plain text, a segment a line, give the reference file with --references."
    )


def _open(path: str, task: Task[Any], options: DataOptions) -> tuple[str, Iterable[tuple[dict[str, Any], str]]]:
    kind = detect_format(path, options)
    if kind != "text" and options.references:
        raise ConfigError(f"--references goes with plain text only, and {path} is read as {kind}. Leave it out.")
    if kind != "parquet" and options.split:
        raise ConfigError(f"--split goes with folders of parquet files only, and {path} is read as {kind}.")
    if kind == "squad":
        return kind, squad.read_squad(path)
    if kind == "parquet":
        return kind, parquet.read_parquet(path, options.split)
    if kind == "text":
        source, reference = _text_columns(task)
        return kind, parallel.read_parallel(path, options.references, source=source, reference=reference)
    # A column that is taken from another one may hold anything.
    fields = [column for column in task.fields if column.name not in options.columns]
    return kind, _table(path, kind, fields)


def _table(path: str, kind: str, fields: Sequence[Field]) -> Iterator[tuple[dict[str, Any], str]]:
    rows = read_rows(path, fields=fields, kind=kind, unique="id")  # type: ignore[arg-type]
    for row in rows:
        yield row.values, row.where


def _text_columns(task: Task[Any]) -> tuple[str, str]:
    # What one line cannot hold is a list, or a second text.
    first = next((column for column in task.fields if column.role == "reference"), None)
    others = [column for column in task.fields if column.role == "text" and column.required][1:]
    if first is None or first.kind is not str or others:
        raise ConfigError(f"{task.name} rows have more columns than lines of text can hold. Give JSONL.")
    return task.text_field, first.name


def _row(
    index: int, values: Mapping[str, Any], where: str, task: Task[Any], options: DataOptions, *, keep_going: bool
) -> DataRow:
    row: Row | NlpkitError
    prepared = None
    try:
        example = _map(values, task, options, where)
        try:
            prepared = prepare_row(task, example, where=where)
        except NlpkitError as error:
            raise error if str(error).startswith(where) else InputError(f"{where}: {error}") from error
        row = example
    except NlpkitError as error:
        if not keep_going:
            raise
        row, example = error, dict(values)
    given = example.get("id")
    name = str(given) if isinstance(given, (str, int)) and str(given) else str(index)
    return DataRow(index, name, row, where, hash_value(example), prepared)


def _map(values: Mapping[str, Any], task: Task[Any], options: DataOptions, where: str) -> dict[str, Any]:
    row = resolve_aliases(task.fields, mapped(values, where, fields=task.fields, columns=options.columns))
    if {"source", "target", "source_lang", "target_lang"} <= {column.name for column in task.fields}:
        row = _language_pair(row, options)
    for entry in task.fields:
        value = row.get(entry.name)
        if entry.kind is list and isinstance(value, Mapping) and "text" in value:
            # SQuAD as the hub stores it: {"text": [...], "answer_start": [...]}
            row[entry.name] = list(value["text"])
    for column, value in options.values.items():
        row[column] = value
    return row


def _language_pair(row: dict[str, Any], options: DataOptions) -> dict[str, Any]:
    """Read WMT data as the hub stores them: ``{"translation": {"de": ..., "en": ...}}``."""
    pair = row.get("translation")
    target = options.values.get("target_lang")
    if "source" in row or not isinstance(pair, Mapping) or len(pair) != 2 or target not in pair:
        return row
    source = next(name for name in pair if name != target)
    rest = {name: value for name, value in row.items() if name != "translation"}
    return {**rest, "source": pair[source], "target": pair[target], "source_lang": source, "target_lang": target}
