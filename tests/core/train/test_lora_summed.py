"""The update summed into its weight first, as training does, against the two products apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import tiny_config, tiny_gpt
from torch import Tensor, nn

from nlpkit.core.model.lora import LoraConfig, LoraLinear, LoraWeights, add_lora, lora_layers, product_apart
from nlpkit.core.train.config import TrainConfig
from nlpkit.core.train.prepare import prepare_model
from nlpkit.core.train.products import summed_product

IN, OUT, RANK = 24, 40, 5


def layer(*, bias: bool, summed: bool, dtype: torch.dtype = torch.float32, **options: Any) -> LoraLinear:
    generator = torch.Generator().manual_seed(4)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    base = nn.Linear(IN, OUT, bias=bias)
    with torch.no_grad():
        base.weight.copy_(noise(OUT, IN))
        if bias:
            base.bias.copy_(noise(OUT))
    weights = LoraWeights(noise(RANK, IN), noise(OUT, RANK), 0.7, options.pop("magnitude", None))
    made = LoraLinear(base.to(dtype), weights, **options)
    made.product = summed_product if summed else product_apart
    return made.train()


def outcome(made: LoraLinear, x: Tensor, *, needs_slope: bool) -> dict[str, Tensor]:
    x = x.clone().requires_grad_(needs_slope)
    out = made(x)
    slope = torch.randn(out.shape, generator=torch.Generator().manual_seed(6)).to(out.dtype)
    out.backward(slope)
    assert made.base.weight.grad is None
    assert made.base.bias is None or made.base.bias.grad is None
    assert (x.grad is not None) == needs_slope
    found = {"out": out.detach(), "a": made.lora_a.grad, "b": made.lora_b.grad}
    return {name: tensor for name, tensor in {**found, "x": x.grad}.items() if tensor is not None}


@pytest.mark.parametrize("shape", [(7, IN), (2, 9, IN), (2, 3, 4, IN), (1, IN)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("needs_slope", [True, False])
def test_summed_equals_apart(shape: tuple[int, ...], bias: bool, needs_slope: bool) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    expected = outcome(layer(bias=bias, summed=False), x, needs_slope=needs_slope)
    got = outcome(layer(bias=bias, summed=True), x, needs_slope=needs_slope)
    assert got.keys() == expected.keys() >= {"out", "a", "b"}
    for name, value in expected.items():
        assert float((got[name] - value).norm()) <= 1e-5 * float(value.norm()), name


def test_rounded_to_16_bits_it_stays_near() -> None:
    x = torch.randn(2, 9, IN, generator=torch.Generator().manual_seed(5))
    expected = outcome(layer(bias=True, summed=False), x, needs_slope=True)
    got = outcome(layer(bias=True, summed=True, dtype=torch.bfloat16), x.to(torch.bfloat16), needs_slope=True)
    assert got["a"].dtype == got["b"].dtype == torch.float32
    assert got["x"].dtype == got["out"].dtype == torch.bfloat16
    for name, value in expected.items():
        assert float((got[name].float() - value).norm()) <= 0.02 * float(value.norm()), name


def test_a_slope_of_another_layout() -> None:
    """Gradients may come transposed or expanded."""
    for reshape in (lambda out: out.transpose(0, 1).sum(), lambda out: (out.transpose(0, 1) ** 2).sum()):
        found = []
        for summed in (False, True):
            made = layer(bias=True, summed=summed)
            x = torch.randn(3, 9, IN, generator=torch.Generator().manual_seed(5), requires_grad=True)
            reshape(made(x)).backward()
            found.append([x.grad, made.lora_a.grad, made.lora_b.grad])
        for apart, together in zip(*found, strict=True):
            assert torch.allclose(apart, together, rtol=1e-4, atol=1e-3)


def test_where_it_does_not_apply_nothing_is_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout is on the update's input alone, DoRA needs the parts, and in evaluation inputs may be few."""
    x = torch.randn(2, 9, IN, generator=torch.Generator().manual_seed(5))
    plain, summed = layer(bias=True, summed=False), layer(bias=True, summed=True)
    monkeypatch.setattr("nlpkit.core.train.products._SummedProduct.apply", None)
    assert torch.equal(summed.eval()(x), plain.eval()(x))
    torch.manual_seed(0)
    dropped = layer(bias=True, summed=True, dropout=0.5)(x)
    torch.manual_seed(0)
    assert torch.equal(dropped, layer(bias=True, summed=False, dropout=0.5)(x))
    lengths = torch.linspace(1, 2, OUT)
    dora = layer(bias=True, summed=True, magnitude=lengths)(x)
    assert torch.equal(dora, layer(bias=True, summed=False, magnitude=lengths)(x))
    with pytest.raises(TypeError):
        summed.train()(x)


@pytest.mark.parametrize(
    ("options", "masters", "summed"),
    [({}, True, True), ({"dtype": "bf16"}, True, True), ({}, False, True), ({"dtype": "bf16"}, False, False)],
)
def test_training_sums_but_not_under_autocast(options: dict[str, Any], masters: bool, summed: bool) -> None:
    model = tiny_gpt(tiny_config())
    add_lora(model, LoraConfig(rank=2))
    config = TrainConfig(method="lora", max_steps=1, compile="off", **options)
    prepare_model(model, config, n_tokens=1, masters=masters)
    products = {made.product for made in lora_layers(model).values()}
    assert products == {summed_product if summed else product_apart}


@pytest.mark.parametrize("changes", [{}, {"qkv_bias": True, "o_bias": True}])
def test_a_whole_model_has_the_same_gradients(changes: dict[str, Any]) -> None:
    found = []
    for summed in (False, True):
        model = tiny_gpt(tiny_config(**changes), scale=0.1)
        add_lora(model, LoraConfig(rank=3))
        generator = torch.Generator().manual_seed(8)
        for made in lora_layers(model).values():
            made.product = summed_product if summed else product_apart
            made.lora_b.data += 0.2 * torch.randn(made.lora_b.shape, generator=generator)
        ids = torch.randint(0, 29, (2, 20), generator=generator)
        # In fp64 what is left is far below any mistake; in fp32 it depends on the processor's order of sums.
        loss = model.double().train()(ids).log_softmax(-1)[..., 3].sum()
        loss.backward()
        found.append(
            {name: p.grad for name, p in model.named_parameters() if p.grad is not None} | {"loss": loss.detach()}
        )
    assert found[0].keys() == found[1].keys()
    assert len(found[0]) == 2 * 14 + 1
    largest = max(float(value.norm()) for value in found[0].values())
    for name, value in found[0].items():
        assert float((found[1][name] - value).norm()) <= 1e-7 * largest, name
