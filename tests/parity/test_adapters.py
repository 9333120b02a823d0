"""LoRA adapters against the PEFT library, both ways, for families with plain, fused and transposed projections."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import peft

from nlpkit.core.errors import ModelFileError
from nlpkit.core.formats.build import build_model
from nlpkit.core.formats.hf_config import config_from_hf
from nlpkit.core.formats.key_map import KeyMap
from nlpkit.core.formats.peft.adapter import merge_adapter, open_adapter
from nlpkit.core.formats.peft.save import save_adapter
from nlpkit.core.model.gpt import GPT
from nlpkit.core.model.lora import LoraConfig, LoraLinear, add_lora, lora_layers, lora_weights, merge_lora

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

SIZES = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4, "max_position_embeddings": 32, "pad_token_id": 0}  # fmt: skip
GPT2 = {"vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32, "bos_token_id": 1,
        "eos_token_id": 2}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "llama": ("Llama", SIZES | {"num_key_value_heads": 2}, ["q_proj", "v_proj", "o_proj", "down_proj"]),
    "gpt2": ("GPT2", GPT2, ["c_attn", "c_proj", "c_fc"]),
    "phi3": ("Phi3", SIZES | {"num_key_value_heads": 2, "sliding_window": None}, ["qkv_proj", "gate_up_proj"]),
    "gpt_neox": ("GPTNeoX", SIZES, ["query_key_value", "dense", "dense_4h_to_h"]),
}
IDS = torch.randint(0, 61, (2, 17), generator=torch.Generator().manual_seed(3))


def reference(family: str) -> transformers.PreTrainedModel:
    kind, sizes, _ = FAMILIES[family]
    name = "GPT2LMHeadModel" if kind == "GPT2" else kind + "ForCausalLM"
    torch.manual_seed(0)
    model = getattr(transformers, name)._from_config(
        getattr(transformers, kind + "Config")(**sizes), attn_implementation="eager", dtype=torch.float32
    )
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape)
    return model.eval()


def stream(model: transformers.PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    keymap = KeyMap(config_from_hf(model.config.to_dict()))
    for name, tensor in model.state_dict().items():
        yield from ((key, value.clone()) for key, value in keymap.to_internal(name, tensor))


def ours(model: transformers.PreTrainedModel) -> GPT:
    return build_model(config_from_hf(model.config.to_dict()), stream(model), where="the test")


def peft_adapter(model: transformers.PreTrainedModel, family: str, path: Path, **options: Any) -> Any:
    settings = peft.LoraConfig(**{"r": 4, "lora_alpha": 12, "target_modules": FAMILIES[family][2],
                                  "task_type": "CAUSAL_LM", **options})  # fmt: skip
    wrapped = peft.get_peft_model(model, settings).eval()
    generator = torch.Generator().manual_seed(5)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    wrapped.save_pretrained(path)
    return wrapped


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"rank_pattern": {r".*\.1\..*": 2}, "alpha_pattern": {r".*\.0\..*": 3}},
    ],
    ids=["plain", "rslora", "dora", "patterns"],
)
@torch.inference_mode()
def test_an_adapter_of_peft_gives_the_logits_of_peft(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    base = reference(family)
    expected_base = base(IDS).logits
    model = ours(base)
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = peft_adapter(base, family, tmp_path, **options)(IDS).logits
    assert float((expected - expected_base).abs().max()) > 0.1
    adapter = open_adapter(tmp_path)
    assert set(adapter.files) == {"adapter_config.json", "adapter_model.safetensors"}
    merged = build_model(model.config, merge_adapter(model.config, iter(tensors.items()), adapter), where="x")
    assert float((merged(IDS) - expected).abs().max()) < 2e-4
    # The same updates beside the weights instead of inside them.
    add_lora(model, LoraConfig(), start=adapter.internal(model.config))
    assert float((model(IDS) - expected).abs().max()) < 2e-4


HEADS = {"llama": "q_proj", "gpt2": "c_attn", "phi3": "qkv_proj", "gpt_neox": "query_key_value"}


@pytest.mark.parametrize("family", HEADS)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("copied", ["auto", False])
@pytest.mark.filterwarnings("ignore::UserWarning")
@torch.inference_mode()
def test_an_update_of_the_output_head(family: str, tied: bool, copied: Any, tmp_path: Path) -> None:
    kind, sizes, _ = FAMILIES[family]
    FAMILIES["with a head"] = (kind, sizes | {"tie_word_embeddings": tied}, [HEADS[family], "lm_head"])
    try:
        base = reference("with a head")
        config, tensors = config_from_hf(base.config.to_dict()), dict(stream(base))
        wrapped = peft_adapter(base, "with a head", tmp_path)
        wrapped.save_pretrained(str(tmp_path), save_embedding_layers=copied)
        expected = wrapped(IDS).logits
    finally:
        del FAMILIES["with a head"]
    assert config.tied_head == tied
    adapter = open_adapter(tmp_path)
    assert bool(adapter.copies) == bool(copied)
    fitting = adapter.fitting(config)
    assert not fitting.tied_head
    merged = build_model(fitting, merge_adapter(config, iter(tensors.items()), adapter), where="x")
    assert float((merged(IDS) - expected).abs().max()) < 2e-4
    # In fewer digits than the copy has.
    rough = {name: tensor.to(torch.bfloat16).float() for name, tensor in tensors.items()}
    close = build_model(fitting, merge_adapter(config, iter(rough.items()), adapter), where="x")
    assert float((close(IDS) - expected).abs().max()) < 1
    if copied:
        name = "embed.weight" if tied else "head.weight"
        other = {**tensors, name: tensors[name].flip(0)}
        with pytest.raises(ModelFileError, match=r"another lm_head\.weight"):
            list(merge_adapter(config, iter(other.items()), adapter))


@pytest.mark.parametrize(
    "pattern", ["(q|v)_proj", "[qv]_proj", "(?:q_proj|v_proj)", r"layers\.1\.self_attn\.(q|k|v|o)_proj", "q_proj"]
)
@torch.inference_mode()
def test_ranks_and_alphas_by_patterns(pattern: str, tmp_path: Path) -> None:
    base = reference("llama")
    model = ours(base)
    options = {"rank_pattern": {pattern: 2}, "alpha_pattern": {pattern: 5}}
    expected = peft_adapter(base, "llama", tmp_path, **options)(IDS).logits
    adapter = open_adapter(tmp_path)
    add_lora(model, LoraConfig(), start=adapter.internal(model.config))
    assert float((model(IDS) - expected).abs().max()) < 2e-4


@pytest.mark.parametrize(
    "pattern",
    ["(a|a)" * 20, "(a*)*b", "((a|b)+)+", "a?" * 30, r"(a)\1", "(?=a)", "(?P<x>a)", "a{3}", "a*a*a*", "((", 3],
)
def test_slow_patterns_are_refused(pattern: Any, tmp_path: Path) -> None:
    peft_adapter(reference("llama"), "llama", tmp_path)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | {"alpha_pattern": {pattern: 2}}))
    if isinstance(pattern, str):
        with pytest.raises(ModelFileError, match="alpha_pattern"):
            open_adapter(tmp_path)
    # Ranks are those of the weights: the pattern is never matched.
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | {"rank_pattern": {pattern: 2}}))
    assert open_adapter(tmp_path).modules


def our_adapter(model: GPT, **options: Any) -> None:
    add_lora(model, LoraConfig(**{"rank": 3, "alpha": 6, **options}))
    generator = torch.Generator().manual_seed(7)
    for layer in lora_layers(model).values():
        layer.lora_b.data += 0.3 * torch.randn(layer.lora_b.shape, generator=generator)
        if layer.magnitude is not None:
            layer.magnitude.data += 0.3 * torch.randn(layer.magnitude.shape, generator=generator)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True}, {"targets": ("q", "v", "up")}])
@torch.inference_mode()
def test_peft_reads_our_adapter(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    base = reference(family)
    model = ours(base)
    our_adapter(model, **options)
    save_adapter(tmp_path, model.config, lora_weights(model), base_model="base")
    expected = model(IDS)
    theirs = peft.PeftModel.from_pretrained(base, str(tmp_path))
    assert float((theirs(IDS).logits - expected).abs().max()) < 2e-4
    # And we read it back.
    again = ours(reference(family))
    add_lora(again, LoraConfig(), start=open_adapter(tmp_path).internal(again.config))
    assert float((again(IDS) - expected).abs().max()) < 2e-4
    merge_lora(model)
    assert not any(isinstance(module, LoraLinear) for module in model.modules())
    difference = float((model(IDS) - expected).abs().max())
    print(f"{family}: largest logit difference of merged and unmerged weights {difference:.1e}")
    assert difference < 2e-4


def test_dora_cannot_adapt_a_part_of_a_fused_module(tmp_path: Path) -> None:
    model = ours(reference("gpt2"))
    add_lora(model, LoraConfig(rank=2, targets=("q",), use_dora=True))
    with pytest.raises(ModelFileError, match=r"all of them or none"):
        save_adapter(tmp_path, model.config, lora_weights(model))


def test_step_0_is_the_base() -> None:
    model = ours(reference("llama"))
    with torch.inference_mode():
        before = model(IDS)
    names = add_lora(model, LoraConfig(rank=5))
    assert len(names) == 14
    with torch.inference_mode():
        assert torch.equal(model(IDS), before)


def test_an_adapter_for_another_model_is_refused(tmp_path: Path) -> None:
    peft_adapter(reference("llama"), "llama", tmp_path)
    config = config_from_hf(reference("gpt_neox").config.to_dict())
    with pytest.raises(
        ModelFileError, match=r"no linear layer model\.layers\.0\.self_attn\.q_proj; .*layers\.1\.self_attn\.v_proj"
    ):
        merge_adapter(config, iter(()), open_adapter(tmp_path))
    wide = transformers.LlamaConfig(**{**SIZES, "num_key_value_heads": 2, "hidden_size": 64})
    with pytest.raises(ModelFileError, match=r"updates a weight of \(32, 32\), the model has \(64, 64\)"):
        merge_adapter(config_from_hf(wide.to_dict()), iter(()), open_adapter(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "'IA3'"),
        ({"bias": "all"}, "trains biases"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
        ({"lora_bias": True}, "lora_bias=True"),
        ({"something_new": 3}, "something_new=3"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"task_type": "SEQ_CLS"}, "SEQ_CLS"),
        ({"r": 0}, "rank 0"),
        ({"r": 7}, "its rank is 7"),
        ({"lora_alpha": "much"}, "lora_alpha 'much'"),
        ({"lora_alpha": 10**400}, "lora_alpha 1000"),
        ({"r": 10**400}, "rank 1000"),
        ({"alpha_pattern": {"(a+)+": 2}}, "alpha_pattern"),
        ({"alpha_pattern": {"q_proj": -1}}, "alpha_pattern"),
        ({"use_dora": True}, "lora_magnitude_vector are needed"),
    ],
)
def test_unusable_settings_are_refused_by_name(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    peft_adapter(reference("llama"), "llama", tmp_path)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | change))
    with pytest.raises(ModelFileError, match=message):
        open_adapter(tmp_path)


def test_unusable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no adapter at"):
        open_adapter(tmp_path)
    peft_adapter(reference("llama"), "llama", tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    save_file({"base_model.model.model.embed_tokens.weight": torch.zeros(2, 2)}, weights)
    with pytest.raises(ModelFileError, match="embed_tokens"):
        open_adapter(tmp_path)
    weights.rename(tmp_path / "adapter_model.bin")
    with pytest.raises(ModelFileError, match="pickle"):
        open_adapter(tmp_path)
