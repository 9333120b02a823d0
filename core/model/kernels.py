"""Compiled kernels of whole passes over 4-bit and 8-bit weights: what calls ``kernels.cpp``.

Weights are quantized in groups of 32 inputs and activations to 8 bits in the same groups, as llama.cpp does for Q4_1
and Q8_0, so that products are sums of integer products. A token's results depend neither on the other tokens of a
pass nor on the number of threads.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from ctypes import POINTER, byref, c_float, c_int32, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor, nn

from nlpkit.core.model.cache import KVCache
from nlpkit.core.model.config import ModelConfig
from nlpkit.core.model.gpt import GPT, Block
from nlpkit.core.model.layers import LayerNorm, RMSNorm
from nlpkit.core.model.lora import LoraWeights
from nlpkit.core.model.rope import Rotary

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
            threads = torch.get_num_threads()
            self._library.nlpkit_linear(byref(linear), x.data_ptr(), len(x), out.data_ptr(), scratch, threads)
        return out

    def run(self, model: _Model, this: _Pass) -> None:
        """Run all blocks and the final norm; the scratch memory is filled in here."""
        this.scratch = self._scratch.of(self._library.nlpkit_scratch(byref(model), byref(this)))
        self._library.nlpkit_run(byref(model), byref(this))


class KernelLinear(nn.Module):
    """A linear layer whose weight is kept in 4 or 8 bits in the layout of the compiled kernels.

    A low-rank update (LoRA) may be kept beside the weight instead of in it: 4 bits are too few for the small changes
    that it makes.

    Attributes:
        low_in: The update's matrix A, packed at 8 bits, or None; joint layers have those of their parts stacked.
        low_out: Its matrix B in bf16, times its scale, shape ``(blocks of outputs, rank, 16)``, or None.
        parts: Outputs of each layer that was joined into this one.
    """

    weight: Tensor
    bias: Tensor | None
    low_in: Tensor | None
    low_out: Tensor | None

    def __init__(self, library: Library, weight: Tensor, bias: Tensor | None, *, bits: int) -> None:
        """Quantize `weight`, shape ``(out, in)``, to 4 or 8 `bits`."""
        super().__init__()
        outputs, inputs = weight.shape
        self._hold(library, library.pack(weight, bits), bias, outputs, inputs, bits)

    def _hold(
        self, library: Library, content: Tensor, bias: Tensor | None, outputs: int, inputs: int, bits: int
    ) -> None:
        self.out_features, self.in_features, self.bits = outputs, inputs, bits
        self._library = library
        self.register_buffer("weight", content)
        self.register_buffer("bias", None if bias is None else bias.detach().float().contiguous())
        self.register_buffer("low_in", None)
        self.register_buffer("low_out", None)
        self.parts: tuple[int, ...] = (outputs,)

    def add_low_rank(self, updates: Sequence[LoraWeights | None], parts: Sequence[int]) -> None:
        """Put low-rank updates beside the weight.

        Args:
            updates: One for each part, or None where a part has none; without magnitudes.
            parts: Outputs of each part, in order, multiples of 16 but the last; at most three parts.
        """
        present = [update for update in updates if update is not None]
        if not present:
            return
        rank = -(-max(update.a.shape[0] for update in present) // _BLOCK) * _BLOCK
        low_in = torch.zeros(len(parts) * rank, self.in_features)
        low_out = torch.zeros(-(-self.out_features // _BLOCK) * _BLOCK, rank)
        begin = 0
        for number, (update, outputs) in enumerate(zip(updates, parts, strict=True)):
            if update is not None:
                own = update.a.shape[0]
                low_in[number * rank : number * rank + own] = update.a
                low_out[begin : begin + outputs, :own] = update.b * update.scale
            begin += outputs
        packed = low_out.view(-1, _BLOCK, rank).transpose(1, 2).to(torch.bfloat16).contiguous()
        self.take_low_rank(self._library.pack(low_in, 8), packed, parts)

    def take_low_rank(self, low_in: Tensor, low_out: Tensor, parts: Sequence[int]) -> None:
        """Take low-rank updates that are packed already.

        Args:
            low_in: As the attribute.
            low_out: As the attribute.
            parts: As the attribute.

        Raises:
            ValueError: They have not the size that they should have.
        """
        blocks = -(-self.out_features // _BLOCK)
        rank = low_out.shape[1] if low_out.dim() == 3 else 0
        whole = rank > 0 and rank % _BLOCK == 0 and low_out.shape == (blocks, rank, _BLOCK)
        whole = whole and low_out.dtype == torch.bfloat16 and low_out.is_contiguous() and low_in.dtype == torch.uint8
        whole = whole and low_in.numel() == self._library.packed_bytes(len(parts) * rank, self.in_features, 8)
        cut = all(outputs % _BLOCK == 0 for outputs in parts[:-1])
        if not whole or not cut or sum(parts) != self.out_features or not 1 <= len(parts) <= _MOST_PARTS:
            raise ValueError("a low-rank update is not as large as it should be")
        self.low_in, self.low_out, self.parts = low_in, low_out, tuple(parts)

    @classmethod
    def packed(
        cls, library: Library, content: Tensor, bias: Tensor | None, *, outputs: int, inputs: int, bits: int
    ) -> KernelLinear:
        """Take a weight that is packed already.

        Args:
            library: The kernels.
            content: What `Library.pack` returned, here or in another process.
            bias: Shape ``(outputs,)``, or None.
            outputs: Rows of the weight.
            inputs: Columns.
            bits: 4 or 8.

        Raises:
            ValueError: The content has not the size that it should have.
        """
        whole = bits in (4, 8) and inputs % GROUP == 0 and min(outputs, inputs) > 0
        if not whole or content.dtype != torch.uint8 or content.numel() != library.packed_bytes(outputs, inputs, bits):
            raise ValueError("a packed weight is not as large as it should be")
        if bias is not None and bias.shape != (outputs,):
            raise ValueError("a bias is not as large as it should be")
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer._hold(library, content, bias, outputs, inputs, bits)
        return layer

    def described(self) -> _Linear:
        """Return what the kernels need to know of it."""
        bias = None if self.bias is None else self.bias.data_ptr()
        shape = (self.weight.data_ptr(), bias, self.out_features, self.in_features, self.bits)
        if self.low_in is None or self.low_out is None:
            return _Linear(*shape, 0, None, None, 0, _NEVER, _NEVER, 0)
        begins = [sum(self.parts[:number]) // _BLOCK for number in range(1, len(self.parts))]
        second, third = (*begins, _NEVER, _NEVER)[:2]
        low = (self.low_in.data_ptr(), self.low_out.data_ptr())
        return _Linear(*shape, self.low_out.shape[1], *low, len(self.parts), second, third, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` to ``(..., out)``, in the dtype of `x`."""
        out = self._library.linear(self.described(), x.reshape(-1, x.shape[-1]).float())
        return out.view(*x.shape[:-1], self.out_features).to(x.dtype)


