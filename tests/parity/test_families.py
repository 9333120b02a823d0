"""Our GPT against tiny random models of `transformers`, family by family."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from nlpkit.core.formats.build import build_model
from nlpkit.core.formats.hf_config import config_from_hf, config_to_hf
from nlpkit.core.formats.key_map import KeyMap
from nlpkit.core.model.cache import KVCache
from nlpkit.core.model.config import ModelConfig
from nlpkit.core.model.gpt import GPT

pytestmark = pytest.mark.parity

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.5],
    "long_factor": [2.0, 3.0, 4.0, 5.0],
    "original_max_position_embeddings": 64,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama_biases": ("Llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 16}),
    "llama_linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}),
    "llama_llama3": ("Llama", {"rope_parameters": LLAMA3}),
    "llama_yarn": ("Llama", {"rope_parameters": YARN}),
    "llama_dynamic": ("Llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral_sliding": ("Mistral", {"sliding_window": 7}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2_sliding": ("Qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "gemma2": ("Gemma2", {"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 6}),
    "gemma3_text": ("Gemma3Text", {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 6}),
    "phi3": ("Phi3", {"sliding_window": None}),
    "phi3_longrope": ("Phi3", {"rope_parameters": LONG, "max_position_embeddings": 256,
                               "original_max_position_embeddings": 64}),
    "olmo2": ("Olmo2", {}),
    "gpt2": ("GPT2", {}),
    "gpt_neox": ("GPTNeoX", {}),
    "gpt_neox_serial": ("GPTNeoX", {"use_parallel_residual": False}),
}  # fmt: skip
CLASSES = {"Gemma3Text": "Gemma3ForCausalLM", "GPT2": "GPT2LMHeadModel"}


def reference_model(kind: str, options: dict[str, Any]) -> transformers.PreTrainedModel:
    sizes = dict(SIZES)
    if kind == "GPT2":
        sizes = {
            "vocab_size": 97,
            "n_embd": 32,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 64,
            "bos_token_id": 1,
            "eos_token_id": 2,
        }
    elif kind == "GPTNeoX":
        del sizes["num_key_value_heads"]
    config = getattr(transformers, kind + "Config")(**{**sizes, **options})
    torch.manual_seed(0)
    model = getattr(transformers, CLASSES.get(kind, kind + "ForCausalLM"))._from_config(
        config, attn_implementation="eager", dtype=torch.float32
    )
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():  # norms and biases at their initial 1 and 0 would hide mistakes
        parameter.data = parameter.data + 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def our_tensors(config: ModelConfig, model: transformers.PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    keymap = KeyMap(config)
    for name, tensor in model.state_dict().items():
        yield from keymap.to_internal(name, tensor)


def our_model(reference: transformers.PreTrainedModel) -> GPT:
    config = config_from_hf(reference.config.to_dict())
    return build_model(config, our_tensors(config, reference), where="the test")


@pytest.fixture(params=CASES)
def pair(request: pytest.FixtureRequest) -> tuple[GPT, transformers.PreTrainedModel]:
    reference = reference_model(*CASES[request.param])
    return our_model(reference), reference


def difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max())


@torch.inference_mode()
def test_uncached_logits_agree(pair: tuple[GPT, transformers.PreTrainedModel]) -> None:
    model, reference = pair
    ids = torch.randint(0, 97, (2, 21), generator=torch.Generator().manual_seed(2))
    expected = reference(ids).logits
    assert float(expected.std()) > 0.05
    assert difference(model(ids), expected) < 1e-4


@torch.inference_mode()
def test_cached_logits_agree(pair: tuple[GPT, transformers.PreTrainedModel]) -> None:
    """Rows of unequal length, prefilled right-padded and continued token by token, against whole rows."""
    model, reference = pair
    ids = torch.randint(0, 97, (3, 24), generator=torch.Generator().manual_seed(3))
    expected = reference(ids).logits
    cache = KVCache(model.config, n_rows=4, dtype=torch.float32, device=torch.device("cpu"))
    lengths = torch.tensor([3, 11, 7])
    prompt = torch.where(torch.arange(11) < lengths[:, None], ids[:, :11], 5)
    got = model(prompt, cache=cache.rows(1, 3, n_slots=11))
    for row, length in enumerate(lengths.tolist()):
        assert difference(got[row, :length], expected[row, :length]) < 1e-4
    for step in range(12):
        positions = (lengths + step)[:, None]
        tokens = ids.gather(1, positions)
        longest = int(positions.max()) + 1
        got = model(tokens, positions=positions, cache=cache.rows(1, 3, n_slots=longest))
        for row, position in enumerate(positions[:, 0].tolist()):
            assert difference(got[row, 0], expected[row, position]) < 1e-4


@torch.inference_mode()
def test_chunked_prefill_agrees(pair: tuple[GPT, transformers.PreTrainedModel]) -> None:
    model, reference = pair
    ids = torch.randint(0, 97, (1, 30), generator=torch.Generator().manual_seed(4))
    expected = reference(ids).logits
    cache = KVCache(model.config, n_rows=1, dtype=torch.float32, device=torch.device("cpu"))
    parts = []
    for start in range(0, 30, 8):
        chunk = ids[:, start : start + 8]
        positions = torch.arange(start, start + chunk.shape[1])[None]
        parts.append(model(chunk, positions=positions, cache=cache.rows(0, 1, n_slots=start + chunk.shape[1])))
    assert difference(torch.cat(parts, 1), expected) < 1e-4


@pytest.mark.parametrize("case", ["llama_dynamic", "phi3_longrope"])
@torch.inference_mode()
def test_length_dependent_rope_beyond_the_original_context(case: str) -> None:
    reference = reference_model(*CASES[case])
    ids = torch.randint(0, 97, (1, 90), generator=torch.Generator().manual_seed(5))
    assert difference(our_model(reference)(ids), reference(ids).logits) < 1e-4


def test_configuration_round_trip(pair: tuple[GPT, transformers.PreTrainedModel]) -> None:
    model, _ = pair
    assert config_from_hf(config_to_hf(model.config)) == model.config
    assert ModelConfig.from_dict(model.config.to_dict()) == model.config


def test_weights_round_trip(pair: tuple[GPT, transformers.PreTrainedModel]) -> None:
    model, reference = pair
    back = dict(KeyMap(model.config).to_source(model.state_dict()))
    state = {name.replace("lm_head", "embed_out") if model.config.family == "gpt_neox" else name: tensor
             for name, tensor in reference.state_dict().items()}  # fmt: skip
    if model.config.tied_head:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("lm_head")}
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
