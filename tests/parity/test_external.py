"""A family that our core does not know runs through `transformers` behind the same interface."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.request import Request
from nlpkit.core.errors import ConfigError, ModelFileError
from nlpkit.core.load import load_model

pytestmark = pytest.mark.parity


def save_tokenizer(directory: Path) -> None:
    alphabet = sorted(ByteLevel.alphabet())
    vocabulary = {"<eos>": 0, **{char: i + 1 for i, char in enumerate(alphabet)}}
    tokenizer = tokenizers.Tokenizer(BPE(vocabulary, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>"}))


@pytest.fixture(scope="module")
def opt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("opt")
    torch.manual_seed(0)
    config = transformers.OPTConfig(
        vocab_size=257, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, word_embed_proj_dim=32, init_std=0.4, pad_token_id=1, bos_token_id=2, eos_token_id=0,
    )  # fmt: skip
    transformers.OPTForCausalLM(config).save_pretrained(directory)
    save_tokenizer(directory)
    return directory


def test_it_says_so_and_decodes_like_transformers(opt: Path) -> None:
    model = load_model(str(opt), dtype="fp32", device="cpu")
    assert model.facts.format == "transformers"
    assert "'opt' runs through transformers" in model.notes[0]
    reference = transformers.OPTForCausalLM.from_pretrained(opt).eval()
    texts = ["a", "some longer text", "medium"]
    requests = [
        Request(prompt_ids=tuple(model.encode(text)), config=DecodeConfig(max_tokens=10, ignore_eos=True))
        for text in texts
    ]
    results = dict(model.generate(requests))
    for i, request in enumerate(requests):
        ids = torch.tensor([request.prompt_ids])
        expected = reference.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, min_new_tokens=10, do_sample=False
        )
        assert list(results[i].completions[0].token_ids) == expected[0, ids.shape[1] :].tolist()
        (score,) = model.score([(request.prompt_ids, results[i].completions[0].token_ids)])
        assert score.logprob == pytest.approx(results[i].completions[0].logprob, abs=1e-3)


def test_sampling_several_and_beams_work_too(opt: Path) -> None:
    model = load_model(str(opt), dtype="fp32", device="cpu")
    prompt = tuple(model.encode("hello"))
    several = Request(prompt_ids=prompt, config=DecodeConfig(max_tokens=6, n=3, temperature=1.5, seed=1))
    beams = Request(prompt_ids=prompt, config=DecodeConfig(max_tokens=6, beam_size=3, n=3))
    results = dict(model.generate([several, beams]))
    for generation in results.values():
        for completion in generation.completions:
            (score,) = model.score([(prompt, completion.token_ids)])
            assert score.logprob == pytest.approx(completion.logprob, abs=1e-3)


def test_what_it_cannot_do_is_refused(opt: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="adapter"):
        load_model(str(opt), adapter=tmp_path, dtype="fp32", device="cpu")
    with pytest.raises(ConfigError, match="int8"):
        load_model(str(opt), dtype="int8", device="cpu")
    unknown = tmp_path / "unknown"
    unknown.mkdir()
    (unknown / "config.json").write_text(json.dumps({"model_type": "no_such_family", "vocab_size": 5}))
    (unknown / "model.safetensors").write_bytes((opt / "model.safetensors").read_bytes())
    with pytest.raises(ModelFileError, match="no_such_family"):
        load_model(str(unknown), dtype="fp32", device="cpu")
