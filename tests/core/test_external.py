"""Models that are no GPT, or lack weights, are refused before `transformers` makes something up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nlpkit.core.errors import ModelFileError
from nlpkit.core.loaders.external import load_external

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
