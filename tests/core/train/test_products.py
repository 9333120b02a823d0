"""oneDNN's products and short attention in training, against autograd's own."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_models import tiny_config, tiny_gpt
from torch import Tensor, nn

from nlpkit.core.model.gpt import GPT
from nlpkit.core.train.attention import LONGEST, short_causal
from nlpkit.core.train.config import TrainConfig
from nlpkit.core.train.prepare import prepare_model
from nlpkit.core.train.products import JointLinear, OneDnnLinear, prefers_onednn, use_onednn

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this PyTorch was built without oneDNN"
)


def gradients(model: GPT, ids: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    logits = model(ids)
    slope = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    logits.backward(slope)
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {**found, "logits": logits.detach()}


@needs_onednn
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_kv_heads": 2},
        {"gated_mlp": False, "activation": "gelu"},
        {"qkv_bias": True},
        {"o_bias": True, "mlp_bias": True},
        {"qk_norm": "head"},
    ],
)
def test_outputs_and_gradients_are_autograds(options: dict[str, object]) -> None:
    model = tiny_gpt(tiny_config(**options)).requires_grad_(True)
    other = copy.deepcopy(model)
    use_onednn(other)
    assert other.state_dict().keys() == model.state_dict().keys()
    assert any(isinstance(module, (JointLinear, OneDnnLinear)) for module in other.modules())
    ids = torch.randint(0, model.config.vocab_size, (3, 17), generator=torch.Generator().manual_seed(2))
    expected, found = gradients(model.train(), ids), gradients(other.train(), ids)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=1e-5 * float(value.abs().max()), rtol=1e-4), name


@needs_onednn
def test_frozen_weights_get_no_gradient() -> None:
    first, second = nn.Linear(8, 5, bias=False), nn.Linear(8, 3, bias=False)
    first.weight.requires_grad_(False)
    second.weight.requires_grad_(False)
    x = torch.randn(2, 4, 8, requires_grad=True)
    out = JointLinear([first, second])(x)
    out.sum().backward()
    assert x.grad is not None
    expected = torch.cat((first.weight, second.weight)).sum(0).expand(2, 4, 8)
    assert torch.allclose(x.grad, expected, atol=1e-5)
    assert first.weight.grad is None


@needs_onednn
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_only_uncompiled_fp32_training_uses_it(dtype: str) -> None:
    model = tiny_gpt(tiny_config())
    config = TrainConfig(method="full", dtype=dtype, compile="off", seq_len=16, max_steps=1)
    prepare_model(model, config, n_tokens=1000)
    used = any(isinstance(module, OneDnnLinear) for module in model.modules())
    assert used == (dtype == "fp32" and prefers_onednn())


@pytest.mark.parametrize("seq", [1, 2, 31, LONGEST])
def test_short_attention_is_causal_attention(seq: int) -> None:
    generator = torch.Generator().manual_seed(seq)
    parts = [torch.randn(2, seq, 3, 8, generator=generator).transpose(1, 2) for _ in range(3)]
    slope = torch.randn(2, 3, seq, 8, generator=generator)
    found = []
    for attend in (
        lambda q, k, v: short_causal(q, k, v, scale=0.3),
        lambda q, k, v: nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3),
    ):
        q, k, v = (part.detach().clone().requires_grad_() for part in parts)
        out = attend(q, k, v)
        found.append((out.detach(), *torch.autograd.grad(out, (q, k, v), slope)))
    for mine, theirs in zip(*found, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)
