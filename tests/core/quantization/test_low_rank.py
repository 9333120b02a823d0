"""Low-rank updates beside quantized weights: what the sum of both would give, had it enough bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_models import VARIANTS, config, decoded, library, needs_kernels, restored, unpacked
from tiny_models import tiny_gpt
from torch import Tensor

from nlpkit.core.model.gpt import GPT
from nlpkit.core.model.lora import LoraWeights
from nlpkit.core.quantization import kernel_build as kernels
from nlpkit.core.quantization.apply import add_low_rank, joined_parts, quantize_block, quantize_model
from nlpkit.core.quantization.fuse import fuse_projections
from nlpkit.core.quantization.kernel_linear import KernelLinear
from nlpkit.core.quantization.ready import ReadyWeights

TARGETS = {
    "all": ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down"),
    "some": ("attn.q", "attn.v", "mlp.up"),
}


def updates(model: GPT, names: tuple[str, ...], rank: int, *, seed: int = 0) -> dict[str, LoraWeights]:
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for number in range(model.config.n_layers):
        for joined, parts in joined_parts(model.config).items():
            inputs = model.blocks[number].get_submodule(joined).in_features
            for name, outputs in parts.items():
                if name in names:
                    own = rank + (name == "attn.v")
                    a = torch.randn(own, inputs, generator=generator)
                    b = 0.01 * torch.randn(outputs, own, generator=generator)
                    found[f"blocks.{number}.{name}"] = LoraWeights(a, b, 2.0)
    return found


def adapted(names: tuple[str, ...], rank: int, kind: str = "int4", **options: object) -> tuple[GPT, GPT]:
    """A quantized model with updates, and the same in fp32 with the sums of the weights and updates that it stands for."""
    model = tiny_gpt(config(**options), scale=0.15).to(torch.bfloat16)
    fuse_projections(model)
    wanted = updates(model, names, rank)
    for block in model.iter_blocks():
        quantize_block(block, kind, library())
    add_low_rank(model, wanted)
    quantize_model(model, kind, library())
    plain = restored(model)
    for number, block in enumerate(model.iter_blocks()):
        for joined, parts in joined_parts(model.config).items():
            layer = block.get_submodule(joined)
            if isinstance(layer, KernelLinear) and layer.low_in is not None:
                given = [wanted.get(f"blocks.{number}.{name}") for name in parts]
                plain.blocks[number].get_submodule(joined).weight.data += kept(layer, given)
    return model.eval(), plain


def kept(layer: KernelLinear, given: list[LoraWeights | None]) -> Tensor:
    """The sum of updates that a layer holds, which is about what it was given."""
    assert layer.low_in is not None
    assert layer.low_out is not None
    rank, begin, sums = layer.low_out.shape[1], 0, []
    shape = {"outputs": len(layer.parts) * rank, "inputs": layer.in_features, "bits": 8}
    low_in = unpacked(KernelLinear.packed(library(), layer.low_in, None, **shape))
    low_out = layer.low_out.float().transpose(1, 2).reshape(-1, rank)
    for number, (outputs, update) in enumerate(zip(layer.parts, given, strict=True)):
        a, b = low_in[number * rank : (number + 1) * rank], low_out[begin : begin + outputs]
        if update is None:
            assert not bool(b.any())
        else:
            own = len(update.a)
            assert float((a[:own] - update.a).abs().max()) <= float(update.a.abs().max()) / 250
            torch.testing.assert_close(b[:, :own], update.scale * update.b, rtol=2**-8, atol=0)
        sums.append(b @ a)
        begin += outputs
    return torch.cat(sums)


@needs_kernels
@pytest.mark.parametrize("kind", ["int4", "int8"])
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(("targets", "rank"), [("all", 16), ("some", 5)])
def test_the_sum_is_what_they_stand_for(name: str, targets: str, rank: int, kind: str) -> None:
    model, plain = adapted(TARGETS[targets], rank, kind, **VARIANTS[name])
    expected, found = decoded(plain), decoded(model)
    largest = float(expected.abs().max())
    assert float((found - expected).abs().max()) <= 0.06 * largest
    assert float((found - expected).square().mean().sqrt()) <= 0.012 * largest


@needs_kernels
def test_an_update_changes_the_results() -> None:
    model, _ = adapted(TARGETS["all"], 16)
    with_updates = decoded(model)
    for module in model.modules():
        if isinstance(module, KernelLinear):
            module.low_in = module.low_out = None
    without = decoded(model)
    assert float((with_updates - without).abs().max()) > 0.1 * float(without.abs().max())


@needs_kernels
@pytest.mark.parametrize("name", ["llama", "wide heads", "sliding, two rotations"])
def test_a_token_does_not_depend_on_the_pass(name: str) -> None:
    model, _ = adapted(TARGETS["all"], 24, **VARIANTS[name])
    whole = decoded(model)
    for chunk, threads in ((1, 1), (5, 2), (2048, 1), (7, 3)):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            assert torch.equal(decoded(model, chunk=chunk), whole)
        finally:
            torch.set_num_threads(before)


@needs_kernels
@settings(max_examples=60, deadline=None)
@given(
    parts=st.sampled_from([(40,), (16, 24), (32, 16, 16), (48, 16, 7)]),
    groups=st.integers(1, 4),
    rows=st.sampled_from([1, 2, 7, 8, 64, 65, 130]),
    ranks=st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40)),
    seed=st.integers(0, 1000),
)
def test_products(parts: tuple[int, ...], groups: int, rows: int, ranks: tuple[int, int, int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(sum(parts), 32 * groups, generator=generator)
    layer = KernelLinear(library(), weight, None, bits=4)
    wanted: list[LoraWeights | None] = []
    for outputs, rank in zip(parts, ranks, strict=False):
        a, b = (torch.randn(*shape, generator=generator) for shape in ((rank, 32 * groups), (outputs, rank)))
        wanted.append(LoraWeights(a, b, 0.5) if rank else None)
    layer.add_low_rank(wanted, parts)
    assert (layer.low_in is None) == (not any(ranks[: len(parts)]))
    x = torch.randint(-127, 128, (rows, 32 * groups), generator=generator).float()
    x[:, ::32] = 127.0
    stands_for = unpacked(layer).double()
    if layer.low_in is not None:
        stands_for += kept(layer, wanted).double()
    torch.testing.assert_close(layer(x), (x.double() @ stands_for.t()).float(), rtol=2e-4, atol=5e-2)


@needs_kernels
def test_parts_that_do_not_fit_are_refused() -> None:
    layer = KernelLinear(library(), torch.randn(48, 64), None, bits=4)
    update = LoraWeights(torch.randn(4, 64), torch.randn(48, 4), 1.0)
    layer.add_low_rank([update], [48])
    low_in, low_out = layer.low_in, layer.low_out
    assert low_in is not None
    assert low_out is not None
    assert low_out.shape == (3, 16, 16)
    for wrong in (
        (low_in[:-1], low_out, (48,)),
        (low_in, low_out[:2], (48,)),
        (low_in, low_out.float(), (48,)),
        (low_in, low_out.flatten(), (48,)),
        (low_in, low_out, (32, 16)),
        (low_in, low_out, (32,)),
        (torch.cat([low_in, low_in]), low_out, (24, 24)),
        (torch.cat([low_in] * 4), low_out, (16, 16, 8, 8)),
    ):
        with pytest.raises(ValueError, match="low-rank"):
            layer.take_low_rank(*wrong)


@needs_kernels
@pytest.mark.parametrize("targets", TARGETS)
def test_they_are_kept_ready(targets: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NLPKIT_HOME", str(tmp_path))
    kernels._library_at.cache_clear()
    model, _ = adapted(TARGETS[targets], 8)
    source = tmp_path / "weights"
    source.write_bytes(b"weights")
    ready = ReadyWeights(model.config, "int4", {"w": source}, {"a": source}, blocks_only=True)
    assert ready.save(model)
    found = ready.load(library())
    kernels._library_at.cache_clear()
    assert found is not None
    assert torch.equal(decoded(found), decoded(model))
