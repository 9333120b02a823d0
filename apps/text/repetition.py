"""Finding completions that run in circles."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

MIN_UNITS = 24
"""Shorter sequences are never called loops: refrains and lists are legitimate."""


def repeated_share(units: Sequence[Hashable], *, n: int = 4) -> float:
    """Return the share of n-grams that occurred before, from 0 (all new) to nearly 1.

    The measure is ``1 - distinct n-grams / n-grams``, as in Welleck et al. 2020 (arXiv:1908.04319), "seq-rep-n".

    Args:
        units: Token ids, words or characters.
        n: Length of the n-grams.
    """
    total = len(units) - n + 1
    if total < 1:
        return 0.0
    return 1.0 - len({tuple(units[i : i + n]) for i in range(total)}) / total


def ends_in_cycle(units: Sequence[Hashable], *, min_repeats: int = 4, min_units: int = MIN_UNITS) -> bool:
    """Tell whether the sequence ends in one unit group repeated over and over.

    Args:
        units: Token ids, words or characters.
        min_repeats: Least number of equal groups in a row.
        min_units: Least number of units that the groups together cover.
    """
    length = len(units)
    for period in range(1, length // min_repeats + 1):
        matched = 0
        while matched < length - period and units[length - 1 - matched] == units[length - 1 - matched - period]:
            matched += 1
        if matched + period >= max(min_units, min_repeats * period):
            return True
    return False


def is_loop(units: Sequence[Hashable], *, reference: Sequence[Hashable] = ()) -> bool:
    """Tell whether a completion is degenerate.

    It is when it ends in a cycle, or when more than half of its 4-grams are repeats, unless the text that it was
    made from repeats itself about as much (a translated chorus is no loop).

    Args:
        units: Token ids of the completion.
        reference: Token ids of the input text.
    """
    if len(units) < MIN_UNITS:
        return False
    if ends_in_cycle(units):
        return not ends_in_cycle(reference)
    share = repeated_share(units)
    return share > 0.5 and share > repeated_share(reference) + 0.2
