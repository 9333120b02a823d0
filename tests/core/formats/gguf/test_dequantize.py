"""Decoding of block-coded weights, against the gguf package bit by bit."""

from __future__ import annotations

import tracemalloc

import gguf.quants
import numpy as np
import pytest
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from nlpkit.core.errors import ModelFileError
from nlpkit.core.formats.gguf import dequantize as gguf_dequant
from nlpkit.core.formats.gguf.dequantize import dequantize
from nlpkit.core.formats.gguf.types import BLOCKS, GGMLType

PLAIN = ("F32", "F16")
TYPES = [GGMLQuantizationType[name] for name in PLAIN] + sorted(gguf.quants._type_traits)


def test_types_are_those_of_the_gguf_package() -> None:
    ours = {int(type_): (type_.name, *sizes) for type_, sizes in BLOCKS.items()}
    theirs = {int(type_): (type_.name, *sizes) for type_, sizes in GGML_QUANT_SIZES.items()}
    # An older package may know fewer.
    assert {number: ours.get(number) for number in theirs} == theirs
    assert set(BLOCKS) == set(GGMLType)


def blocks(type_: GGMLQuantizationType, n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    size, n_bytes = GGML_QUANT_SIZES[type_]
    if type_.name in PLAIN:
        return rng.standard_normal(n * size).astype(np.dtype(f"<f{n_bytes}")).view(np.uint8)
    return rng.integers(0, 256, n * n_bytes, dtype=np.uint8)


def reference(raw: np.ndarray, type_: GGMLQuantizationType, shape: tuple[int, ...]) -> np.ndarray:
    n_bytes = GGML_QUANT_SIZES[type_][1]
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(raw.reshape(-1, n_bytes), type_).reshape(shape)


@pytest.mark.parametrize("type_", TYPES, ids=lambda t: t.name)
def test_equal_to_the_gguf_package_to_the_bit(type_: GGMLQuantizationType, monkeypatch: pytest.MonkeyPatch) -> None:
    size = GGML_QUANT_SIZES[type_][0]
    shape = (7, 30 * size)
    raw = blocks(type_, 210)
    expected = reference(raw, type_, shape)
    assert np.isfinite(expected).mean() > 0.85
    # Whole, and in chunks that do not divide the rows.
    for chunk in (gguf_dequant.CHUNK_ELEMENTS, 11 * size):
        monkeypatch.setattr(gguf_dequant, "CHUNK_ELEMENTS", chunk)
        got = dequantize(raw, type_, shape, torch.float32)
        assert got.shape == shape
        assert np.array_equal(got.numpy(), expected, equal_nan=True)
        narrow = dequantize(raw, type_, shape, torch.bfloat16)
        wanted = torch.from_numpy(expected.copy()).to(torch.bfloat16)
        assert torch.equal(narrow.nan_to_num(), wanted.nan_to_num())


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16", "TQ1_0", "TQ2_0"])
def test_quantized_numbers_come_back_close(name: str) -> None:
    type_ = GGMLQuantizationType[name]
    values = np.random.default_rng(1).standard_normal((4, 512)).astype(np.float32)
    raw = gguf.quants.quantize(values, type_).view(np.uint8).reshape(-1)
    got = dequantize(raw, type_, (4, 512), torch.float32).numpy()
    tolerance = {"BF16": 0.02, "Q8_0": 0.03, "Q5_0": 0.2, "Q5_1": 0.2, "Q4_0": 0.4, "Q4_1": 0.4}.get(name, 3.0)
    assert np.abs(got - values).max() < tolerance
    assert np.corrcoef(got.ravel(), values.ravel())[0, 1] > 0.6


def test_result_shares_no_memory_with_the_file() -> None:
    raw = blocks(GGMLQuantizationType.F32, 8)
    got = dequantize(raw, GGMLQuantizationType.F32, (8,), torch.float32)
    before = got.clone()
    raw[:] = 0
    assert torch.equal(got, before)


def test_misaligned_and_read_only_bytes_are_fine() -> None:
    raw = np.concatenate([np.zeros(3, np.uint8), blocks(GGMLQuantizationType.Q4_1, 4)])[3:]
    expected = reference(raw, GGMLQuantizationType.Q4_1, (4, 32))
    raw.flags.writeable = False
    assert np.array_equal(
        dequantize(raw, GGMLQuantizationType.Q4_1, (4, 32), torch.float32).numpy(), expected, equal_nan=True
    )


@pytest.mark.parametrize(("shape", "n_bytes"), [((2, 32), 39), ((2, 31), 40), ((), 20), ((3, 32), 40)])
def test_wrong_sizes_are_refused(shape: tuple[int, ...], n_bytes: int) -> None:
    with pytest.raises(ModelFileError, match="does not fit its"):
        dequantize(np.zeros(n_bytes, np.uint8), GGMLQuantizationType.Q4_1, shape, torch.float32)


@pytest.mark.parametrize("name", ["I8", "I32", "Q8_K"])
def test_types_that_hold_no_weights_are_refused(name: str) -> None:
    type_ = GGMLQuantizationType[name]
    size, n_bytes = GGML_QUANT_SIZES[type_]
    with pytest.raises(ModelFileError, match=f"type {name} cannot be decoded"):
        dequantize(np.zeros(n_bytes, np.uint8), type_, (size,), torch.float32)


def test_temporary_memory_does_not_grow_with_the_tensor() -> None:
    type_ = GGMLQuantizationType.IQ4_XS
    raw = blocks(type_, 8192)
    # The first call builds the package's tables.
    dequantize(raw[: 136 * 4], type_, (4, 256), torch.bfloat16)
    tracemalloc.start()
    try:
        dequantize(raw, type_, (8192, 256), torch.bfloat16)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * gguf_dequant.CHUNK_ELEMENTS * 4
