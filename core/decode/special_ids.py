"""Token ids with a meaning of their own: those that end a text, and those that no text may hold."""

from __future__ import annotations

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
    """

    ends: frozenset[int] = frozenset()
    control: frozenset[int] = frozenset()

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> SpecialIds:
        """Ask a tokenizer."""
        ends = frozenset(tokenizer.eos_ids)
        special = set(getattr(tokenizer, "special_ids", ()))
        if tokenizer.bos_id is not None:
            special.add(tokenizer.bos_id)
        return cls(ends, frozenset(special) - ends)

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
        return self.with_ends if config.ignore_eos or n_generated < config.min_tokens else self.control
