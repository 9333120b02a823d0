"""Turning GGUF's block-coded weights into torch tensors.

A coded tensor is a run of blocks; each holds scales and a few bits per weight (ggml's ``ggml-quants.c``). The
common codings have torch kernels here, several times faster than numpy; `gguf.quants` decodes the others.
Both give the same fp32 numbers to the bit. Blocks go through in chunks, so the temporary memory does not grow
with the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nlpkit.core.errors import ModelFileError
from nlpkit.core.formats.gguf.types import BLOCKS, GGMLType

CHUNK_ELEMENTS = 1 << 18
"""Weights decoded at a time: small enough for a CPU cache, large enough for torch to use its threads."""

_Kernel = Callable[[Tensor, Tensor], None]


def _half(blocks: Tensor, at: int) -> Tensor:
    """The fp16 number at byte `at` of each block, as fp32 ``(n, 1)``."""
    return blocks.view(torch.float16)[:, at // 2 : at // 2 + 1].float()


def _nibbles(blocks: Tensor, start: int, end: int) -> Tensor:
    """Low then high nibbles of bytes ``start:end`` of each block: uint8 ``(n, 2, end - start)``."""
    # As 16-bit lanes: half the work. The sign that the shift drags in is masked away.
    words = blocks.view(torch.int16)[:, start // 2 : end // 2]
    out = torch.empty((blocks.shape[0], 2, (end - start) // 2), dtype=torch.int16)
    torch.bitwise_and(words, 0x0F0F, out=out[:, 0])
    torch.bitwise_and(words >> 4, 0x0F0F, out=out[:, 1])
    return out.view(torch.uint8)


def _bits(packed: Tensor, *, step: int) -> Tensor:
    """Split bytes ``(..., k)`` into ``8 / step`` planes of `step` bits, low first: ``(..., 8 / step, k)``."""
    shifts = torch.arange(0, 8, step, dtype=torch.uint8).unsqueeze(-1)
    return (packed.unsqueeze(-2) >> shifts) & ((1 << step) - 1)


def _fifth_bits(blocks: Tensor, at: int) -> Tensor:
    """The 32 bits at byte `at` of each block as uint8 ``(n, 32)``, each worth 16."""
    shifts = torch.arange(8, dtype=torch.uint8)
    return (((blocks[:, at : at + 4].unsqueeze(-1) >> shifts) & 1) << 4).flatten(1)


def _q8_0(blocks: Tensor, out: Tensor) -> None:
    out.copy_(blocks[:, 2:].view(torch.int8)).mul_(_half(blocks, 0))


def _q4_0(blocks: Tensor, out: Tensor) -> None:
    out.copy_(_nibbles(blocks, 2, 18).flatten(1)).sub_(8).mul_(_half(blocks, 0))


def _q4_1(blocks: Tensor, out: Tensor) -> None:
    out.copy_(_nibbles(blocks, 4, 20).flatten(1)).mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _q5_0(blocks: Tensor, out: Tensor) -> None:
    q = _nibbles(blocks, 6, 22).flatten(1) | _fifth_bits(blocks, 2)
    out.copy_(q).sub_(16).mul_(_half(blocks, 0))


def _q5_1(blocks: Tensor, out: Tensor) -> None:
    q = _nibbles(blocks, 8, 24).flatten(1) | _fifth_bits(blocks, 4)
    out.copy_(q).mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _k_scales(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and minimum of the eight sub-blocks of Q4_K and Q5_K, fp32 ``(n, 8, 1)`` each.

    Twelve bytes hold sixteen 6-bit numbers: the first four scales and the first four minima take the low 6
    bits of a byte each; the others have their low nibbles in the last four bytes and their upper 2 bits on
    top of the first eight.
    """
    low, mid, rest = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = torch.cat((low & 0x3F, (rest & 0x0F) | ((low >> 2) & 0x30)), -1)
    minima = torch.cat((mid & 0x3F, (rest >> 4) | ((mid >> 2) & 0x30)), -1)
    return (
        (_half(blocks, 0) * scales.float()).unsqueeze(-1),
        (_half(blocks, 2) * minima.float()).unsqueeze(-1),
    )


def _q4_k(blocks: Tensor, out: Tensor) -> None:
    n = blocks.shape[0]
    scale, minimum = _k_scales(blocks)
    groups = [_nibbles(blocks, 16 + 32 * group, 48 + 32 * group) for group in range(4)]
    out.view(n, 8, 32).copy_(torch.cat(groups, 1)).mul_(scale).sub_(minimum)


