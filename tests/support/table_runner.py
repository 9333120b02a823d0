"""A model whose logits are a function of all ids so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nlpkit.core.decode.engine import Engine
from nlpkit.core.model.cache import KVSegment
from nlpkit.core.tokenizers.tokenizer import Tokenizer

LogitsOf = Callable[[Sequence[int]], Tensor]


class Table:
    """A runner for it; what it caches are the ids themselves."""

    can_rewind = True

    def __init__(self, logits_of: LogitsOf, vocab_size: int) -> None:
        self.logits_of = logits_of
        self.vocab_size = vocab_size
        self.max_seq_len = 4096
        self.rows: dict[int, list[int]] = {}

    def reserve(self, n_rows: int, n_slots: int = 0) -> None:
        pass

    def extend(
        self,
        start_row: int,
        tokens: Sequence[Sequence[int]],
        lengths: Sequence[int],
        *,
        wanted: Sequence[int] | None = None,
    ) -> Tensor:
        found = []
        for i, (part, length) in enumerate(zip(tokens, lengths, strict=True)):
            row = self.rows[start_row + i] = [*self.rows.get(start_row + i, [])[:length], *part]
            count = 1 if wanted is None else wanted[i]
            found += [self.logits_of(row[: length + j + 1]) for j in range(len(part) - count, len(part))]
        return torch.stack(found) if found else torch.zeros(0, self.vocab_size)

    def extend_with_hidden(
        self, start_row: int, tokens: Sequence[Sequence[int]], lengths: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        hidden = [torch.nn.functional.one_hot(torch.tensor(list(part)), self.vocab_size).float() for part in tokens]
        return self.extend(start_row, tokens, lengths), hidden

    def copy_row(self, source: int, target: int, length: int) -> None:
        self.rows[target] = self.rows.get(source, [])[:length]

    def reorder(self, start_row: int, sources: Sequence[int], length: int) -> None:
        self.rows.update({start_row + i: self.rows.get(source, [])[:length] for i, source in enumerate(sources)})

    def save_segment(self, row: int, start: int, stop: int) -> KVSegment:
        ids = torch.tensor(self.rows[row][start:stop]).float()[None, None, :, None]
        return KVSegment(ids, ids)

    def load_segment(self, row: int, start: int, segment: KVSegment) -> bool:
        ids = [int(token_id) for token_id in segment.keys.flatten().tolist()]
        self.rows[row] = [*self.rows.get(row, [])[:start], *ids]
        return True

    def logprobs(self, tokens: Sequence[Sequence[int]], starts: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        raise NotImplementedError


def engine_of(logits_of: LogitsOf, vocab_size: int, tokenizer: Tokenizer) -> Engine:
    """An engine that decodes with a table."""
    return Engine(lambda: Table(logits_of, vocab_size), tokenizer)


def says(text: str, *, n_prompt: int, vocab_size: int = 29, end: int = 0) -> LogitsOf:
    """A model of small letters that writes a text behind a prompt, then ends."""

    def logits_of(ids: Sequence[int]) -> Tensor:
        logits, at = torch.full((vocab_size,), -20.0), len(ids) - n_prompt
        logits[ord(text[at]) - 96 if at < len(text) else end] = 0.0
        return logits

    return logits_of
