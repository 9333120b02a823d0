"""Ready-made weights in the cache: damaged files are as good as absent."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nlpkit.core.model.config import ModelConfig
from nlpkit.core.quantization import ready as module
from nlpkit.core.quantization.ready import ReadyWeights

CONFIG = ModelConfig(
    **{"family": "llama", "vocab_size": 64, "d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8},
    **{"d_ff": 64, "max_seq_len": 64},  # type: ignore[arg-type]
)


class Two(nn.Module):
    """Something with weights in both files."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Linear(64, 64)
        self.head = nn.Linear(64, 64)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ReadyWeights, list[dict[str, Any]]]:
    monkeypatch.setenv("NLPKIT_HOME", str(tmp_path / "home"))
    (tmp_path / "weights").write_bytes(b"x")
    ready = ReadyWeights(CONFIG, "int8", {"w": tmp_path / "weights"}, {}, blocks_only=True)
    built: list[dict[str, Any]] = []
    monkeypatch.setattr(ready, "_built", lambda library, tensors: built.append(tensors) or "model")
    assert ready.save(Two())  # type: ignore[arg-type]
    return ready, built


def load(ready: ReadyWeights) -> Any:
    return ready.load(None)  # type: ignore[arg-type]


def test_what_was_saved_is_loaded_and_hashed_once(kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ready, built = kept
    monkeypatch.setattr(module.hashlib, "sha256", lambda *_: pytest.fail("hashed again"))
    assert load(ready) == load(ready) == "model"
    assert set(built[0]) == {"blocks.weight", "blocks.bias", "head.weight", "head.bias"}


def test_without_its_note_a_file_is_hashed_and_the_note_made(kept: Any) -> None:
    ready, _ = kept
    for path in ready._paths.values():
        module._note(path).unlink()
    assert load(ready) == "model"
    assert all(module._note(path).exists() for path in ready._paths.values())


@pytest.mark.parametrize("part", ["blocks", "shared"])
def test_damage_anywhere_is_seen_and_mended(kept: Any, part: str) -> None:
    ready, built = kept
    path = ready._paths[part]
    whole = path.read_bytes()
    rng = random.Random(0)
    places = [rng.randrange(len(whole)) for _ in range(12)] + [0, 9, 40, len(whole) - 1]
    for at in places:
        data = bytearray(whole)
        data[at] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        assert load(ready) is None, at
        assert not path.exists()
        assert ready.save(Two())  # type: ignore[arg-type]
        assert load(ready) == "model"
        path.unlink()
        path.write_bytes(whole)
    for data in (b"", whole[:-1], whole + b"x", bytes(len(whole))):
        path.write_bytes(data)
        assert load(ready) is None
        path.write_bytes(whole)
    assert load(ready) == "model"
    assert built[-1]["head.weight"].dtype == torch.float32


def test_the_least_recently_used_go_first(kept: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready, _ = kept
    path = ready._paths["blocks"]
    assert load(ready) == "model"
    old, older = path.with_name("a" * 32 + ".safetensors"), path.with_name("b" * 32 + ".safetensors")
    for number, other in enumerate((older, old)):
        other.write_bytes(bytes(1_000))
        module._note(other).write_text("[]")
        os.utime(other, (1_000, 1_000))
        os.utime(module._note(other), (2_000 + number, 2_000 + number))
    assert time.time() > 3_000
    total = sum(one.stat().st_size for one in path.parent.glob("*.safetensors"))
    monkeypatch.setattr(module, "MAX_BYTES", total - 500)
    ready._make_room(path.parent, 0)
    assert not older.exists()
    assert not module._note(older).exists()
    assert old.exists()
    assert path.exists()
