"""Configurations with values of every wrong type and size: each is refused, before and not during the first pass."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from nlpkit.core.errors import ConfigError, ModelFileError
from nlpkit.core.formats.hf import is_known_family
from nlpkit.core.formats.hf_config import config_from_hf, config_to_hf
from nlpkit.core.model.config import ModelConfig, RopeConfig

SIZES = {"vocab_size": 64, "d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "d_ff": 64}
CONFIG = ModelConfig(family="llama", max_seq_len=128, **SIZES)
WRONG: tuple[Any, ...] = (
    *([], {}, [[1]], "x", "9" * 5_000, {"a": 1}, [1, "a"], float("nan"), float("inf"), -float("inf")),
    *(10**400, -(10**400), object),
)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(ModelConfig)])
def test_every_field_of_a_model_is_checked(field: str) -> None:
    for value in WRONG:
        # Any text is a family's name; nothing is no layer, and the rotary embedding as it always is.
        if (field == "family" and isinstance(value, str)) or (field == "sliding_layers" and value in ({}, [])):
            continue
        if field in ("rope", "rope_local") and value == {}:
            continue
        with pytest.raises(ConfigError) as caught:
            ModelConfig.from_dict({**CONFIG.to_dict(), field: value})
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(RopeConfig)])
def test_every_field_of_the_rotary_embedding_is_checked(field: str) -> None:
    for value in WRONG:
        if field.endswith("_factor") and value in ([], {}):
            continue
        with pytest.raises(ConfigError):
            ModelConfig.from_dict({**CONFIG.to_dict(), "rope": {**CONFIG.to_dict()["rope"], field: value}})


def test_numbers_that_end_in_a_division_by_nothing_are_refused() -> None:
    rope: dict[str, Any]
    for rope in (
        {"theta": 1.0, "scaling": "yarn"},
        {"theta": -5.0},
        {"scaling": "linear", "factor": 0.0},
        {"scaling": "llama3", "low_freq_factor": 0.0},
        {"scaling": "yarn", "beta_fast": 0.0},
        {"scaling": "longrope", "original_max_seq_len": 1},
        {"scaling": "dynamic", "dim": 2},
        {"dim": -2},
    ):
        with pytest.raises(ConfigError):
            ModelConfig.from_dict({**CONFIG.to_dict(), "rope": rope})
    for changes in ({"sliding_layers": [5], "sliding_window": 4}, {"sliding_window": -1}, {"norm_eps": -1.0}):
        with pytest.raises(ConfigError):
            ModelConfig.from_dict({**CONFIG.to_dict(), **changes})


def read(values: dict[str, Any]) -> None:
    """Nothing but our own error may come out, and a short one."""
    said = ""
    with contextlib.suppress(ModelFileError):
        try:
            config_from_hf(values)
        except ModelFileError as error:
            said = str(error)
            raise
    assert len(said) < 600


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2", "phi3"])
def test_every_value_of_a_foreign_configuration_is_checked(family: str) -> None:
    changes = {"gpt2": {"positions": "learned", "n_kv_heads": 4}, "gemma3_text": {"rope_local": RopeConfig()}}
    values = config_to_hf(dataclasses.replace(CONFIG, family=family, **changes.get(family, {})))  # type: ignore[arg-type]
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [1.0] * 4, "factor": 2.0}
    for key in (
        *values,
        "rope_scaling",
        "rope_parameters",
        "hidden_act",
        "hidden_activation",
        "rope_theta",
        "head_dim",
    ):
        for value in WRONG[:-1]:
            read({**values, key: value})
    for key in rope:
        for value in WRONG[:-1]:
            for where in ("rope_scaling", "rope_parameters"):
                read({**values, where: {**rope, key: value}})


def test_a_family_may_be_of_any_type(tmp_path: Path) -> None:
    for value in ([], {"a": 1}, 5, None):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": value}))
        assert not is_known_family(tmp_path)
