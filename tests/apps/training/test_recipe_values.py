"""Recipes with values of every wrong type end in our own error."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from nlpkit.apps.training.recipe import build_recipe, load_toml
from nlpkit.apps.training.setup import LoraConfig
from nlpkit.core.errors import ConfigError
from nlpkit.core.train.config import TrainConfig
from nlpkit.core.train.presets import preset_config
from nlpkit.eval.runs.suite import load_suite

VALUES: dict[str, Any] = {
    "output": "out",
    "method": "lora",
    "base": "b",
    "adapter": "a",
    "prompts": "chat",
    "task": "translation",
    "data": [
        {
            **{"path": "x.jsonl", "task": "text", "weight": 1.0, "limit": 2, "fields": {}, "folds": 2, "fold": 0},
            "held_out": False,
        }
    ],
    "eval_data": [{"path": "x.jsonl"}],
    "lora": {"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": ["q"], "use_rslora": False, "use_dora": False},
    "train": {
        **{"max_steps": 2, "epochs": None, "max_minutes": None, "lr": 1e-3, "seed": 1, "metric": "loss", "seq_len": 8},
        **{"zero_init": False, "dtype": "fp32", "eval_every": 0, "embed_lr": None, "checkpointing": False},
    },
    "evaluation": {"rows": 1, "samples": 1, "metrics": ["bleu"], "max_tokens": 4},
}
WRONG: tuple[Any, ...] = (
    *(5, -1, 16**10_000, 1e400, float("nan"), "x", "a" * 4_000, "\0", "9" * 5_000, [], [1], [[1]], {}, {"a": 1}, True),
)


def use(values: dict[str, Any]) -> None:
    """Do what the command does with a recipe before it reads any file."""
    recipe = build_recipe(values, {})
    options = dict(recipe.lora)
    if isinstance(options.get("targets"), (list, tuple)):
        options["targets"] = tuple(options["targets"])
    LoraConfig(**options)
    TrainConfig.from_dict({**recipe.train, "method": recipe.method})
    preset_config("5m", vocab_size=300, seq_len=64, overrides=recipe.model)
    for name in ("samples", "rows", "max_tokens"):
        int(recipe.evaluation.get(name) or 0)


def test_every_value_of_a_recipe_is_checked() -> None:
    places: list[tuple[Any, ...]] = [(key,) for key in (*VALUES, "model", "tokenizer")]
    places += [(table, key) for table in ("lora", "train", "evaluation") for key in VALUES[table]]
    places += [("data", 0, key) for key in VALUES["data"][0]] + [
        ("data", 0),
        ("model", "d_model"),
        ("model", "norm_eps"),
    ]
    places += [("tokenizer", key) for key in ("kind", "vocab_size", "symbols", "path")]
    refused = 0
    for *way, last in places:
        for wrong in WRONG:
            values = copy.deepcopy({**VALUES, "model": {}, "tokenizer": {}})
            inner: Any = values
            for step in way:
                inner = inner[step]
            inner[last] = wrong
            if way == ["model"] or way == ["tokenizer"]:
                values |= {"method": "scratch", "preset": "5m", "base": None, "adapter": None, "lora": {}}
            try:
                use(values)
            except ConfigError as error:
                refused += 1
                if len(str(error)) > 800:
                    pytest.fail(str(error)[:2_000])
    assert refused > 300


def test_files_that_are_nested_too_deep(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("a = " + "[" * 20_000 + "]" * 20_000)
    with pytest.raises(ConfigError, match="nested too deep"):
        load_toml(str(path))
    with pytest.raises(ConfigError, match="nested too deep"):
        load_suite(str(path))
