"""Quantizing weights into GGUF's blocks: the inverse of `nlpkit.core.formats.gguf.dequantize`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlpkit.core.formats.gguf.types import BLOCKS, GGMLType

Array = np.ndarray[Any, Any]

_T = GGMLType
_ROWS = 512
"""Rows that are quantized at once: bounds what the search for scales holds in memory."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """How a file stores its matrices.

    Attributes:
        matrix: Type of most matrices.
        table: Type of the embedding and of the head, where a small error reaches every token.
        number: What GGUF calls it (``general.file_type``).
    """

    matrix: GGMLType
    table: GGMLType
    number: int


FORMATS: Mapping[str, Format] = {
    "f32": Format(matrix=_T.F32, table=_T.F32, number=0),
    "f16": Format(matrix=_T.F16, table=_T.F16, number=1),
    "q8_0": Format(matrix=_T.Q8_0, table=_T.Q8_0, number=7),
    "q6_k": Format(matrix=_T.Q6_K, table=_T.Q6_K, number=18),
    "q5_1": Format(matrix=_T.Q5_1, table=_T.Q6_K, number=9),
    "q4_1": Format(matrix=_T.Q4_1, table=_T.Q6_K, number=3),
}
"""The formats that can be written. Eight, six and a half, six and five bits a weight, scales included."""

_NARROWER = {_T.Q6_K: _T.Q8_0, _T.Q8_0: _T.F16, _T.Q5_1: _T.F16, _T.Q4_1: _T.F16}
"""What a matrix gets instead whose rows are no multiple of a block."""


def fitting_type(kind: GGMLType, width: int) -> GGMLType:
    """Return a type whose blocks fill rows of a width: the one wanted, or the next finer one that can.

    Args:
        kind: The type wanted.
        width: Columns of the matrix.
    """
    while width % BLOCKS[kind][0]:
        kind = _NARROWER[kind]
    return kind


def stored_bytes(shape: tuple[int, ...], kind: GGMLType) -> int:
    """Return how many bytes a tensor takes in a file."""
    block, n_block_bytes = BLOCKS[kind]
    return math.prod(shape) // block * n_block_bytes


def quantize(values: Array, kind: GGMLType) -> Array:
    """Quantize a matrix.

    Args:
        values: fp32, shape (rows, columns); the columns fill blocks of the type.
        kind: F32, F16, or a type of `FORMATS`.

    Returns:
        The values themselves in a plain dtype, or bytes of shape (rows, bytes of a row).
    """
    if kind == _T.F32:
        return values
    if kind == _T.F16:
        with np.errstate(over="ignore"):
            return values.astype(np.float16)
    if kind != _T.Q6_K:
        from gguf.constants import GGMLQuantizationType
        from gguf.quants import quantize as code

        blocks: Array = code(values, GGMLQuantizationType(kind))
        return blocks
    return np.concatenate([_q6_k(values[at : at + _ROWS]) for at in range(0, len(values), _ROWS)])


def _q6_k(rows: Array) -> Array:
    """256 weights a block: 16 groups with a scale of 8 bits each, and one fp16 scale of these scales.

    Scales of groups are searched for as in llama.cpp: the one of 19 that loses least, errors of large weights counting
    more.
    """
    groups = np.ascontiguousarray(rows, np.float32).reshape(-1, 16, 16)
    scales = _group_scales(groups)
    at = np.abs(scales).argmax(1)
    largest = np.take_along_axis(scales, at[:, None], 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(largest != 0, -128.0 / largest, 0.0)
        d = np.where(largest != 0, largest / -128.0, 0.0).astype(np.float16)
    steps = np.clip(np.rint(inverse * scales), -128, 127).astype(np.int8)
    widths = (d.astype(np.float32) * steps)[:, :, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        quants = np.where(widths != 0, np.rint(groups / widths), 0.0)
    levels = (np.clip(quants, -32, 31).astype(np.int8) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    keep = levels & 15
    low = np.concatenate([keep[:, :, 0] | (keep[:, :, 2] << 4), keep[:, :, 1] | (keep[:, :, 3] << 4)], 2)
    top = levels >> 4
    high = top[:, :, 0] | (top[:, :, 1] << 2) | (top[:, :, 2] << 4) | (top[:, :, 3] << 6)
    n = len(groups)
    parts = [low.reshape(n, 128), high.reshape(n, 64), steps.view(np.uint8), d.view(np.uint8).reshape(n, 2)]
    return np.concatenate(parts, 1).reshape(len(rows), -1)


def _group_scales(groups: Array) -> Array:
    """Return a scale for each group, shape (blocks, 16): zero where all of its weights are."""
    at = np.abs(groups).argmax(2)[:, :, None]
    largest = np.take_along_axis(groups, at, 2)
    weights = groups * groups
    best = np.full(groups.shape[:2], -1.0, np.float32)
    scales = np.zeros(groups.shape[:2], np.float32)
    for step in range(-9, 10):
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = np.where(largest != 0, -(32 + 0.1 * step) / largest, 0.0)
        levels = np.clip(np.rint(inverse * groups), -32, 31)
        product = (weights * groups * levels).sum(2)
        square = (weights * levels * levels).sum(2)
        with np.errstate(divide="ignore", invalid="ignore"):
            gain = np.where(square > 0, product * product / square, 0.0)
            scale = np.where(square > 0, product / square, 0.0)
        better = gain > best
        best = np.where(better, gain, best)
        scales = np.where(better, scale, scales)
    return scales
