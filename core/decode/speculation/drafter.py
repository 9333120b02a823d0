"""What a drafter is: it guesses the tokens to come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Sought:
    """A sequence whose next tokens are to be guessed.

    Attributes:
        key: Names the sequence for as long as it grows.
        prompt_ids: Its prompt.
        token_ids: What was generated so far, at least one token.
        most: Most tokens to guess, at least 1.
    """

    key: tuple[int, int]
    prompt_ids: Sequence[int]
    token_ids: Sequence[int]
    most: int


@dataclass(frozen=True)
class Draft:
    """A guess.

    Attributes:
        token_ids: The tokens guessed, perhaps none.
        kind: How they were found; drafts of one kind are taken to be about equally good.
    """

    token_ids: Sequence[int]
    kind: int = 0


class Drafter(Protocol):
    """Guesses how sequences go on.

    Attributes:
        costly: Whether guessing takes time that counts, so that it should not be asked in vain.
    """

    @property
    def costly(self) -> bool:
        """Whether guessing takes time that counts."""
        ...

    def draft(self, sought: Sequence[Sought]) -> list[Draft]:
        """Guess the next tokens of some sequences.

        Args:
            sought: The sequences; each has only grown since it was given the last time.

        Returns:
            A draft for each, in the same order.
        """
        ...

    def drop(self, key: tuple[int, int]) -> None:
        """Forget a sequence, which may never have been sought."""
        ...
