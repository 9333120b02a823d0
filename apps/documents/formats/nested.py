"""Texts whose places lie apart or within each other, as notes do: how they are written."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Protocol


class Spanned(Protocol):
    """What stands somewhere in a text."""

    @property
    def start(self) -> int:
        """Offset of its first character."""
        ...

    @property
    def end(self) -> int:
        """Offset behind its last."""
        ...


class NestedWriter:
    """Writes pieces of a text, with the places that lie within them written anew.

    Args:
        text: The text.
        places: The places, in the order of their beginnings.
        render: Returns what is written for a place, by its index; it may ask `span` for pieces of the place.
    """

    def __init__(self, text: str, places: Sequence[Spanned], render: Callable[[int], str]) -> None:
        self.text = text
        self.places = places
        self._render = render
        self._starts = [place.start for place in places]

    def whole(self) -> str:
        """Return the whole text."""
        return self.span(0, len(self.text))

    def span(self, start: int, end: int) -> str:
        """Return a piece of the text; a place that is all of it is not written anew, but what lies within is.

        Args:
            start: Offset of its first character.
            end: Offset behind its last.
        """
        pieces, done = [], start
        index = bisect_left(self._starts, start)
        while index < len(self._starts) and self._starts[index] < end:
            place = self.places[index]
            if place.end > end or (place.start == start and place.end == end):
                index += 1
                continue
            pieces += [self.text[done : place.start], self._render(index)]
            done = place.end
            index = bisect_left(self._starts, place.end, lo=index + 1)
        return "".join([*pieces, self.text[done:end]])
