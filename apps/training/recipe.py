"""A training recipe: what a TOML file and the command line say about a training, joined and checked."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlpkit.apps.tasks.table import load_task
from nlpkit.apps.tasks.task import as_scores
from nlpkit.core.errors import ConfigError, did_you_mean, shown
from nlpkit.core.typed_fields import check_fields, check_table

TEXT = "text"
"""The pseudo-task of language modelling: plain text, or rows with a ``text``."""

PROMPTS = ("chat", "brief", "learned")
"""Ways of asking that a model can be taught."""


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """One data source.

    Attributes:
        path: JSONL, CSV or TSV rows, or a plain text file; gzip is read too.
        task: Name of the task that makes prompts of the rows; ``text`` for language modelling.
        weight: Its share in a mixture, or None.
        limit: Read only this many rows.
        fields: Values for rows that lack them, such as ``target_lang``.
        values: Values of all rows, in the place of their own.
        columns: For the task's columns the rows' own names, where they differ; dots reach into nested objects.
        folds: Number of folds of a cross-validation, or None.
        fold: Which of them is meant.
        held_out: Whether its rows are taken, or all others.
    """

    path: str
    task: str
    weight: float | None = None
    limit: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    folds: int | None = None
    fold: int = 0
    held_out: bool = False

    def takes(self, index: int) -> bool:
        """Tell whether the row of this number belongs to the fold, or there are no folds."""
        return self.folds is None or (index % self.folds == self.fold) == self.held_out


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that the command ``train`` needs to know.

    Attributes:
        output: Folder to write to.
        method: ``scratch``, ``full`` or ``lora``.
        data: Training data.
        eval_data: Development data.
        base: Model to start from; None for ``scratch``.
        adapter: Adapter to go on from: a folder, or the name of a shipped one.
        prompts: ``chat``, or ``brief`` for the tasks' short prompts, which the result is then asked with as well, or
            ``learned`` for those that the adapter to go on from was taught with; by default see `usual_prompts`.
        preset: Size of a model from scratch.
        model: Fields of the model's configuration that differ from the preset.
        tokenizer: ``kind``, ``vocab_size`` and ``symbols``, or ``path``, of a model from scratch.
        lora: Options of `nlpkit.core.model.lora.LoraConfig`.
        train: Options of `nlpkit.core.train.config.TrainConfig`.
        evaluation: ``rows`` to generate for, ``samples`` to show, ``metrics`` to compute, ``max_tokens``.
    """

    output: str
    method: str
    data: tuple[DataSpec, ...]
    eval_data: tuple[DataSpec, ...] = ()
    base: str | None = None
    adapter: str | None = None
    prompts: str = "chat"
    preset: str | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    lora: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in ("scratch", "full", "lora"):
            hint = did_you_mean(self.method, ("scratch", "full", "lora"))
            raise ConfigError(f"There is no training method {shown(self.method)}. {hint}")
        if self.prompts not in PROMPTS:
            raise ConfigError(f"There are no prompts {shown(self.prompts)}. {did_you_mean(self.prompts, PROMPTS)}")
        if self.prompts == "learned" and self.adapter is None:
            raise ConfigError("The prompts are to be those of the adapter to go on from, but there is none: name one.")
        if not self.data:
            raise ConfigError("There are no training data. Name a file with --data, or [[data]] in the configuration.")
        weights = [spec.weight for spec in self.data]
        if any(weight is not None for weight in weights) and None in weights:
            bare = next(spec.path for spec in self.data if spec.weight is None)
            raise ConfigError(f"Some data sources have weights and {bare} has none. Give all of them one, or none.")
        if self.method == "scratch":
            if self.base is not None:
                raise ConfigError(
                    f"Training from scratch starts from no model, but the base {self.base!r} is given. Leave it out, "
                    "or choose the method full or lora."
                )
            if self.preset is None:
                raise ConfigError("Training from scratch needs a size: name one with --preset, such as 5m.")
        elif self.preset is not None or self.model or self.tokenizer:
            what = "--preset" if self.preset is not None else "[model]" if self.model else "[tokenizer]"
            raise ConfigError(f"{what} is for training from scratch; the method is {self.method}.")
        if self.method != "lora" and (self.lora or self.adapter):
            raise ConfigError(f"LoRA options were given, but the method is {self.method}.")

    def to_dict(self) -> dict[str, Any]:
        """Return the shape of the TOML file."""
        values: dict[str, Any] = {"output": self.output, "method": self.method}
        values |= {name: getattr(self, name) for name in ("base", "adapter", "preset") if getattr(self, name)}
        if self.prompts != usual_prompts(self.data):
            values["prompts"] = self.prompts
        for name in _TABLES:
            table = dict(getattr(self, name))
            if table:
                values[name] = table
        for name in ("data", "eval_data"):
            values[name] = [
                {key: value for key, value in dataclasses.asdict(spec).items() if value not in (None, {}, False, 0)}
                for spec in getattr(self, name)
            ]
        return values