def fits_kernels(config: ModelConfig) -> bool:
    """Tell whether the kernels can run models of a shape: widths must be multiples of a group or a vector."""
    attended = config.n_heads * config.head_dim
    widths_fit = all(width % GROUP == 0 for width in (config.d_model, attended, config.d_ff))
    return widths_fit and config.head_dim % _BLOCK == 0


class Kernels:
    """Runs the blocks of one model whose linear layers are all `KernelLinear`."""

    def __init__(self, library: Library, model: GPT) -> None:
        """Describe a model to the kernels.

        Args:
            library: The kernels.
            model: On the CPU, quantized by them; see `fits_kernels`.
        """
        config = model.config
        self._library = library
        # What the kernels point to must live as long as they do.
        self._kept: list[Tensor] = []
        self._layers = (_Layer * config.n_layers)(
            *(self._layer(config, layer, block) for layer, block in enumerate(model.iter_blocks()))
        )
        rotary_dim = 0 if config.positions != "rope" else config.rope.dim or config.head_dim
        scale = config.attn_scale if config.attn_scale is not None else config.head_dim**-0.5
        self._model = _Model(
            self._layers,
            *(getattr(config, name) for name in _SHAPE),
            _ACTIVATIONS[config.activation],
            config.gated_mlp,
            config.parallel_residual,
            config.norm_placement in ("post", "sandwich"),
            _QK_NORMS[config.qk_norm],
            rotary_dim,
            scale,
            config.attn_softcap,
            self._norm(model.final_norm),
        )

    def _norm(self, norm: nn.Module | None) -> _Norm:
        if isinstance(norm, LayerNorm):
            weight, bias = norm.weight.detach().float(), norm.bias.detach().float()
            self._kept += [weight, bias]
            return _Norm(weight.data_ptr(), bias.data_ptr(), 2, norm.eps)
        if isinstance(norm, RMSNorm):
            weight = norm.weight.detach().float() + norm.offset
            self._kept.append(weight)
            return _Norm(weight.data_ptr(), None, 1, norm.eps)
        return _Norm(None, None, 0, 0.0)

    def _linear(self, layer: nn.Module | None) -> _Linear:
        if not isinstance(layer, KernelLinear):
            raise TypeError("a layer is not quantized for the kernels")
        content = (layer.weight, layer.bias, layer.low_in, layer.low_out)
        self._kept += [tensor for tensor in content if tensor is not None]
        return layer.described()

    def _layer(self, config: ModelConfig, layer: int, block: Block) -> _Layer:
        attn, mlp = block.attn, block.mlp
        norms = ("attn_norm", "mlp_norm", "attn_post_norm", "mlp_post_norm")
        sliding = layer in config.sliding_layers and config.sliding_window is not None
        return _Layer(
            *(self._norm(getattr(block, name, None)) for name in norms),
            *(self._norm(getattr(attn, name, None)) for name in ("q_norm", "k_norm")),
            self._linear(attn.qkv),
            self._linear(attn.o),
            self._linear(mlp.gate_up if config.gated_mlp else mlp.up),
            self._linear(mlp.down),
            config.sliding_window if sliding else 0,
            layer in config.sliding_layers,
        )

    def run(
        self,
        x: Tensor,
        rows: Tensor,
        positions: Tensor,
        cache: KVCache,
        rotary: tuple[Rotary | None, Rotary | None],
        *,
        longest: int,
        wanted: Tensor | None = None,
        homes: Tensor | None = None,
    ) -> Tensor:
        """Run all blocks and the final norm: each token sees its row's slots up to its own position.

        Args:
            x: Embeddings, shape ``(batch, seq, d_model)``.
            rows: Row of the cache of each token, shape ``(batch * seq,)``.
            positions: Shape ``(batch, seq)``; those of one row must come in order.
            cache: Where keys and values go, with room for all positions.
            rotary: Rotation of full and of sliding layers, or None each.
            longest: One more than the largest position.
            wanted: The tokens whose states are wanted, by their number in ``batch * seq`` and in order; None is all.
            homes: int32, shape ``(batch * seq, longest)``: the row in which each position of each token's text lies, up
                to its own; None where all lie in its own row. Neighbours that begin alike share the reading of keys.

        Returns:
            Normalised hidden states in fp32, shape ``(batch, seq, d_model)``, or ``(wanted, d_model)``.

        Raises:
            IndexError: A row or position lies outside the cache, or a wanted token outside the pass.
            ValueError: `homes` has another shape or dtype, or comes with `wanted`.
        """
        # The kernels write wherever they are told to.
        for values, count in ((rows, cache.n_rows), (positions, cache.n_slots)):
            if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < count:
                raise IndexError(f"tokens at {int(values.min())} to {int(values.max())} of a cache of {count}")
        n_tokens, threads = positions.numel(), torch.get_num_threads()
        chosen = None if wanted is None else wanted.to(torch.int32).contiguous()
        # Each is moved to its place in turn, so none may come before one that is still to be moved.
        if chosen is not None and chosen.numel():
            in_order = bool((chosen.diff() > 0).all())
            if not in_order or not 0 <= int(chosen[0]) <= int(chosen[-1]) < n_tokens:
                raise IndexError(f"wanted tokens are not in order, or not among the {n_tokens} of the pass")
        # A copy in any case: it is overwritten.
        x = x.to(torch.float32, copy=True).contiguous()
        slots, rows = positions.to(torch.int32).contiguous(), rows.to(torch.int32).contiguous()
        tables: list[Tensor] = []
        for one in rotary:
            pair = one.cos_sin(positions, longest=longest, dtype=torch.float32) if one is not None else (x, x)
            tables += [part.contiguous() for part in pair]
            if rotary[0] is rotary[1]:
                tables *= 2
                break
        tensors = (x, rows, slots, *tables, cache.keys, cache.values)
        strides = cache.keys.stride()[:3]
        pointers = (tensor.data_ptr() for tensor in tensors)
        at, n_wanted = (None, n_tokens) if chosen is None else (chosen.data_ptr(), chosen.numel())
        where, shared = (None, None) if homes is None else _places(homes, slots.flatten(), cache, chosen, longest)
        forks = (None, None, 0) if where is None or shared is None else (where.data_ptr(), shared.data_ptr(), longest)
        self._library.run(self._model, _Pass(*pointers, *strides, None, at, *forks, n_tokens, n_wanted, threads, 0))
        return x if chosen is None else x.view(n_tokens, -1)[:n_wanted]


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
