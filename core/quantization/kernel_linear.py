"""A linear layer that the compiled kernels compute."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nlpkit.core.model.config import ModelConfig
from nlpkit.core.model.lora import LoraWeights
from nlpkit.core.quantization.kernel_library import _BLOCK, _MOST_PARTS, _NEVER, GROUP, Library, _Linear


class KernelLinear(nn.Module):
    """A linear layer whose weight is kept in 4 or 8 bits in the layout of the compiled kernels.

    A low-rank update (LoRA) may be kept beside the weight instead of in it: 4 bits are too few for the small changes
    that it makes.

    Attributes:
        library: The kernels.
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
        self.library = library
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
        self.take_low_rank(self.library.pack(low_in, 8), packed, parts)

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
        whole = whole and low_in.numel() == self.library.packed_bytes(len(parts) * rank, self.in_features, 8)
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
        out = self.library.linear(self.described(), x.reshape(-1, x.shape[-1]).float())
        return out.view(*x.shape[:-1], self.out_features).to(x.dtype)


def fits_kernels(config: ModelConfig) -> bool:
    """Tell whether the kernels can run models of a shape: widths must be multiples of a group or a vector."""
    attended = config.n_heads * config.head_dim
    widths_fit = all(width % GROUP == 0 for width in (config.d_model, attended, config.d_ff))
    return widths_fit and config.head_dim % _BLOCK == 0
