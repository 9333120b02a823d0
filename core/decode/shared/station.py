"""A loop and whose requests are in it: what is needed to take them out and begin again elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nlpkit.core.decode.loop import Event, Loop
    from nlpkit.core.decode.request import Request
    from nlpkit.core.decode.shared.submission import Submission


@dataclass(eq=False)
class Entry:
    """A request that was put into a loop.

    Attributes:
        submission: Whose it is.
        place: Which of the submission's requests.
        told: How many events of each of its texts were told.
        skip: How many of each are not told again, because an earlier loop did.
    """

    submission: Submission
    place: int
    told: Counter[int] = field(default_factory=Counter)
    skip: Counter[int] = field(default_factory=Counter)

    @property
    def request(self) -> Request:
        """The request."""
        return self.submission.requests[self.place]

    @property
    def may_fail(self) -> bool:
        """Whether what it asks of its text may turn out to be impossible while it is written."""
        config = self.request.config
        return bool(config.constraint or config.logit_bias or self.request.token_filter)

    def again(self) -> Entry:
        """Return it as it is put into another loop: the same text comes, and what was told of it is not told twice."""
        return Entry(self.submission, self.place, skip=self.told + Counter())

    def deliver(self, event: Event) -> None:
        """Tell of an event, unless that was done."""
        self.told[event.index] += 1
        if self.told[event.index] > self.skip[event.index]:
            self.submission.deliver(self.place, event)


class Station:
    """A loop, and the requests in it by ticket.

    Args:
        loop: The loop, which is empty.

    Attributes:
        loop: The loop.
        entries: What is in it.
        alone: Whether it is there for one request that may fail.
    """

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.entries: dict[int, Entry] = {}
        self.alone = False
        self._most_slots = 0
        self._longest = 0

    @property
    def footprint(self) -> int:
        """Most positions of the cache that may ever have been written."""
        return self._most_slots * self._longest

    def put(self, entry: Entry) -> None:
        """Put a request into the loop."""
        submission = entry.submission
        keep = submission.keep[entry.place]
        self.entries[self.loop.submit(entry.request, watch_text=submission.watch_text, keep=keep)] = entry

    def drop(self, submission: Submission) -> None:
        """Take all requests of a submission out."""
        for ticket in [ticket for ticket, entry in self.entries.items() if entry.submission is submission]:
            del self.entries[ticket]
            self.loop.cancel(ticket)

    def step(self) -> Iterator[tuple[Entry, Event]]:
        """Let the loop take a step; return what happened to whom."""
        events = self.loop.step()
        self._most_slots = max(self._most_slots, self.loop.n_slots)
        return self._told(events)

    def _told(self, events: list[Event]) -> Iterator[tuple[Entry, Event]]:
        for event in events:
            entry = self.entries[event.ticket]
            if event.completion is not None:
                length = len(entry.request.prompt_ids) + event.completion.n_tokens
                self._longest = max(self._longest, length)
            if event.last:
                del self.entries[event.ticket]
            yield entry, event