def _q5_k(blocks: Tensor, out: Tensor) -> None:
    n = blocks.shape[0]
    scale, minimum = _k_scales(blocks)
    groups = [_nibbles(blocks, 48 + 32 * group, 80 + 32 * group) for group in range(4)]
    q = torch.cat(groups, 1) | (_bits(blocks[:, 16:48], step=1) << 4)
    out.view(n, 8, 32).copy_(q).mul_(scale).sub_(minimum)


def _q6_k(blocks: Tensor, out: Tensor) -> None:
    n = blocks.shape[0]
    low = torch.cat([_nibbles(blocks, 64 * half, 64 * half + 64) for half in range(2)], 1)
    high = _bits(blocks[:, 128:192].reshape(n, 2, 32), step=2) << 4
    q = low.view(n, 2, 4, 32) | high
    scale = _half(blocks, 208) * blocks[:, 192:208].view(torch.int8).float()
    out.view(n, 16, 16).copy_(q.view(n, 16, 16)).sub_(32).mul_(scale.unsqueeze(-1))


_T = GGMLType
_KERNELS: Mapping[GGMLType, _Kernel] = {
    _T.Q8_0: _q8_0,
    _T.Q4_0: _q4_0,
    _T.Q4_1: _q4_1,
    _T.Q5_0: _q5_0,
    _T.Q5_1: _q5_1,
    _T.Q4_K: _q4_k,
    _T.Q5_K: _q5_k,
    _T.Q6_K: _q6_k,
}
_PLAIN: Mapping[GGMLType, torch.dtype] = {
    _T.F32: torch.float32,
    _T.F16: torch.float16,
    _T.BF16: torch.bfloat16,
    _T.F64: torch.float64,
}


def dequantize(raw: npt.NDArray[np.uint8], type_: GGMLType, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Decode one tensor.

    Args:
        raw: Its bytes, uint8 ``[n_bytes]``, such as `GGUFFile.raw` returns.
        type_: Its coding.
        shape: Its row-major shape; the last dimension is a multiple of the coding's block.
        dtype: Floating dtype of the result.

    Returns:
        A new tensor of that shape; it shares no memory with `raw`.

    Raises:
        ModelFileError: Bytes and shape do not fit, or the coding is not one for weights.
    """
    block, n_block_bytes = BLOCKS[type_]
    n_elements = math.prod(shape)
    if not shape or shape[-1] % block or raw.size != n_elements // block * n_block_bytes:
        raise ModelFileError(
            f"A {type_.name} tensor of shape {shape} does not fit its {raw.size:,} bytes. Download the model again."
        )
    if not raw.flags.writeable or raw.ctypes.data % 8:
        # torch refuses misaligned and warns about read-only memory; files from real tools need neither.
        raw = raw.copy()
    if type_ in _PLAIN:
        source = torch.from_numpy(raw).view(_PLAIN[type_]).view(shape)
        return source.to(dtype, copy=True)
    out = torch.empty(shape, dtype=dtype)
    blocks = torch.from_numpy(raw).view(-1, n_block_bytes)
    _decode(blocks, type_, out.view(-1, block))
    return out


def _decode(blocks: Tensor, type_: GGMLType, out: Tensor) -> None:
    kernel = _KERNELS.get(type_)
    n_blocks, block = out.shape
    chunk = max(1, CHUNK_ELEMENTS // block)
    scratch = None
    if out.dtype != torch.float32:
        scratch = torch.empty((min(chunk, n_blocks), block))
    for start in range(0, n_blocks, chunk):
        end = min(n_blocks, start + chunk)
        target = out[start:end] if scratch is None else scratch[: end - start]
        if kernel is not None:
            kernel(blocks[start:end], target)
        else:
            target.copy_(_reference(blocks[start:end], type_))
        if scratch is not None:
            out[start:end].copy_(target)


def _reference(blocks: Tensor, type_: GGMLType) -> Tensor:
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize as decode

    try:
        # Damaged scales are infinities and NaNs, about which numpy would warn.
        with np.errstate(all="ignore"):
            return torch.from_numpy(decode(blocks.numpy(), GGMLQuantizationType(type_)))
    except (NotImplementedError, ValueError) as error:
        raise ModelFileError(
            f"Weights of type {type_.name} cannot be decoded by the installed gguf package. Get the model in "
            "another quantization, such as Q8_0 or Q4_K_M."
        ) from error
