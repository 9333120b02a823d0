"""Readers of other people's formats: SQuAD JSON, parallel text files, parquet."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nlpkit.apps.files import decode_text, open_input, read_bytes
from nlpkit.core.errors import ConfigError, InputError, NlpkitError, did_you_mean

Located = tuple[dict[str, Any], str]
"""A row and where it came from."""

SUFFIXES = {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt"}
"""Ends of file names that say nothing about what is inside."""

MAX_SQUAD_BYTES = 2**30
"""Largest SQuAD file: one JSON value, which must be read whole."""

_SPLIT = re.compile(r"^(?P<split>[A-Za-z_]+?)(?:[-_]?\d+(?:-of-\d+)?)?$")


def read_squad(path: str) -> Iterator[Located]:
    """Read SQuAD JSON (v1.1, v2.0 and what keeps to their shape, such as CMRC 2018 and DRCD).

    Args:
        path: The file; gzip is seen through.

    Yields:
        ``id``, ``title``, ``context``, ``question``, ``answers`` (unique texts; none where ``is_impossible``) with
        their place, such as ``dev.json: data[0].paragraphs[2].qas[1]``.

    Raises:
        InputError: It is not JSON, or does not have this shape.
    """
    data = read_bytes(path, max_bytes=MAX_SQUAD_BYTES)
    try:
        whole = json.loads(decode_text(data, where=path))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not a SQuAD file: {error}. It must be one JSON object; one object a line is JSONL (--format "
            "jsonl)."
        ) from error
    articles = whole.get("data") if isinstance(whole, Mapping) else None
    if not isinstance(articles, list):
        raise InputError(
            f"{path} is not a SQuAD file: it must be an object with a list named 'data'. For JSON Lines give "
            "--format jsonl."
        )
    seen: dict[Any, str] = {}
    for a, article in enumerate(articles):
        for p, paragraph in enumerate(_items(article, "paragraphs", f"{path}: data[{a}]")):
            for q, question in enumerate(_items(paragraph, "qas", f"{path}: data[{a}].paragraphs[{p}]")):
                where = f"{path}: data[{a}].paragraphs[{p}].qas[{q}]"
                row = _squad_row(article, paragraph, question, where)
                if row["id"] in seen:
                    raise InputError(f"{where}: 'id' is {row['id']!r}, as at {seen[row['id']]}; it must be unique.")
                seen[row["id"]] = where
                yield row, where


def _items(value: Any, name: str, where: str) -> list[Any]:
    items = value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(items, list):
        raise InputError(f"{where} has no list named {name!r}, as SQuAD files have.")
    return items


def _squad_row(article: Any, paragraph: Any, question: Any, where: str) -> dict[str, Any]:
    if not isinstance(question, Mapping) or not all(isinstance(question.get(key), str) for key in ("id", "question")):
        raise InputError(f"{where}: a question needs an 'id' and a 'question', both strings.")
    context = paragraph.get("context")
    if not isinstance(context, str):
        raise InputError(f"{where}: its paragraph has no 'context' string.")
    texts: list[str] = []
    if not question.get("is_impossible", False):
        for answer in _items(question, "answers", where):
            text = answer.get("text") if isinstance(answer, Mapping) else None
            if not isinstance(text, str):
                raise InputError(f"{where}: an answer needs a 'text' string.")
            texts.append(text)
    return {
        "id": question["id"],
        "title": str(article.get("title", "")),
        "context": context,
        "question": question["question"],
        "answers": list(dict.fromkeys(texts)),
    }


def read_lines(path: str) -> list[str]:
    r"""Read a plain text file with a segment a line, as translation toolkits do: only ``\\n`` ends a line.

    Raises:
        InputError: It cannot be read or is not UTF-8.
    """
    with open_input(path) as stream:
        return [
            decode_text(line, where=f"{path}:{number}").rstrip("\n").removesuffix("\r")
            for number, line in enumerate(stream, 1)
        ]


def read_parallel(path: str, references: Sequence[str], *, source: str, reference: str) -> Iterator[Located]:
    """Read parallel text files, such as WMT's: line i of each belongs together.

    Args:
        path: Sources.
        references: Files of references; none for sources alone.
        source: Column of the sources.
        reference: Column of the only reference; several become ``references``.

    Yields:
        The rows.

    Raises:
        InputError: The files have different numbers of lines, or a source is blank.
    """
    lines = read_lines(path)
    streams = [read_lines(other) for other in references]
    for other, stream in zip(references, streams, strict=True):
        if len(stream) != len(lines):
            raise InputError(
                f"{path} has {len(lines)} lines and {other} has {len(stream)}. Parallel files need the same number: "
                "line i of one belongs to line i of the other."
            )
    for number, line in enumerate(lines):
        row: dict[str, Any] = {source: line}
        if len(streams) == 1:
            row[reference] = streams[0][number]
        elif streams:
            row["references"] = [stream[number] for stream in streams]
        yield row, f"{path}:{number + 1}"


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
