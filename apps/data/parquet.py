"""Readers of other people's formats: SQuAD JSON, parallel text files, parquet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from nlpkit.apps.data.rows import Located
from nlpkit.core.errors import ConfigError, InputError, NlpkitError, did_you_mean

SUFFIXES = {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt"}
"""Ends of file names that say nothing about what is inside."""

MAX_SQUAD_BYTES = 2**30
"""Largest SQuAD file: one JSON value, which must be read whole."""

_SPLIT = re.compile(r"^(?P<split>[A-Za-z_]+?)(?:[-_]?\d+(?:-of-\d+)?)?$")


def parquet_files(path: str, split: str | None) -> list[Path]:
    """Return the parquet files of a path, sorted.

    Args:
        path: A file, or a folder as ``datasets`` repositories have it: ``train-00000-of-00002.parquet``, ``data/...``
            or ``train/0000.parquet``.
        split: Which split of a folder; None where it has only one.

    Raises:
        InputError: There are none.
        ConfigError: There are several splits and none was chosen, or not one that there is.
    """
    root = Path(path)
    if not root.is_dir():
        if split:
            raise ConfigError(f"--split {split} goes with a folder, and {path} is one file. Leave it out.")
        return [root]
    by_split: dict[str, list[Path]] = {}
    for file in sorted(root.rglob("*.parquet")):
        by_split.setdefault(_split_of(file, root), []).append(file)
    if not by_split:
        raise InputError(f"The folder {path} holds no .parquet file. Name the folder of the data set's parquet files.")
    if split is None:
        if len(by_split) > 1:
            raise ConfigError(f"{path} has several splits: {', '.join(by_split)}. Choose one with --split.")
        return next(iter(by_split.values()))
    if split not in by_split:
        raise ConfigError(f"{path} has no split {split!r}. {did_you_mean(split, by_split)}")
    return by_split[split]


def _split_of(file: Path, root: Path) -> str:
    match = _SPLIT.match(file.stem)
    if match:
        return match["split"]
    return file.parent.name if file.parent != root else "all"


def read_parquet(path: str, split: str | None) -> Iterator[Located]:
    """Read parquet files in batches.

    Args:
        path: As `parquet_files`.
        split: As `parquet_files`.

    Yields:
        The rows, nested columns as dictionaries and lists.

    Raises:
        ConfigError: pyarrow is not installed, or the split is wrong.
        InputError: A file is missing or damaged.
    """
    files = parquet_files(path, split)
    try:
        import pyarrow.parquet as parquet  # type: ignore[import-not-found,unused-ignore]
        from pyarrow.lib import ArrowException  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise ConfigError(
            f"Reading {path} needs the package pyarrow, which is not installed. Install it with: pip install "
            "'nlpkit[parquet]'."
        ) from error
    for file in files:
        number = 0
        try:
            if not file.is_file():
                raise InputError(f"There is no file {str(file)!r}. Check the spelling and the current folder.")
            with parquet.ParquetFile(file) as reader:
                for batch in reader.iter_batches(batch_size=1024):
                    for row in batch.to_pylist():
                        number += 1
                        yield row, f"{file}:{number}"
        except NlpkitError:
            raise
        except (ArrowException, OSError) as error:
            raise InputError(f"{file} is not a usable parquet file: {error}. Get it again.") from error
