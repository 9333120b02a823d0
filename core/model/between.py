"""What lies between the attention of one block and that of the next, as one function that can be compiled.

Decoding a token takes some thirty small operations a block, and starting each costs as much as doing it. All of them
but attention itself depend on nothing but the shape of their inputs: output projection, MLP and norms of a block, then
norm, projections and rotation of the next. Compiled once for a shape of block, they serve every pair of blocks, since
weights are arguments like any others.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from nlpkit.core.model.attention import Step
    from nlpkit.core.model.gpt import GPT, Block

_BEFORE = ("attn_norm.", "attn.qkv.", "attn.q.", "attn.k.", "attn.v.", "attn.q_norm.", "attn.k_norm.")
"""Beginnings of the names of what comes before attention."""


class Kernel(Protocol):
    """A compiled function of a list of tensors."""

    def run(self, inputs: list[Tensor]) -> list[Tensor]:
        """Return its results."""
        ...


def between_tensors(first: Block, second: Block) -> dict[str, Tensor]:
    """Return the weights that the function between two blocks uses, by name, in a fixed order."""
    found: dict[str, Tensor] = {}
    for which, block in (("first", first), ("second", second)):
        for name, value in (*block.named_parameters(), *block.named_buffers()):
            if name.startswith(_BEFORE) == (which == "second"):
                found[f"{which}.{name}"] = value.detach()
    return found


class Between(nn.Module):
    """The function between the attentions of two blocks, of tokens that each stand alone, weights given as arguments.

    Attributes:
        names: Names of the weights, in the order in which they are given.
    """

    def __init__(self, first: Block, second: Block) -> None:
        """Take the structure of two blocks; of their weights only names and shapes."""
        super().__init__()
        self._pair = _Pair(first, second)
        self.names = tuple(between_tensors(first, second))

    def forward(
        self, x: Tensor, attended: Tensor, cos: Tensor, sin: Tensor, *weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Finish one block and begin the next.

        Args:
            x: Residual stream, shape ``(tokens, 1, d_model)``.
            attended: Heads joined, shape ``(tokens, 1, n_heads * head_dim)``.
            cos: Rotation for the second block, shape ``(tokens, 1, 1, dim)``.
            sin: Same shape.
            weights: The weights that `names` lists.

        Returns:
            The residual stream after the first block; queries, keys and values of the second, shape
            ``(tokens, heads, 1, head_dim)``.
        """
        given = dict(zip(self.names, weights, strict=True))
        results = torch.func.functional_call(self._pair, given, (x, attended, cos, sin))
        after, q, k, v = results
        return after, q.contiguous(), k.contiguous(), v.contiguous()


class _Pair(nn.Module):
    def __init__(self, first: Block, second: Block) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor, attended: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = self.first.after(x, attended)
        return x, *self.second.before(x, (cos, sin))


def can_compile_between(model: GPT) -> bool:
    """Tell whether the blocks of a model are alike, and all that they hold can be given as arguments."""
    config = model.config
    if len(model.blocks) < 2 or config.positions != "rope" or model.device.type != "cpu":
        return False
    blocks = list(model.iter_blocks())
    shapes = [
        [(name, value.shape, value.dtype) for name, value in (*block.named_parameters(), *block.named_buffers())]
        for block in blocks
    ]
    if any(shape != shapes[0] for shape in shapes):
        return False
    # A tensor that is neither parameter nor buffer would become a constant: one block's for all.
    return not any(
        isinstance(value, torch.Tensor) or type(value).__name__ == "ScriptObject"
        for block in blocks
        for module in block.modules()
        for value in vars(module).values()
    )


class BetweenKernels:
    """Runs a model's blocks with compiled functions between their attentions."""

    def __init__(self, model: GPT, one: Kernel | None, several: Kernel | None) -> None:
        """Take kernels.

        Args:
            model: The model, for whose shapes they were compiled.
            one: For one token at a time, or None.
            several: For 2 to `MOST_TOKENS` tokens, or None.
        """
        blocks = list(model.iter_blocks())
        self._blocks = blocks
        self._one, self._several = one, several
        self._weights = [list(between_tensors(first, second).values()) for first, second in itertools.pairwise(blocks)]

    def fit(self, x: Tensor) -> bool:
        """Tell whether there is a kernel for a pass over ``(batch, seq, d_model)``."""
        tokens = x.shape[0] * x.shape[1]
        kernel = self._one if tokens == 1 else self._several if tokens <= MOST_TOKENS else None
        return kernel is not None and not torch.is_grad_enabled()

    def run(self, x: Tensor, steps: Sequence[Step]) -> Tensor:
        """Run all blocks.

        Args:
            x: Embeddings, shape ``(batch, seq, d_model)``.
            steps: The step of each block.

        Returns:
            Same shape.
        """
        batch, seq, width = x.shape
        tokens = batch * seq
        kernel = self._one if tokens == 1 else self._several
        assert kernel is not None
        rotations: dict[int, tuple[Tensor, Tensor]] = {}
        for step in steps:
            if id(step) not in rotations and step.rotary is not None:
                cos, sin = (part.reshape(tokens, 1, 1, -1) for part in step.rotary)
                rotations[id(step)] = cos, sin
        flat = x.reshape(tokens, 1, width)
        q, k, v = self._blocks[0].before(x, steps[0].rotary)
        last = len(self._blocks) - 1
        for layer, block in enumerate(self._blocks):
            attended = block.attn.attend(q, k, v, steps[layer])
            if layer == last:
                return block.after(flat.view(batch, seq, width), attended)
            given = [flat, attended.reshape(tokens, 1, -1), *rotations[id(steps[layer + 1])], *self._weights[layer]]
            flat, q, k, v = kernel.run(given)
            if seq > 1:
                q, k, v = (part.view(batch, seq, part.shape[1], -1).transpose(1, 2) for part in (q, k, v))
        raise RuntimeError("a model without blocks")


MOST_TOKENS = 256
"""Tokens of a pass up to which starting operations costs enough to be worth saving."""
