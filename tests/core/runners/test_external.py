"""Models that are no GPT, or lack weights, are refused before `transformers` makes something up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nlpkit.core.errors import ModelFileError
from nlpkit.core.runners.external import load_external

transformers = pytest.importorskip("transformers")
SMALL = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def load(path: Path) -> Any:
    return load_external(path, dtype="fp32", device=torch.device("cpu"))


def test_an_encoder_is_refused(tmp_path: Path) -> None:
    transformers.BertModel(transformers.BertConfig(**SMALL)).save_pretrained(tmp_path)
    with pytest.raises(ModelFileError, match="holds BertModel, which is no GPT"):
        load(tmp_path)


@pytest.mark.parametrize("is_decoder", [None, False])
def test_a_bert_that_looks_both_ways_is_refused(tmp_path: Path, is_decoder: bool | None) -> None:
    transformers.BertModel(transformers.BertConfig(**SMALL)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"architectures": ["BertLMHeadModel"], "is_decoder": is_decoder}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match="which is no GPT"):
        load(tmp_path)


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    config = transformers.MarianConfig(
        vocab_size=40,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        pad_token_id=1,
        decoder_start_token_id=1,
    )
    transformers.MarianMTModel(config).save_pretrained(tmp_path)
    with pytest.raises(ModelFileError, match="holds MarianMTModel, which is no GPT"):
        load(tmp_path)


def test_missing_weights_are_named_and_not_made_up(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    config = transformers.OPTConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, ffn_dim=16, num_attention_heads=2, word_embed_proj_dim=16
    )
    transformers.OPTForCausalLM(config).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in tensors if name.endswith("fc1.weight"))
    del tensors[lost]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelFileError, match=r"Missing: .*fc1\.weight"):
        load(tmp_path)


def save_opt(path: Path, **changes: Any) -> Path:
    config = transformers.OPTConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=16, max_position_embeddings=32,
        word_embed_proj_dim=16,
    )  # fmt: skip
    transformers.OPTForCausalLM(config).save_pretrained(path)
    values = json.loads((path / "config.json").read_text()) | changes
    (path / "config.json").write_text(json.dumps(values))
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"_attn_implementation": "kernels-community/flash-attn2"},
        {"attn_implementation": "someone/code:fn"},
        {"_attn_implementation_internal": "kernels-community/x"},
        {"experts_implementation": "someone/experts"},
        {"_attn_implementation": {"": "sdpa", "text": "someone/code"}},
        {"text_config": {"_attn_implementation": "someone/code"}},
        {"use_kernels": "someone/code"},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    ],
)
def test_a_configuration_that_names_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    save_opt(tmp_path, **changes)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(ModelFileError, match=r"code from elsewhere|quantized"):
        load(tmp_path)


def test_transformers_sees_nothing_but_the_configuration_and_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    save_opt(tmp_path, auto_map={"AutoModelForCausalLM": "evil.Model"}, _attn_implementation="eager")
    (tmp_path / "evil.py").write_text("raise SystemExit('run')")
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}')
    (tmp_path / "generation_config.json").unlink(missing_ok=True)
    os.mkfifo(tmp_path / "generation_config.json")
    seen: list[Any] = []

    def look(folder: Path, **_: Any) -> Any:
        from huggingface_hub import constants

        seen.append((sorted(p.name for p in folder.iterdir()), json.loads((folder / "config.json").read_text())))
        assert constants.HF_HUB_OFFLINE
        raise RuntimeError(f"{folder} is not wanted")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", look)
    with pytest.raises(ModelFileError, match="cannot load it either") as caught:
        load(tmp_path)
    assert f"{tmp_path} is not wanted" in str(caught.value)
    ((names, config),) = seen
    assert names == ["config.json", "model.safetensors"]
    assert not {"auto_map", "_attn_implementation"} & set(config)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 5_000_000},
        {"max_position_embeddings": 2_000_000_000},
        {"max_position_embeddings": 90_000_000},
        {"hidden_size": 80_000_000},
        {"vocab_size": 10**400},
        {"num_experts": 5_000_000},
    ],
)
def test_a_foreign_family_has_bounds_too(tmp_path: Path, changes: dict[str, Any]) -> None:
    save_opt(tmp_path, **changes)
    with pytest.raises(ModelFileError) as caught:
        load(tmp_path)
    assert len(str(caught.value)) < 1_200


def test_positions_that_are_no_weights_are_bounded(tmp_path: Path) -> None:
    from nlpkit.core.files.safetensors import open_safetensors
    from nlpkit.core.runners.external_files import check_size

    config = transformers.GPTJConfig(vocab_size=40, n_embd=32, n_layer=1, n_head=4, rotary_dim=8, n_positions=64)
    transformers.GPTJForCausalLM(config).save_pretrained(tmp_path)
    files = [open_safetensors(tmp_path / "model.safetensors")]
    check_size(tmp_path, tmp_path, files)
    values = json.loads((tmp_path / "config.json").read_text()) | {"n_positions": 90_000_000}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ModelFileError, match="beside its weights"):
        check_size(tmp_path, tmp_path, files)
