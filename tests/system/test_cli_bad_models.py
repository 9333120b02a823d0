"""Model files that are damaged, hostile or of the wrong kind, through the command line and the real loaders."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 32,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
}


def gguf(folder: Path, tail: bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", 3) + tail)
    return path


def checkpoint(folder: Path, weights: str, content: bytes) -> Path:
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / weights).write_bytes(content)
    return folder


def bare_pickle(folder: Path) -> Path:
    path = folder / "model.pt"
    path.write_bytes(pickle.dumps({"weight": [1.0]}))
    return path


BAD: dict[str, Callable[[Path], Path]] = {
    "cut-off GGUF": lambda folder: gguf(folder, b"\x01\0\0"),
    "GGUF with absurd counts": lambda folder: gguf(folder, struct.pack("<QQ", 2**60, 2**60)),
    "GGUF with an absurd string": lambda folder: gguf(folder, struct.pack("<QQQ", 1, 1, 2**50) + b"key"),
    "GGUF that ends after its version": lambda folder: gguf(folder, b""),
    "cut-off safetensors": lambda folder: checkpoint(folder, "model.safetensors", b"\x08\0\0"),
    "safetensors with an absurd header": lambda folder: checkpoint(
        folder, "model.safetensors", struct.pack("<Q", 2**62) + b"{}"
    ),
    "pickled weights": lambda folder: checkpoint(folder, "pytorch_model.bin", pickle.dumps({"weight": [1.0]})),
    "pickle file": bare_pickle,
    "empty folder": lambda folder: folder,
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("command", ["generate", "models show"])
def test_bad_model_files(cli: Cli, tmp_path: Path, kind: str, command: str) -> None:
    path = BAD[kind](tmp_path)
    arguments = ("generate", "hi", "--model", str(path)) if command == "generate" else ("models", "show", str(path))
    result = cli(*arguments)
    assert result.code == 2, result.err
    assert result.out == ""
    assert result.err.startswith("nlpkit: error: ")
    assert result.err.count("\n") == 1
    assert tmp_path.name in result.err or path.name in result.err
    if "pickle" in kind:
        assert "pickle" in result.err.lower()


def test_bad_device_and_adapter(cli: Cli, tmp_path: Path) -> None:
    path = gguf(tmp_path, b"")
    result = cli("generate", "hi", "--model", str(path), "--device", "mps")
    assert (result.code, result.out) == (2, "")
    result = cli("generate", "hi", "--model", str(path), "--adapter", str(tmp_path / "nowhere"))
    assert (result.code, result.out) == (2, "")
