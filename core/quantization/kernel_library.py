"""Compiled kernels of whole passes over 4-bit and 8-bit weights: what calls ``kernels.cpp``.

Weights are quantized in groups of 32 inputs and activations to 8 bits in the same groups, as llama.cpp does for Q4_1
and Q8_0, so that products are sums of integer products. A token's results depend neither on the other tokens of a
pass nor on the number of threads.
"""

from __future__ import annotations

import ctypes
import threading
from ctypes import POINTER, byref, c_float, c_int32, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from nlpkit.core.machine.crowd import TEAM
from nlpkit.core.model.cache import KVCache

SOURCE = Path(__file__).with_name("kernels.cpp")
HEADER = SOURCE.with_name("vectors.h")
VERSION = 4
"""What `nlpkit_version` of the library must return."""
GROUP = 32
_BLOCK = 16
_MOST_PARTS = 3
_NEVER = 2**31 - 1
_ROWS_AT_ONCE = 4096
_ACTIVATIONS = {"silu": 0, "gelu": 1, "gelu_tanh": 2, "relu": 3}
_QK_NORMS = {"none": 0, "head": 1, "full": 2}


class _Linear(ctypes.Structure):
    _fields_ = (
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("outputs", c_int32),
        ("inputs", c_int32),
        ("bits", c_int32),
        ("rank", c_int32),
        ("low_in", c_void_p),
        ("low_out", c_void_p),
        ("parts", c_int32),
        ("second", c_int32),
        ("third", c_int32),
        ("unused", c_int32),
    )


class _Norm(ctypes.Structure):
    _fields_ = (("weight", c_void_p), ("bias", c_void_p), ("kind", c_int32), ("eps", c_float))


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, _Norm) for name in ("attn_norm", "mlp_norm", "attn_post_norm", "mlp_post_norm", "q_norm", "k_norm")),
        *((name, _Linear) for name in ("qkv", "o", "up", "down")),
        ("window", c_int32),
        ("local", c_int32),
    )


_SHAPE = ("n_layers", "d_model", "n_heads", "n_kv_heads", "head_dim", "d_ff")
_SWITCHES = ("activation", "gated", "parallel", "post", "qk_norm", "rotary_dim")


class _Model(ctypes.Structure):
    _fields_ = (
        ("layers", POINTER(_Layer)),
        *((name, c_int32) for name in (*_SHAPE, *_SWITCHES)),
        ("scale", c_float),
        ("softcap", c_float),
        ("final_norm", _Norm),
    )


_POINTERS = ("x", "rows", "positions", "cos", "sin", "cos_local", "sin_local", "keys", "values")
_STRIDES = ("layer_stride", "row_stride", "head_stride")


class _Pass(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in _POINTERS),
        *((name, c_int64) for name in _STRIDES),
        ("scratch", c_void_p),
        ("wanted", c_void_p),
        ("homes", c_void_p),
        ("shared", c_void_p),
        ("home_stride", c_int64),
        *((name, c_int32) for name in ("n_tokens", "n_wanted", "n_threads", "unused")),
    )


