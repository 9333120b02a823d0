"""The seam between the engine and a model: rows of a cache that are extended and give logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from nlpkit.core.model.cache import KVSegment


class Runner(Protocol):
    """What the engine needs of a model. Rows hold sequences; the caller knows their lengths.

    Attributes:
        max_seq_len: Longest sequence, in tokens.
        vocab_size: Number of logits.
    """

    max_seq_len: int
    vocab_size: int

    def reserve(self, n_rows: int, n_slots: int = 0) -> None:
        """Make room for `n_rows` rows; `n_slots` is how many tokens the caller expects in the longest, if it knows."""
        ...

    @property
    def can_rewind(self) -> bool:
        """Whether a row may be shortened: the cache then holds the state after each token, not the last one's alone."""
        ...

    def extend(
        self,
        start_row: int,
        tokens: Sequence[Sequence[int]],
        lengths: Sequence[int],
        *,
        wanted: Sequence[int] | None = None,
    ) -> Tensor:
        """Append tokens to consecutive rows.

        A length below what the row holds drops the rest, where `can_rewind`.

        Args:
            start_row: First row.
            tokens: For each row, one or more ids to append.
            lengths: For each row, its length before.
            wanted: For each row, after how many of its last tokens logits are wanted, at least 0; None is 1 each.

        Returns:
            fp32 logits, row after row and in the order of the tokens, shape ``(sum of wanted, vocab_size)``.
        """
        ...

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Let a row take the first `length` tokens of another."""
        ...

    def reorder(self, start_row: int, sources: Sequence[int], length: int) -> None:
        """Let rows ``start_row ..`` take the first `length` tokens of rows `sources`, all at once."""
        ...

    def save_segment(self, row: int, start: int, stop: int) -> KVSegment | None:
        """Return a copy of what a row holds of its tokens ``start .. stop - 1``; None where it cannot be taken out."""
        ...

    def load_segment(self, row: int, start: int, segment: KVSegment) -> bool:
        """Let a row hold a segment from token `start` on.

        Returns:
            False, with nothing changed, where the segment does not fit the model.
        """
        ...

    def logprobs(self, tokens: Sequence[Sequence[int]], starts: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Score tokens given what comes before them; the cache is neither read nor written.

        Args:
            tokens: Whole sequences.
            starts: For each, the index of the first token to score, at least 1.

        Returns:
            For each sequence the log-probabilities of its tokens from ``starts`` on, in nats, and whether each was
            the most likely one; both of shape ``(len - start,)``.
        """
        ...


@runtime_checkable
class SharesRows(Protocol):
    """What a runner has beside `Runner` whose sequences may go on from what lies in rows of others."""

    @property
    def can_share(self) -> bool:
        """Whether the other methods can be used."""
        ...

    def extend_rows(
        self,
        rows: Sequence[int],
        tokens: Sequence[Sequence[int]],
        lengths: Sequence[int],
        *,
        wanted: Sequence[int] | None = None,
        homes: Tensor | None = None,
    ) -> Tensor:
        """Append tokens to rows, as `Runner.extend` does to consecutive ones.

        Args:
            rows: Where the new tokens go, one row for each sequence.
            tokens: For each, one or more ids; exactly one where there are `homes`.
            lengths: For each, its length before.
            wanted: As for `Runner.extend`.
            homes: int32, shape ``(sequences, longest + 1)``: the row in which each position of a sequence lies, its
                new token included; None where each lies in its own row.

        Returns:
            As `Runner.extend`.
        """
        ...

    def extend_rows_with_hidden(
        self,
        rows: Sequence[int],
        tokens: Sequence[Sequence[int]],
        lengths: Sequence[int],
        *,
        homes: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Append tokens to rows as `extend_rows`; return what `ShowsHidden.extend_with_hidden` does."""
        ...


@runtime_checkable
class ShowsHidden(Protocol):
    """What contrastive search needs of a runner beside `Runner`."""

    def extend_with_hidden(
        self, start_row: int, tokens: Sequence[Sequence[int]], lengths: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        """Append tokens to consecutive rows, as `Runner.extend`.

        Args:
            start_row: First row.
            tokens: For each row, one or more ids to append.
            lengths: For each row, its length before.

        Returns:
            fp32 logits after each row's last token, shape ``(rows, vocab_size)``, and for each row the hidden states,
            after the final norm, of the tokens appended, shape ``(tokens, d_model)``.
        """
        ...
