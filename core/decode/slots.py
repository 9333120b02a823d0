"""Where sequences lie in the cache: ranges of rows without gaps, kept so with few copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nlpkit.core.decode.runner import Runner


@dataclass(frozen=True)
class RowCopy:
    """A row to copy.

    Attributes:
        source: Where it is.
        target: Where it should be.
        length: Its tokens.
    """

    source: int
    target: int
    length: int


def place(sources: Sequence[int], first: int) -> list[int]:
    """Give each sequence a row of ``first .. first + len(sources) - 1``; one that is there already stays.

    Args:
        sources: The rows where they are; several may begin as copies of one.
        first: First row of the range.

    Returns:
        A row for each.
    """
    free = dict.fromkeys(range(first, first + len(sources)))
    targets = []
    for source in sources:
        targets.append(source if source in free else -1)
        free.pop(source, None)
    rest = iter(free)
    return [target if target >= 0 else next(rest) for target in targets]


def copy_rows(runner: Runner, copies: Sequence[RowCopy]) -> None:
    """Make copies as if all were made at once, whatever overwrites what.

    Args:
        runner: Where the rows are; it must have room for the targets.
        copies: Their targets all differ.
    """
    pending = [copy for copy in copies if copy.source != copy.target]
    while pending:
        # A copy may go ahead once no other still has to read what it overwrites.
        ready = [copy for copy in pending if all(copy.target != other.source for other in pending if other is not copy)]
        if not ready:
            # What is left are rings.
            first, last = min(copy.target for copy in pending), max(copy.target for copy in pending)
            sources = list(range(first, last + 1))
            for copy in pending:
                sources[copy.target - first] = copy.source
            runner.reorder(first, sources, max(copy.length for copy in pending))
            return
        for copy in ready:
            runner.copy_row(copy.source, copy.target, copy.length)
        pending = [copy for copy in pending if copy not in ready]
