"""Suite files: benchmarks as TOML, run and taken up again as a whole.

A file names evaluations and the models that each of them is run with::

    name = "baseline"
    limit = 300                                  # for all evaluations that do not say otherwise

    [[models]]
    model = "default"
    dtype = "fp32"

    [[evaluations]]
    name = "en-de"
    task = "translation"
    data = "val.en-de.jsonl"                     # paths are relative to the file
    metrics = ["bleu", "chrf"]
    lang = "de"
    decoding = { max_tokens = 128 }
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nlpkit.apps.documents.files import decode_text, read_bytes
from nlpkit.apps.models.adapters import CONFIG
from nlpkit.apps.models.spec import ModelSpec
from nlpkit.core.errors import ConfigError, did_you_mean
from nlpkit.eval.data.datasets import DataOptions
from nlpkit.eval.metrics.registry import MetricOptions
from nlpkit.eval.runs.evaluation import (
    Evaluation,
    LoadModel,
    PreparedEvaluation,
    ScoringChoice,
    Selection,
    ShotOptions,
    safe_name,
)
from nlpkit.eval.runs.rescoring import RunOutcome
from nlpkit.eval.runs.runner import RunSettings
from nlpkit.eval.runs.scoring import ScoringOptions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

_STRINGS = "a list of strings"
_TABLE = "a table"
_KINDS: dict[str, Callable[[Any], bool]] = {
    "a string": lambda value: isinstance(value, str),
    "a whole number": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "true or false": lambda value: isinstance(value, bool),
    _STRINGS: lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
    "a string or a list of strings": lambda value: (
        isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))
    ),
    _TABLE: lambda value: isinstance(value, dict),
    "a table of strings": lambda value: isinstance(value, dict) and all(isinstance(v, str) for v in value.values()),
    "a list of tables": lambda value: isinstance(value, list) and all(isinstance(item, dict) for item in value),
}
_SHARED = {
    "limit": "a whole number",
    "seed": "a whole number",
    "resamples": "a whole number",
    "max_errors": "a whole number",
}
_SUITE = {"name": "a string", "models": "a list of tables", "evaluations": "a list of tables", **_SHARED}
_MODEL = {"model": "a string", "adapter": "a string", "dtype": "a string", "device": "a string"}
_EVALUATION = {
    "name": "a string",
    "task": "a string",
    "data": "a string or a list of strings",
    "format": "a string",
    "references": "a string or a list of strings",
    "columns": "a table of strings",
    "values": "a table of strings",
    "split": "a string",
    "metrics": _STRINGS,
    "lang": "a string",
    "tokenizer": "a string",
    "lowercase": "true or false",
    "stemmer": "true or false",
    "rouge_split": "a string",
    "labels": _STRINGS,
    "decoding": _TABLE,
    "on_overflow": "a string",
    "exclude_overlap": "a string or a list of strings",
    "overlap_ngram": "a whole number",
    "shots": "a whole number",
    "shots_from": "a string",
    "shots_seed": "a whole number",
    "keep_going": "true or false",
    "models": "a list of tables",
    **_SHARED,
}

_CHOICES = {
    "format": ("auto", "jsonl", "csv", "tsv", "squad", "text", "parquet"),
    "on_overflow": ("error", "chunk", "truncate"),
    "rouge_split": ("newline", "sentence"),
}


@dataclass(frozen=True)
class Suite:
    """A suite file that was read and checked.

    Attributes:
        name: Its name.
        folder: Where its runs go by default.
        evaluations: Name and content of each evaluation.
    """

    name: str
    folder: Path
    evaluations: tuple[tuple[str, Evaluation], ...]


@dataclass(frozen=True)
class SuiteResult:
    """What one evaluation of a suite gave.

    Attributes:
        name: The evaluation.
        outcomes: One for each model.
    """

    name: str
    outcomes: tuple[RunOutcome, ...]


def load_suite(path: str, *, limit: int | None = None, only: Sequence[str] = ()) -> Suite:
    """Read a suite file.

    Args:
        path: The file.
        limit: Overrides every evaluation's limit where that is larger or missing.
        only: Names of evaluations to keep; all by default.

    Returns:
        The suite.

    Raises:
        ConfigError: A key is unknown or missing, or a value has the wrong type.
        InputError: The file cannot be read.
    """
    try:
        values = tomllib.loads(decode_text(read_bytes(path), where=path))
    except RecursionError:
        raise ConfigError(f"{path} is nested too deep.") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error
    _check(values, _SUITE, path)
    if not values.get("evaluations"):
        raise ConfigError(f"{path} names no evaluation. Add an [[evaluations]] table with task and data.")
    root = Path(path).resolve().parent
    evaluations = []
    for number, table in enumerate(values["evaluations"], 1):
        where = f"{path}: evaluation {number}" + (f" ({table['name']})" if isinstance(table.get("name"), str) else "")
        _check(table, _EVALUATION, where)
        for key in ("task", "data"):
            if key not in table:
                raise ConfigError(f"{where} has no {key!r}.")
        shared = {key: values[key] for key in _SHARED if key in values}
        merged = {**shared, **table}
        if limit is not None:
            merged["limit"] = min(limit, merged.get("limit", limit))
        models = table.get("models") or values.get("models") or [{}]
        evaluations.append((_name(table), _evaluation(merged, models, root, where)))
    names = [name for name, _ in evaluations]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{path} has two evaluations named {name!r}. Give each a 'name' of its own.")
    for name in only:
        if name not in names:
            raise ConfigError(f"{path} has no evaluation {name!r}. {did_you_mean(name, names)}")
    kept = tuple(one for one in evaluations if not only or one[0] in only)
    name = str(values.get("name") or Path(path).stem)
    return Suite(name, Path("runs") / safe_name(name), kept)


def _name(table: Mapping[str, Any]) -> str:
    data = table["data"] if isinstance(table["data"], str) else table["data"][0]
    return str(table.get("name") or f"{table['task']}-{Path(data).name.split('.jsonl')[0]}")


def _check(table: Mapping[str, Any], known: Mapping[str, str], where: str) -> None:
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"{where} has an unknown key {key!r}. {did_you_mean(key, known)}")
        if not _KINDS[known[key]](value):
            raise ConfigError(f"{where}: {key!r} must be {known[key]}, not {value!r}.")
        if key in _CHOICES and value not in _CHOICES[key]:
            raise ConfigError(f"{where}: {key!r} is {value!r}. {did_you_mean(value, _CHOICES[key])}")


def _list(value: str | list[str] | None) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


def _evaluation(table: Mapping[str, Any], models: Sequence[Mapping[str, Any]], root: Path, where: str) -> Evaluation:
    def path(text: str) -> str:
        return str(root / Path(text).expanduser())

    for model in models:
        _check(model, _MODEL, f"{where}: a model")
    overrides = dict(table.get("decoding") or {})
    if "seed" in table:
        overrides["seed"] = table["seed"]
    return Evaluation(
        task=table["task"],
        data=tuple(path(text) for text in _list(table["data"])),
        models=tuple(_model(model, root) for model in models),
        data_options=DataOptions(
            format=table.get("format", "auto"),
            references=tuple(path(text) for text in _list(table.get("references"))),
            columns=table.get("columns", {}),
            values=table.get("values", {}),
            split=table.get("split"),
        ),
        selection=Selection(
            limit=table.get("limit"),
            exclude_overlap=tuple(path(text) for text in _list(table.get("exclude_overlap"))),
            overlap_n=table.get("overlap_ngram", 13),
        ),
        scoring=ScoringChoice(
            metrics=tuple(table.get("metrics", ())),
            options=MetricOptions(
                lang=table.get("lang"),
                tokenizer=table.get("tokenizer"),
                lowercase=table.get("lowercase"),
                stemmer=table.get("stemmer", False),
                split=table.get("rouge_split"),
                labels=tuple(table.get("labels", ())),
            ),
            n_resamples=table.get("resamples", 1000),
        ),
        overrides=overrides,
        settings=RunSettings(
            scoring=ScoringOptions(metrics=()), on_overflow=table.get("on_overflow"), max_errors=table.get("max_errors")
        ),
        shots=ShotOptions(
            count=table.get("shots", 0),
            path=path(table["shots_from"]) if "shots_from" in table else None,
            seed=table.get("shots_seed", 0),
        ),
        keep_going=table.get("keep_going", False),
    )


def _model(table: Mapping[str, Any], root: Path) -> ModelSpec:
    def near(text: str, holds: str = "") -> str:
        # A name of the catalogue, or a path: beside the suite file where there is such a thing.
        return str(root / text) if (root / text / holds).exists() else text

    given = {key: str(value) for key, value in table.items()}
    if "model" in given:
        given["name"] = near(given.pop("model"))
    if "adapter" in given:
        # A folder of data may well be named as the task is, and so as the shipped adapter.
        given["adapter"] = near(given["adapter"], CONFIG)
    return replace(ModelSpec(), **given)  # type: ignore[arg-type]


def run_suite(
    suite: Suite,
    output: str | None,
    *,
    load: LoadModel,
    report: Callable[[str], None],
    progress: Callable[[int, int], None] | None = None,
) -> list[SuiteResult]:
    """Run a suite, or go on with it. All data are read and checked before the first model is loaded.

    Args:
        suite: The suite.
        output: Folder of the runs; ``runs/NAME`` by default.
        load: Loads a model; what it shows meanwhile is its own affair.
        report: Gets what a user should know.
        progress: Gets rows done and rows in all, of one evaluation.

    Returns:
        One result for each evaluation.

    Raises:
        NlpkitError: An option, a file or a model is wrong.
    """
    prepared: list[tuple[str, PreparedEvaluation]] = [
        (name, evaluation.prepare()) for name, evaluation in suite.evaluations
    ]
    root = Path(output) if output is not None else suite.folder
    results = []
    for name, one in prepared:
        outcomes = one.run(str(root / safe_name(name)), load=load, report=report, progress=progress, nested=True)
        results.append(SuiteResult(name, tuple(outcomes)))
    return results
