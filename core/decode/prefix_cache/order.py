"""The order in which prompts are filled so that those with a common beginning can share it."""

from __future__ import annotations

from collections.abc import Sequence

SHORTEST = 16
"""Tokens below which taking a prefix from elsewhere costs about as much as computing it."""


def common_prefix(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Count the tokens that two sequences begin with alike."""
    high = min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


def plan_order(prompts: Sequence[tuple[int, ...]]) -> tuple[list[int], list[int]]:
    """Put prompts into an order in which they are best computed.

    Similar lengths together waste little padding, and the longest first show at once whether memory suffices; but
    prompts that share half or more of their tokens stay next to each other.

    Args:
        prompts: Token ids of each prompt.

    Returns:
        The prompts' indices in order, and for each prompt how many of its first tokens another one begins with too.
    """
    ranked = sorted(range(len(prompts)), key=lambda i: prompts[i])
    shared = [0] * len(prompts)
    families: list[list[int]] = []
    for position, number in enumerate(ranked):
        common = 0
        if position:
            before = ranked[position - 1]
            common = common_prefix(prompts[before], prompts[number])
            shared[before] = max(shared[before], common)
            shared[number] = common
        if position and 2 * common >= len(prompts[number]):
            families[-1].append(number)
        else:
            families.append([number])
    for family in families:
        family.sort(key=lambda i: len(prompts[i]), reverse=True)
    families.sort(key=lambda family: len(prompts[family[0]]), reverse=True)
    return [number for family in families for number in family], shared
