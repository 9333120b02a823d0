"""What training writes, files of our own included, loads in the PEFT library and computes the same."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
import transformers

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import peft

from nlpkit.core.formats.build import build_model
from nlpkit.core.formats.hf_config import config_from_hf
from nlpkit.core.formats.key_map import KeyMap
from nlpkit.core.formats.learned_tasks import FILE_NAME, read_learned_tasks
from nlpkit.core.model.lora import LoraConfig, add_lora, lora_layers
from nlpkit.core.train.checkpoints.output import write_adapter

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

SIZES = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "pad_token_id": 0,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32}  # fmt: skip
IDS = torch.randint(0, 61, (2, 17), generator=torch.Generator().manual_seed(3))


@torch.inference_mode()
def test_peft_reads_an_adapter_that_says_what_it_was_tuned_for(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).eval()
    config = config_from_hf(base.config.to_dict())
    keymap = KeyMap(config)
    tensors = (
        (key, value.clone()) for name, tensor in base.state_dict().items()
        for key, value in keymap.to_internal(name, tensor)
    )  # fmt: skip
    model = build_model(config, tensors, where="the test")
    add_lora(model, LoraConfig(rank=3, alpha=6))
    for number, layer in enumerate(lora_layers(model).values()):
        layer.lora_b.data += 0.3 * torch.randn(layer.lora_b.shape, generator=torch.Generator().manual_seed(number))
    weights = {name: parameter.detach() for name, parameter in model.named_parameters() if "lora_" in name}
    write_adapter(tmp_path, model, weights, base_model="base", dropout=0.1, learned_tasks=["qa", "translation"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", FILE_NAME
    ]  # fmt: skip
    assert read_learned_tasks(tmp_path).names == {"qa", "translation"}
    assert json.loads((tmp_path / "adapter_config.json").read_text())["lora_dropout"] == 0.1
    plain = base(IDS).logits
    theirs = peft.PeftModel.from_pretrained(base, str(tmp_path)).eval()(IDS).logits
    assert float((theirs - plain).abs().max()) > 0.01
    assert float((theirs - model.eval()(IDS)).abs().max()) < 2e-4
