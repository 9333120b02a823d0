"""Patterns of an adapter for the ranks of its modules: as PEFT matches them, and never for long."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from nlpkit.core.errors import ModelFileError
from nlpkit.core.formats.peft.adapter import open_adapter
from nlpkit.core.formats.peft.patterns import by_pattern


def adapter(path: Path, modules: list[str], **patterns: Any) -> Path:
    tensors = {}
    for module in modules:
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.zeros(4, 1)
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.zeros(1, 4)
    save_file(tensors, path / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, **patterns}
    (path / "adapter_config.json").write_text(json.dumps(settings))
    return path


@pytest.mark.parametrize("pattern", [".*a.*b{}", "a*x+q{}", "^.*a{}", ".*{}"])
def test_patterns_that_take_long_are_refused(tmp_path: Path, pattern: str) -> None:
    folder = adapter(
        tmp_path,
        ["a" * 190 + f"{number:04d}" for number in range(400)],
        alpha_pattern={pattern.format(number): 4 for number in range(1000)},
    )
    started = time.process_time()
    with pytest.raises(ModelFileError, match="takes too long"):
        open_adapter(folder)
    assert time.process_time() - started < 3


def test_a_name_for_each_module_is_no_matter(tmp_path: Path) -> None:
    modules = [f"model.layers.{layer}.self_attn.{part}_proj" for layer in range(100) for part in "qkvo"]
    started = time.process_time()
    opened = open_adapter(adapter(tmp_path, modules, alpha_pattern=dict.fromkeys(modules, 4)))
    assert [opened.scale(module) for module in opened.modules] == [1.0] * 400
    assert time.process_time() - started < 4


def test_patterns_match_as_in_peft() -> None:
    module = "model.layers.11.self_attn.q_proj"
    for pattern, found in (
        ("q_proj", True),
        ("self_attn.q_proj", True),
        ("proj", False),
        ("attn.q_proj", False),
        (module, True),
        ("model.layers.1", False),
        (r".*\.11\..*", True),
        (r"^model\.layers\.11\.self_attn\.q_proj", True),
        (r"layers\.\d+\.self_attn\.q_proj", True),
        ("self_attn_q_proj", False),
        ("self.attn.q_proj", True),
    ):
        assert by_pattern({pattern: 1}, module, 0) == found, pattern
