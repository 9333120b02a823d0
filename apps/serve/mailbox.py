"""From the thread that computes to the event loop that answers: what happens to a request, in few wake-ups."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nlpkit.core.decode.loop import Event


class PostOffice:
    """Carries what happens on other threads into one event loop, many letters with one wake-up.

    Args:
        loop: The event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._full: deque[Mailbox] = deque()
        self._called = False

    def put(self, box: Mailbox, letter: tuple[int, Event | Exception]) -> None:
        """Leave a letter; from any thread.

        Raises:
            RuntimeError: The event loop is closed.
        """
        box.letters.append(letter)
        self._full.append(box)
        if not self._called:
            self._called = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        # First: what comes from now on calls again.
        self._called = False
        while self._full:
            self._full.popleft().arrived.set()


class Mailbox:
    """What happens to one submission, for one coroutine to read.

    It holds no more than a submission gives, whose tokens are bounded: a reader that is slow holds nobody up.

    Args:
        office: Brings the letters.
    """

    def __init__(self, office: PostOffice) -> None:
        self.letters: deque[tuple[int, Event | Exception]] = deque()
        self.arrived = asyncio.Event()
        self._office = office

    def put(self, place: int, event: Event | Exception) -> None:
        """Take what happens; this is the submission's `Sink`."""
        self._office.put(self, (place, event))

    async def take(self) -> list[tuple[int, Event]]:
        """Wait for something to happen; return all that has.

        Raises:
            Exception: What ended the submission.
        """
        while not self.letters:
            self.arrived.clear()
            # A letter may have come since the loop's test.
            if not self.letters:
                await self.arrived.wait()
        taken: list[tuple[int, Event]] = []
        while self.letters:
            place, event = self.letters[0]
            if isinstance(event, Exception):
                if taken:
                    break
                raise event
            taken.append((place, event))
            self.letters.popleft()
        return taken
