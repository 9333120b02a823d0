"""A family is a row: what is added to the table is read and written in every format."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_config, tiny_gpt

from nlpkit.core.errors import ModelFileError
from nlpkit.core.formats import families, hf_defaults
from nlpkit.core.formats.export import save_hf, save_native
from nlpkit.core.formats.families import FAMILIES, FIELDS, sliding_layers
from nlpkit.core.formats.gguf.export import write_gguf
from nlpkit.core.formats.hf_config import config_from_hf, config_to_hf
from nlpkit.core.formats.hf_defaults import DEFAULTS
from nlpkit.core.formats.open import open_model
from nlpkit.core.model.config import ModelConfig

SWITCHES = {"qk_norm": "head", "activation": "gelu"}


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> str:
    """A family of our own: as qwen3, with another activation that nothing but the row tells."""
    row = dataclasses.replace(FAMILIES["qwen3"], gguf="new", hf_class="NewForCausalLM", switches=SWITCHES)
    monkeypatch.setitem(families.FAMILIES, "new", row)  # type: ignore[arg-type]
    monkeypatch.setitem(families.ARCHITECTURES, "new", "new")  # type: ignore[arg-type]
    monkeypatch.setitem(hf_defaults.DEFAULTS, "new", DEFAULTS["qwen3"])  # type: ignore[arg-type]
    return "new"


@pytest.mark.parametrize("kind", ["hf", "native", "gguf"])
def test_a_row_is_enough(kind: str, added: str, tmp_path: Path) -> None:
    config = tiny_config(family=added, **SWITCHES, norm_eps=1e-4)
    model, path = tiny_gpt(config), tmp_path / "model"
    if kind == "gguf":
        write_gguf(config, model.state_dict(), path, dtype="f32")
    else:
        {"hf": save_hf, "native": save_native}[kind](path, config, model.state_dict(), tokenizer=None)
    opened = open_model(path)
    assert opened.config == config
    weights = dict(opened.tensors(dtype=torch.float32))
    assert weights.keys() >= model.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_every_field_of_a_family_is_written_under_a_name_that_its_class_has() -> None:
    for family, row in FAMILIES.items():
        keys = {field.hf.name for field in FIELDS if field.hf.name in DEFAULTS[family]}
        assert {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"} <= keys
        assert set(row.hf_spellings) <= keys
        assert set(row.switches) <= {field.name for field in dataclasses.fields(ModelConfig)}
        assert row.windowed is None or FAMILIES[row.windowed].gguf == row.gguf


@pytest.mark.parametrize(
    ("period", "expected"), [(0, ()), (1, (0, 1, 2, 3, 4, 5, 6)), (2, (0, 2, 4, 6)), (3, (0, 1, 3, 4, 6)), (9, tuple(range(7)))]
)  # fmt: skip
def test_layers_with_a_window(period: int, expected: tuple[int, ...]) -> None:
    assert sliding_layers(period, 7) == expected


def test_a_pattern_of_one_means_no_window_in_hugging_face_files() -> None:
    assert (
        config_from_hf({"model_type": "gemma3_text", "sliding_window": 8, "sliding_window_pattern": 1}).sliding_layers
        == ()
    )
    assert config_from_hf({"model_type": "mistral", "num_hidden_layers": 3}).sliding_layers == (0, 1, 2)


def test_a_window_that_a_family_does_not_know_is_refused() -> None:
    config = tiny_config(sliding_window=5, sliding_layers=[0])
    with pytest.raises(ModelFileError, match="sliding window"):
        config_to_hf(config)
    assert (
        config_from_hf(config_to_hf(dataclasses.replace(config, family="gemma2", sliding_layers=(0,)))).sliding_window
        == 5
    )