_TEXTS = ("output", "method", "base", "adapter", "prompts", "preset")
_TABLES = ("model", "tokenizer", "lora", "train", "evaluation")
_ALLOWED: Mapping[str, tuple[str, ...]] = {
    "tokenizer": ("kind", "vocab_size", "symbols", "path"),
    "lora": ("rank", "alpha", "dropout", "targets", "use_rslora", "use_dora"),
    "evaluation": ("rows", "samples", "metrics", "max_tokens"),
}


_TYPES: Mapping[str, Mapping[str, Any]] = {
    "tokenizer": {"kind": str, "vocab_size": int, "symbols": str | Sequence[str], "path": str},
    "lora": {"rank": int, "alpha": float, "dropout": float, "targets": Sequence[str]},
    "evaluation": {"rows": int, "samples": int, "metrics": str | Sequence[str], "max_tokens": int},
    "train": {"seq_len": int, "seed": int, "zero_init": bool},
    "model": dict.fromkeys(("d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff", "max_seq_len"), int),
}
"""What is used before the classes that these become check all of it."""


def _check_path(path: str, what: str) -> None:
    """Refuse what no file system takes for a path."""
    if "\0" in path or any(len(part.encode("utf-8", "surrogateescape")) > 255 for part in path.split("/")):
        raise ConfigError(f"{what} is {shown(path)}, which is no path: a name in it is too long or holds a NUL.")


def load_toml(path: str) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: It cannot be read, or is not TOML.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        values: dict[str, Any] = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"The configuration {path} cannot be read: {error.strerror or error}.") from error
    except RecursionError:
        raise ConfigError(f"The configuration {path} is nested too deep.") from None
    except ValueError as error:
        raise ConfigError(f"The configuration {path} is not TOML: {error}.") from error
    return values


def build_recipe(values: Mapping[str, Any], flags: Mapping[str, Any]) -> Recipe:
    """Join a configuration file and the command line, which wins.

    Args:
        values: The TOML file's content, or nothing.
        flags: The same shape; None values and empty tables were not given.

    Returns:
        The recipe.

    Raises:
        ConfigError: A key is unknown, or something does not fit together.
    """
    joined: dict[str, Any] = {key: value for key, value in values.items() if key not in _TABLES}
    joined |= {key: value for key, value in flags.items() if key not in _TABLES and value not in (None, ())}
    for name in _TABLES:
        given = values.get(name, {})
        if not isinstance(given, Mapping):
            raise ConfigError(f"[{name}] of the configuration must be a table, not {shown(given)}.")
        if not isinstance(flags.get(name, {}), Mapping):
            raise ConfigError(f"The options of {name} must be a mapping.")
        joined[name] = {**given, **{k: v for k, v in flags.get(name, {}).items() if v is not None}}
        allowed = _ALLOWED.get(name)
        for key in joined[name]:
            if allowed is not None and key not in allowed:
                raise ConfigError(f"[{name}] has no option {shown(key)}. {did_you_mean(key, allowed)}")
        check_table(joined[name], _TYPES.get(name, {}), f"[{name}]")
    # One way of giving the length replaces the other.
    train = joined["train"]
    lengths = ("max_steps", "epochs", "max_minutes")
    told = [name for name in lengths if flags.get("train", {}).get(name) is not None]
    for name in lengths:
        if told and name not in told:
            train.pop(name, None)
    task = joined.pop("task", None)
    known = {item.name for item in dataclasses.fields(Recipe)}
    for key, value in joined.items():
        if key not in known:
            raise ConfigError(f"The configuration has no option {shown(key)}. {did_you_mean(key, known | {'task'})}")
        if key in _TEXTS and value is not None and not isinstance(value, str):
            raise ConfigError(f"The configuration has {shown(value)} as {key}; it must be text, in quotes.")
        if key in ("output", "base", "adapter") and value is not None:
            _check_path(value, f"The configuration's {key}")
    if task is not None and not isinstance(task, str):
        raise ConfigError(f"The configuration has {shown(task)} as task; it must be text, in quotes.")
    for key in ("data", "eval_data"):
        joined[key] = tuple(_spec(item, task, key) for item in _listed(joined.get(key, ()), key))
    for required in ("output", "method"):
        if not joined.get(required):
            raise ConfigError(f"The training needs {required!r}: give --{required}, or set it in the configuration.")
    joined.setdefault("prompts", usual_prompts(joined["data"]))
    return Recipe(**joined)