class _Scratch(threading.local):
    """Memory for activations, each thread's own, kept between passes."""

    def __init__(self) -> None:
        self.memory = torch.empty(0, dtype=torch.uint8)

    def of(self, n_bytes: int) -> int:
        if self.memory.numel() < n_bytes:
            self.memory = torch.empty(n_bytes + n_bytes // 2, dtype=torch.uint8)
        return self.memory.data_ptr()


class Library:
    """The compiled kernels.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        """Load a shared library made of `SOURCE`.

        Raises:
            OSError: It cannot be loaded, or is of another version.
        """
        self.path = path
        library = ctypes.CDLL(str(path))
        if not hasattr(library, "nlpkit_version") or library.nlpkit_version() != VERSION:
            raise OSError(f"{path} is not a library of these kernels.")
        self._library = library
        for name, result, arguments in (
            ("nlpkit_packed_bytes", c_int64, (c_int32, c_int32, c_int32)),
            ("nlpkit_pack", None, (c_void_p, c_int32, c_int32, c_int32, c_void_p, c_int32)),
            ("nlpkit_linear_scratch", c_int64, (POINTER(_Linear), c_int32)),
            ("nlpkit_linear", None, (POINTER(_Linear), c_void_p, c_int32, c_void_p, c_void_p, c_int32)),
            ("nlpkit_scratch", c_int64, (POINTER(_Model), POINTER(_Pass))),
            ("nlpkit_run", None, (POINTER(_Model), POINTER(_Pass))),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        self._scratch = _Scratch()

    def packed_bytes(self, outputs: int, inputs: int, bits: int) -> int:
        """Return how large a packed matrix is."""
        return int(self._library.nlpkit_packed_bytes(outputs, inputs, bits))

    def pack(self, weight: Tensor, bits: int) -> Tensor:
        """Quantize a matrix.

        Args:
            weight: Shape ``(out, in)``, `in` a multiple of 32; any floating dtype.
            bits: 4 or 8.

        Returns:
            Bytes in the layout that the kernels read.
        """
        outputs, inputs = weight.shape
        library = self._library
        packed = torch.empty(library.nlpkit_packed_bytes(outputs, inputs, bits), dtype=torch.uint8)
        at = packed.data_ptr()
        # By parts: a wide copy of a large matrix would be the peak of all memory.
        for start in range(0, outputs, _ROWS_AT_ONCE):
            wide = weight[start : start + _ROWS_AT_ONCE].float().contiguous()
            library.nlpkit_pack(wide.data_ptr(), len(wide), inputs, bits, at, torch.get_num_threads())
            at += library.nlpkit_packed_bytes(len(wide), inputs, bits)
        return packed

    def linear(self, linear: _Linear, x: Tensor) -> Tensor:
        """Multiply rows of fp32 ``(rows, in)`` by a packed matrix: fp32 ``(rows, out)``."""
        x = x.contiguous()
        out = torch.empty(x.shape[0], linear.outputs)
        if len(x):
            scratch = self._scratch.of(self._library.nlpkit_linear_scratch(byref(linear), len(x)))
            threads = TEAM.threads(torch.get_num_threads(), len(x))
            self._library.nlpkit_linear(byref(linear), x.data_ptr(), len(x), out.data_ptr(), scratch, threads)
        return out

    def run(self, model: _Model, this: _Pass) -> None:
        """Run all blocks and the final norm; the scratch memory is filled in here."""
        this.scratch = self._scratch.of(self._library.nlpkit_scratch(byref(model), byref(this)))
        self._library.nlpkit_run(byref(model), byref(this))


def _places(
    homes: Tensor, positions: Tensor, cache: KVCache, wanted: Tensor | None, longest: int
) -> tuple[Tensor, Tensor]:
    """Check `homes` of `Kernels.run`; return them and how many positions each token shares with the one before it."""
    if homes.shape != (len(positions), longest) or homes.dtype != torch.int32 or wanted is not None:
        raise ValueError(
            f"homes of shape {tuple(homes.shape)} and {homes.dtype} for {len(positions)} tokens of {longest}"
        )
    homes = homes.contiguous()
    if homes.numel() and not 0 <= int(homes.min()) <= int(homes.max()) < cache.n_rows:
        raise IndexError(f"positions in rows {int(homes.min())} to {int(homes.max())} of a cache of {cache.n_rows}")
    shared = torch.zeros(len(homes), dtype=torch.int32)
    # The first place where two differ; they share no more than they have.
    differ = torch.nn.functional.pad(homes[1:] != homes[:-1], (0, 1), value=True)
    shared[1:] = differ.to(torch.int8).argmax(-1)
    return homes, torch.minimum(shared, positions + 1).contiguous()
