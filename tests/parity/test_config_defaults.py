"""What a config.json leaves out, and what it states beyond our tables, against the classes of `transformers`."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers

from nlpkit.core.errors import ModelFileError
from nlpkit.core.formats.build import build_model
from nlpkit.core.formats.families import FAMILIES
from nlpkit.core.formats.hf_config import config_from_hf, config_to_hf
from nlpkit.core.formats.hf_defaults import DEFAULTS, NO_MATTER, REFUSED
from nlpkit.core.formats.key_map import KeyMap

pytestmark = pytest.mark.parity

CLASSES = {
    "llama": transformers.LlamaConfig,
    "mistral": transformers.MistralConfig,
    "qwen2": transformers.Qwen2Config,
    "qwen3": transformers.Qwen3Config,
    "gemma2": transformers.Gemma2Config,
    "gemma3_text": transformers.Gemma3TextConfig,
    "phi3": transformers.Phi3Config,
    "olmo2": transformers.Olmo2Config,
    "gpt2": transformers.GPT2Config,
    "gpt_neox": transformers.GPTNeoXConfig,
}
OTHER: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 9,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "max_position_embeddings": 640,
    "rms_norm_eps": 3e-4,
    "layer_norm_eps": 3e-4,
    "layer_norm_epsilon": 3e-4,
    "sliding_window": 7,
    "use_sliding_window": True,
    "max_window_layers": 3,
    "query_pre_attn_scalar": 100,
    "attn_logit_softcapping": 11.0,
    "final_logit_softcapping": 12.0,
    "hidden_act": "relu",
    "hidden_activation": "relu",
    "activation_function": "relu",
    "n_embd": 64,
    "n_head": 4,
    "n_layer": 9,
    "n_positions": 640,
    "n_inner": 48,
    "use_parallel_residual": False,
    "scale_attn_weights": False,
}
"""Values that differ from every default."""


def stated(family: str) -> Iterator[dict[str, Any]]:
    """Whole configurations of a family: the class's own, another one, and an old file's spelling of the rotary base."""
    cls = CLASSES[family]
    known = cls().to_dict()
    yield {**known, "model_type": family}
    other = {**known, **{name: value for name, value in OTHER.items() if name in known}, "model_type": family}
    other.pop("layer_types", None)
    if "tie_word_embeddings" in other:
        other["tie_word_embeddings"] = not other["tie_word_embeddings"]
    yield other
    bare = {name: value for name, value in other.items() if name != "rope_parameters"}
    yield {**bare, "rotary_emb_base" if family == "gpt_neox" else "rope_theta": 5e4, "rotary_pct": 0.5}
    yield {"model_type": family}


def as_transformers(family: str, values: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in values.items() if name != "model_type"}
    return {**CLASSES[family].from_dict(given).to_dict(), "model_type": family}


@pytest.mark.parametrize("family", CLASSES)
def test_fields_that_are_left_out_are_the_class_s(family: str) -> None:
    assert family in FAMILIES
    compared = 0
    for whole in stated(family):
        for left_out in (None, *whole):
            if left_out == "model_type":
                continue
            values = {name: value for name, value in whole.items() if name != left_out}
            try:
                right = config_from_hf(as_transformers(family, values))
            except (ValueError, TypeError, ModelFileError):
                continue
            assert config_from_hf(values) == right, f"without {left_out}"
            compared += 1
    assert compared > 60


@pytest.mark.parametrize("family", sorted(set(CLASSES) - {"gpt2"}))
@pytest.mark.parametrize("old", [{"rope_type": "linear", "factor": 4.0}, {"type": "linear", "factor": 2.0}, {}, None])
def test_both_spellings_of_the_rotary_embedding(family: str, old: Any) -> None:
    if old and (family == "phi3" or (family == "gemma3_text" and "type" in old)):
        pytest.skip("transformers takes another kind, or this name of it, for this family alone")
    theta = {"rotary_emb_base" if family == "gpt_neox" else "rope_theta": 7e4}
    new: dict[str, Any] = {"rope_type": "default", "rope_theta": 5e5}
    if family == "gemma3_text":
        new = {"full_attention": new, "sliding_attention": {"rope_type": "default", "rope_theta": 3e4}}
    both = {"rope_parameters": new, "rope_scaling": old}
    for values in (both, {**both, **theta}, {"rope_scaling": old}, {"rope_scaling": old, **theta}):
        whole = {"model_type": family, "max_position_embeddings": 640, **values}
        right = config_from_hf(as_transformers(family, copy.deepcopy(whole)))
        assert (config_from_hf(whole).rope, config_from_hf(whole).rope_local) == (right.rope, right.rope_local)


@pytest.mark.parametrize("family", CLASSES)
def test_every_field_of_the_class_is_accounted_for(family: str) -> None:
    renamed = CLASSES[family].attribute_map
    names = {renamed.get(name, name) for name in DEFAULTS[family]} | set(DEFAULTS[family])
    names |= {"rope_parameters", "rope_scaling", "layer_types", "partial_rotary_factor", "_sliding_window_pattern"}
    names |= NO_MATTER | REFUSED[""] | REFUSED.get(family, frozenset())
    names |= {"n_embd", "n_layer", "n_head", "n_inner", "n_positions", "activation_function", "layer_norm_epsilon"}
    assert set(CLASSES[family]().to_dict()) - names == set()


@pytest.mark.parametrize(("family", "name"), [(f, n) for f, names in REFUSED.items() for n in sorted(names)])
def test_what_is_not_computed_is_refused_by_name(family: str, name: str) -> None:
    values = {"model_type": family or "llama", name: {"1": [0]} if name == "pruned_heads" else True}
    with pytest.raises(ModelFileError, match=name):
        config_from_hf(values)
    assert config_from_hf({**values, name: None})


def test_sparse_text_configuration_of_gemma_3() -> None:
    text = {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }
    config = config_from_hf({"model_type": "gemma3", "text_config": text})
    assert config == config_from_hf(as_transformers("gemma3_text", text))
    assert (config.vocab_size, config.n_heads, config.n_kv_heads, config.head_dim) == (262208, 8, 4, 256)


@torch.inference_mode()
def test_gpt2_without_scaled_scores() -> None:
    sizes = {"vocab_size": 97, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "scale_attn_weights": False}
    torch.manual_seed(0)
    config = transformers.GPT2Config(**sizes, bos_token_id=1, eos_token_id=2)
    reference = transformers.GPT2LMHeadModel._from_config(config, attn_implementation="eager").eval()
    for parameter in reference.parameters():
        parameter.data = parameter.data + 0.2 * torch.randn(parameter.shape)
    ours = config_from_hf(config.to_dict())
    assert config_from_hf(config_to_hf(ours)) == ours
    keymap = KeyMap(ours)
    tensors = [pair for name, value in reference.state_dict().items() for pair in keymap.to_internal(name, value)]
    model = build_model(ours, iter(tensors), where="the test")
    ids = torch.randint(0, 97, (2, 21), generator=torch.Generator().manual_seed(2))
    assert float((model(ids) - reference(ids).logits).abs().max()) < 1e-4
