"""Prompts on their way into the cache: in chunks, side by side, each from the longest beginning computed elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nlpkit.core.decode.prefix_cache.order import SHORTEST, common_prefix

if TYPE_CHECKING:
    from torch import Tensor

    from nlpkit.core.decode.request import Request
    from nlpkit.core.decode.strategies.base import Strategy

WORTH_A_PASS = 64
"""Tokens that waiting for a common beginning must save, over all that wait: about what one more pass costs."""
MOST_PADDING = 64
"""Positions that a pass may waste on padding, however small it is."""
WIDEST_ADDITION = 512
"""Tokens by which a prompt grows at most in one pass after its first: all of them look at all keys, masked or not."""


@dataclass(eq=False)
class Running:
    """A request that was admitted.

    Attributes:
        ticket: Its number in the loop.
        request: The request.
        strategy: Decides how its texts go on.
        keep: How many of its first tokens are worth keeping for later requests; None is all.
        started: When it was admitted, on the clock of `time.perf_counter`.
    """

    ticket: int
    request: Request
    strategy: Strategy
    keep: int | None = None
    started: float = 0.0


@dataclass(eq=False)
class Prefill:
    """A prompt that is being computed.

    Attributes:
        running: Its request.
        tokens: The prompt.
        slot: Where it lies in the cache.
        done: How many of its tokens the cache holds.
        leader: The prompt whose computing brings the beginning of this one too, while this one waits for it.
        shared: How many tokens they have in common.
        hidden: Hidden states of its tokens, part by part, where its strategy wants them; shape ``(tokens, d_model)``.
    """

    running: Running
    tokens: tuple[int, ...]
    slot: int = -1
    done: int = 0
    leader: Prefill | None = None
    shared: int = 0
    hidden: list[Tensor] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Tokens still to compute."""
        return len(self.tokens) - self.done


def is_worth(saved: int, whole: int) -> bool:
    """Tell whether taking `saved` of `whole` prompt tokens from elsewhere is quicker than computing all at once."""
    # Attention over tokens that are already there goes without the shortcut for prompts that start afresh.
    return saved >= SHORTEST and 8 * saved >= whole


def pick_leaders(new: Sequence[Prefill], ready: Sequence[int], others: Sequence[Prefill]) -> None:
    """Let prompts wait for others with which they share a longer beginning than is at hand.

    Args:
        new: Requests that are about to start; where waiting pays, `leader` and `shared` are set.
        ready: For each, how many of its tokens can be had at once.
        others: Requests that are computing or waiting already.
    """
    saved: dict[int, int] = {}
    for number, (entry, at_hand) in enumerate(zip(new, ready, strict=True)):
        # Its last token is computed in any case: the next one follows from it.
        most = len(entry.tokens) - 1
        for other in (*others, *new[:number]):
            shared = min(most, common_prefix(entry.tokens, other.tokens))
            if shared > max(entry.shared, at_hand + SHORTEST - 1) and is_worth(shared, len(entry.tokens)):
                entry.leader, entry.shared = other, shared
        if entry.leader is not None:
            saved[id(entry.leader)] = saved.get(id(entry.leader), 0) + entry.shared - at_hand
    for entry in new:
        if entry.leader is not None and saved[id(entry.leader)] < WORTH_A_PASS:
            entry.leader, entry.shared = None, 0


def pass_width(left: Sequence[int], budget: int, *, afresh: bool = True) -> int:
    """Choose how many tokens of each prompt the next pass computes.

    The pass is as wide as its shortest prompt, padded to that width, allow without much waste.

    Args:
        left: Tokens that each prompt still has, at least 1.
        budget: Most positions of the pass, padding included (but each prompt advances by at least one).
        afresh: Whether all prompts are still at their first token.

    Returns:
        The width, at least 1.
    """
    most = max(1, budget // len(left))
    if not afresh:
        most = min(most, WIDEST_ADDITION)
    best = 1
    for width in sorted({min(most, count) for count in left}):
        padding = sum(width - count for count in left if count < width)
        useful = width * len(left) - padding
        if padding <= max(MOST_PADDING, useful // 4):
            best = width
    return best
