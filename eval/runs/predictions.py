"""Predictions and references of any system, from text files or JSONL, for `nlpkit eval score`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlpkit.apps.data.parallel import read_lines
from nlpkit.apps.data.parquet import MAX_SQUAD_BYTES
from nlpkit.apps.data.rows import Located, LocatedRow, read_rows, row_format
from nlpkit.apps.data.squad import read_squad
from nlpkit.apps.documents.files import decode_text, read_bytes
from nlpkit.core.errors import ConfigError, InputError
from nlpkit.core.files.hashing import hash_value
from nlpkit.eval.data.datasets import describe_file
from nlpkit.eval.metrics.base import Likelihood
from nlpkit.eval.metrics.registry import find_entry
from nlpkit.eval.runs.provenance import describe_session
from nlpkit.eval.runs.run_folder import RUN_FORMAT
from nlpkit.eval.runs.samples import SampleRecord


@dataclass(frozen=True)
class _Stream:
    """One file: texts by position, and by id where the file has ids."""

    path: str
    values: list[Any]
    ids: list[str] | None


def load_predictions(
    predictions: str, references: Sequence[str] = (), *, metrics: Sequence[str] = ()
) -> list[SampleRecord]:
    """Read what a system wrote and what it should have written.

    Text files hold a segment a line. JSONL rows have ``prediction`` and, where they are to be matched by it, ``id``;
    reference rows have ``reference``, ``references`` or ``answers`` (an empty list says that there is no answer).
    A prediction row may carry its own references as well, a ``form``, and ``logprob`` with ``n_tokens`` and
    ``n_bytes``. As for the SQuAD scripts, references may also be SQuAD JSON, and predictions one JSON object from id
    to answer.

    Args:
        predictions: The system's file.
        references: Files of references; several give several references to each segment.
        metrics: What will be scored; where one of them needs references, there must be some.

    Returns:
        One sample a segment, in the order of the predictions.

    Raises:
        InputError: A file cannot be read, rows do not match, or a row lacks what it needs.
        ConfigError: A file's kind does not suit.
    """
    rows = _read(predictions, "prediction")
    streams = [_read(path, "reference") for path in references]
    samples = []
    lookups = [_match(rows, stream) for stream in streams]
    needing = next((name for name in metrics if find_entry(name).needs in ("references", "answers")), None)
    for index, value in enumerate(rows.values):
        own = _own_references(value) if isinstance(value, LocatedRow) else None
        if own is None and not streams and needing is not None:
            # Not the same as having no answer: that is an empty list.
            raise InputError(
                f"{needing} needs references, and {predictions} has none. Give the file of references with "
                "--references."
            )
        found = list(own or ())
        for stream, lookup in zip(streams, lookups, strict=True):
            found += _reference_texts(stream.values[lookup[index]])
        samples.append(_sample(index, value, rows, tuple(dict.fromkeys(found))))
    return samples


def _read(path: str, what: str) -> _Stream:
    kind = row_format(path)
    if path.lower().removesuffix(".gz").endswith(".json"):
        squad = read_squad(path) if what == "reference" else _read_answers(path)
        found = [LocatedRow(values, where, number) for number, (values, where) in enumerate(squad, 1)]
        return _Stream(path, list(found), [str(row.values["id"]) for row in found])
    if kind is None:
        lines = read_lines(path)
        if not lines:
            raise InputError(f"{path} is empty. It must hold a {what} on each line.")
        return _Stream(path, list(lines), None)
    rows = list(read_rows(path, unique="id"))
    if not rows:
        raise InputError(f"{path} holds no rows.")
    with_id = [row for row in rows if "id" in row.values]
    if with_id and len(with_id) < len(rows):
        row = next(row for row in rows if "id" not in row.values)
        raise InputError(f"{row.where}: the row has no 'id', though others of the file have. Give all or none an id.")
    return _Stream(path, list(rows), [str(row.values["id"]) for row in rows] if with_id else None)


def _read_answers(path: str) -> Iterator[Located]:
    try:
        answers = json.loads(decode_text(read_bytes(path, max_bytes=MAX_SQUAD_BYTES), where=path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}. JSON Lines are named .jsonl.") from error
    if not isinstance(answers, Mapping):
        raise InputError(f"{path} must be one JSON object from id to answer; JSON Lines are named .jsonl.")
    for name, answer in answers.items():
        yield {"id": name, "prediction": answer}, f"{path}: {name!r}"


def _match(rows: _Stream, stream: _Stream) -> list[int]:
    """Return for each prediction the place of its reference: by id where both have one, else by position."""
    if rows.ids is not None and stream.ids is not None:
        places = {name: place for place, name in enumerate(stream.ids)}
        missing = [name for name in rows.ids if name not in places]
        if missing:
            raise InputError(
                f"{len(missing)} predictions of {rows.path} have an id that {stream.path} does not have, the first "
                f"one {missing[0]!r}. Give the references that belong to the predictions."
            )
        extra = len(places) - len(rows.ids)
        if extra:
            ours = set(rows.ids)
            first = next(name for name in stream.ids if name not in ours)
            raise InputError(
                f"{extra} references of {stream.path} have no prediction in {rows.path}, the first one {first!r}. "
                "Leaving out rows would change the score: add a prediction (it may be empty) or remove the reference."
            )
        return [places[name] for name in rows.ids]
    if len(rows.values) != len(stream.values):
        raise InputError(
            f"{rows.path} has {len(rows.values)} predictions and {stream.path} {len(stream.values)} references. "
            "Without ids in both they are matched by position, and must be equally many."
        )
    return list(range(len(rows.values)))


def _own_references(row: LocatedRow) -> list[str] | None:
    has = any(row.values.get(key) is not None for key in ("reference", "references", "answers"))
    return _reference_texts(row) if has else None


def _reference_texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    row: LocatedRow = value
    for key in ("references", "answers", "reference"):
        found = row.values.get(key)
        if found is None:
            continue
        if isinstance(found, Mapping) and isinstance(found.get("text"), list):
            found = found["text"]
        texts = [found] if isinstance(found, str) else found
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise InputError(f"{row.where}: {key!r} must be a string or a list of strings, not {str(found)[:60]!r}.")
        return list(texts)
    raise InputError(
        f"{row.where}: the row has none of 'reference', 'references' and 'answers'. It has: {', '.join(row.values)}."
    )


def _sample(index: int, value: Any, stream: _Stream, references: tuple[str, ...]) -> SampleRecord:
    if isinstance(value, str):
        values: dict[str, Any] = {"prediction": value}
        where = f"{stream.path}:{index + 1}"
    else:
        values, where = value.values, value.where
    prediction = values.get("prediction")
    if not isinstance(prediction, str):
        raise InputError(
            f"{where}: 'prediction' must be a string, not {str(prediction)[:60]!r}. The row has: {', '.join(values)}."
        )
    form = values.get("form", "")
    name = stream.ids[index] if stream.ids is not None else str(index)
    row = {"id": name, "references": list(references)}
    return SampleRecord(
        index=index,
        id=name,
        row=row,
        row_sha256=hash_value(row),
        prediction=prediction,
        completion=prediction,
        references=references,
        form=form if isinstance(form, str) else "",
        likelihood=_likelihood(values, where),
    )


def _likelihood(values: Mapping[str, Any], where: str) -> Likelihood | None:
    names = ("logprob", "n_tokens", "n_bytes")
    if "logprob" not in values:
        return None
    numbers = [values.get(name) for name in names]
    if not all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in numbers):
        raise InputError(f"{where}: a row with 'logprob' needs the numbers {', '.join(names)}; it has {numbers}.")
    return Likelihood(float(values["logprob"]), int(values["n_tokens"]), int(values["n_bytes"]))


def describe_predictions(
    predictions: str, references: Sequence[str], records: Sequence[SampleRecord], *, name: str | None
) -> dict[str, Any]:
    """Return a run record for predictions that came from elsewhere, so that they can be compared and reported.

    Args:
        predictions: The system's file.
        references: Files of references.
        records: The samples.
        name: What to call the system; by default the file's name.
    """
    if "-" in (predictions, *references):
        raise ConfigError("Predictions from standard input cannot be kept in a run directory. Save them to a file.")
    session = {**describe_session(), "rows": len(records)}
    return {
        "nlpkit_run": RUN_FORMAT,
        "name": name or Path(predictions).name,
        "status": "complete",
        "task": {"name": "external", "version": 1, "shots": None},
        "data": {
            "name": Path(references[0]).name if references else Path(predictions).name,
            "format": "predictions",
            "files": [describe_file(path) for path in references],
            "rows_in_data": len(records),
            "rows": len(records),
            "sha256": hash_value([[record.index, record.row_sha256] for record in records]),
            "selection": {},
        },
        "model": {"name": name or Path(predictions).name, "predictions": describe_file(predictions)},
        "decoding": None,
        "on_overflow": None,
        "seed": None,
        "started": session["started"],
        "sessions": [session],
    }
