"""Packed, quantized and streamed loading: the same function in another layout, and no second copy of the weights."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_models import tiny_config, tiny_gpt
from torch import nn

from nlpkit.core.formats.build import build_model
from nlpkit.core.formats.gguf.file import open_gguf
from nlpkit.core.model.gpt import GPT, Block
from nlpkit.core.quantization.fuse import fuse_projections
from nlpkit.core.quantization.linear import Int8Linear
from nlpkit.core.quantization.packed import PackedLinear, can_pack, pack_model

packs = pytest.mark.skipif(not can_pack(), reason="no packed bf16 kernels on this machine")


@packs
@pytest.mark.parametrize("shape", [(64, 64), (96, 32), (33, 17), (5, 128)])
@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("biased", [True, False])
def test_a_packed_layer_computes_the_same(shape: tuple[int, int], rows: int, biased: bool) -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(shape).bfloat16(), torch.randn(2, rows, shape[1]).bfloat16()
    bias = torch.randn(shape[0]).bfloat16() if biased else None
    out = PackedLinear(weight, bias)(x)
    assert out.shape == (2, rows, shape[0])
    wanted = F.linear(x.float(), weight.float(), None if bias is None else bias.float())
    # bf16 keeps 8 bits: one rounding of the result.
    assert torch.allclose(out.float(), wanted, rtol=2**-7, atol=2**-6)


@packs
@pytest.mark.parametrize("tied", [True, False])
def test_a_packed_model_gives_the_same_logits(tied: bool) -> None:
    model = tiny_gpt(tiny_config(tied_head=tied)).to(torch.bfloat16).eval()
    fuse_projections(model)
    ids = torch.randint(0, model.config.vocab_size, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = model(ids).float()
        assert pack_model(model)
        after = model(ids).float()
    layers = [module for module in model.modules() if isinstance(module, PackedLinear)]
    assert len(layers) == 4 * model.config.n_layers + 1
    assert (before - after).abs().max() < 0.05 * before.abs().max()


def test_other_dtypes_are_left_alone() -> None:
    model = tiny_gpt(tiny_config())
    assert not pack_model(model)
    assert not any(isinstance(module, PackedLinear) for module in model.modules())


def test_each_block_is_finished_before_the_next_is_read() -> None:
    config = tiny_config(n_layers=3)
    weights = dict(tiny_gpt(config).named_parameters())
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def stream() -> object:
        nonlocal most
        for name, value in weights.items():
            copy = value.detach().clone()
            if name.startswith("blocks."):
                alive.append(weakref.ref(copy))
            yield name, copy
            del copy
            most = max(most, sum(ref() is not None for ref in alive))

    done: list[Block] = []

    def finish(block: nn.Module) -> None:
        assert isinstance(block, Block)
        done.append(block)
        for owner in (block.attn, block.mlp):
            for name, child in list(owner.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(owner, name, Int8Linear(child.weight.detach(), None))

    model = build_model(config, stream(), where="a test", finish=finish)  # type: ignore[arg-type]
    assert isinstance(model, GPT)
    assert done == list(model.blocks)
    per_block = sum(name.startswith("blocks.0.") for name in weights)
    norms = sum(name.startswith("blocks.0.") and "norm" in name for name in weights)
    assert most <= per_block + norms * config.n_layers


def test_released_pages_are_read_again(tmp_path: Path) -> None:
    import gguf
    import numpy as np

    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    values = np.arange(64 * 1024, dtype=np.float32)
    writer.add_tensor("a", np.ones(7, np.float32))
    writer.add_tensor("b", values)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    file = open_gguf(path)
    before = file.raw("b").copy()
    for name in ("a", "b"):
        file.release(name)
    assert bool((file.raw("b") == before).all())
    assert bool((file.raw("b").view(np.float32) == values).all())
    assert bool((file.raw("a").view(np.float32) == 1).all())
