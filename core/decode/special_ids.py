"""Token ids with a meaning of their own: those that end a text, and those that no text may hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nlpkit.core.decode.config import DecodeConfig
    from nlpkit.core.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class SpecialIds:
    """What a vocabulary's special tokens mean while a text is written.

    Attributes:
        ends: Each of them ends a text.
        control: Special tokens that do not end a text, such as the mark of a turn's beginning: never written, unless
            a logit bias names them or a constraint asks for them.
        stops: Those of `ends` that are there because a request names them among its stop strings.
    """

    ends: frozenset[int] = frozenset()
    control: frozenset[int] = frozenset()
    stops: frozenset[int] = frozenset()

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> SpecialIds:
        """Ask a tokenizer."""
        ends = frozenset(tokenizer.eos_ids)
        special = set(getattr(tokenizer, "special_ids", ()))
        if tokenizer.bos_id is not None:
            special.add(tokenizer.bos_id)
        return cls(ends, frozenset(special) - ends)

    def stopping_at(self, stops: Iterable[str], tokenizer: Tokenizer) -> SpecialIds:
        """Return these for a request whose stop strings spell special tokens: they have no text that could match."""
        ids = self.control.intersection(map(tokenizer.token_to_id, stops))
        return SpecialIds(self.ends | ids, self.control - ids, ids) if ids else self

    @cached_property
    def with_ends(self) -> frozenset[int]:
        """All of them."""
        return self.ends | self.control

    def banned(self, config: DecodeConfig, n_generated: int) -> frozenset[int]:
        """Return the ids that may not come next, where a request has no biases of its own.

        Args:
            config: Whose `ignore_eos` and `min_tokens` to use.
            n_generated: Tokens generated so far.
        """
        if n_generated < config.min_tokens:
            return self.with_ends
        return self.with_ends - self.stops if config.ignore_eos else self.control