def usual_prompts(data: Sequence[DataSpec]) -> str:
    """Return the prompts of a training that names none.

    A model that learned a closed set of answers is asked with the short prompt, with which it knows them.
    """
    try:
        tasks = [None if spec.task == TEXT else load_task(spec.task) for spec in data]
    except ConfigError:
        # What is wrong with it is said where the data are read.
        return "chat"
    return "brief" if tasks and all(task is not None and as_scores(task) is not None for task in tasks) else "chat"


def _listed(value: Any, where: str) -> Sequence[Any]:
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, (str, Mapping)):
        return [value]
    raise ConfigError(f"[[{where}]] is {shown(value)}; it must be a table with a path, or the path of a file.")


def _spec(item: Any, task: str | None, where: str) -> DataSpec:
    if isinstance(item, DataSpec):
        return item
    if not isinstance(item, (str, Mapping)):
        raise ConfigError(f"[[{where}]] is {shown(item)}; it must be a table with a path, or the path of a file.")
    values: dict[str, Any] = {"path": item} if isinstance(item, str) else dict(item)
    known = {entry.name for entry in dataclasses.fields(DataSpec)}
    for key in values:
        if key not in known:
            raise ConfigError(f"[[{where}]] has no option {shown(key)}. {did_you_mean(key, known)}")
    values.setdefault("task", task)
    if not isinstance(values.get("path"), str):
        raise ConfigError(f"[[{where}]] needs a path, in quotes.")
    if values["task"] is None:
        raise ConfigError(f"{values['path']}: which task are these data for? Name it with --task; text is plain text.")
    weight = values.get("weight")
    if weight is not None and not (isinstance(weight, (int, float)) and 0 < weight < float("inf")):
        raise ConfigError(f"The weight of {values['path']} is {shown(weight)}; it must be above 0.")
    _check_path(values["path"], f"The path in [[{where}]]")
    spec = DataSpec(**values)
    check_fields(spec, f"In [[{where}]]")
    for column, theirs in spec.columns.items():
        if not isinstance(theirs, str):
            raise ConfigError(
                f"In [[{where}]], columns has {shown(theirs)} for {column}; it must be a name, in quotes."
            )
    return spec


def render_toml(values: Mapping[str, Any]) -> str:
    """Write a recipe's dictionary as TOML."""
    plain = [f"{key} = {_value(value)}" for key, value in values.items() if not _is_table(value)]
    parts = ["\n".join(plain)]
    for key, value in values.items():
        if isinstance(value, Mapping):
            parts.append("\n".join([f"[{key}]", *(f"{k} = {_value(v)}" for k, v in value.items())]))
        elif _is_table(value):
            parts += ["\n".join([f"[[{key}]]", *(f"{k} = {_value(v)}" for k, v in item.items())]) for item in value]
    return "\n\n".join(part for part in parts if part) + "\n"


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, (list, tuple)) and all(isinstance(item, Mapping) for item in value)
    )


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(str(k))} = {_value(v)}" for k, v in value.items()) + " }"
    raise ConfigError(f"{value!r} cannot be written as TOML.")
