"""A runner that counts what is asked of it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nlpkit.core.model.gpt import GPT
from nlpkit.core.runners.gpt import GPTRunner


class CountingRunner(GPTRunner):
    """Counts passes and tokens.

    Attributes:
        passes: For each call of `extend`, the tokens of each row.
    """

    def __init__(self, model: GPT) -> None:
        super().__init__(model)
        self.passes: list[list[int]] = []

    @property
    def n_tokens(self) -> int:
        return sum(map(sum, self.passes))

    def extend(
        self,
        start_row: int,
        tokens: Sequence[Sequence[int]],
        lengths: Sequence[int],
        *,
        wanted: Sequence[int] | None = None,
    ) -> Tensor:
        self.passes.append([len(row) for row in tokens])
        return super().extend(start_row, tokens, lengths, wanted=wanted)
