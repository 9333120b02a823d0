"""Requests on the engine: texts as they grow, or all of them when they are complete."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nlpkit.apps.serve.mailbox import Mailbox, PostOffice

if TYPE_CHECKING:
    from nlpkit.apps.serve.door.observing import Tally
    from nlpkit.core.decode.loop import Event
    from nlpkit.core.decode.request import Completion, Request
    from nlpkit.core.decode.shared.engine import SharedEngine


@dataclass(frozen=True)
class Finished:
    """All texts of one request.

    Attributes:
        completions: In the order of their index.
    """

    completions: tuple[Completion, ...]

    @property
    def n_tokens(self) -> int:
        """Tokens of all of them."""
        return sum(completion.n_tokens for completion in self.completions)


async def complete(
    engine: SharedEngine, requests: Sequence[Request], office: PostOffice, *, tally: Tally | None = None
) -> list[Finished]:
    """Run checked requests to their end; cancelling the coroutine cancels them.

    Args:
        engine: The engine.
        requests: At least one.
        office: Brings what happens.
        tally: Where tokens are counted.

    Returns:
        For each request its texts.

    Raises:
        NlpkitError: The engine gave up.
    """
    parts: list[list[Completion]] = [[] for _ in requests]
    async for batch in events_of(engine, requests, office, watch_text=False, tally=tally):
        for place, event in batch:
            if event.completion is not None:
                parts[place].append(event.completion)
    return [Finished(tuple(sorted(part, key=lambda one: one.index))) for part in parts]


async def events_of(
    engine: SharedEngine,
    requests: Sequence[Request],
    office: PostOffice,
    *,
    watch_text: bool,
    tally: Tally | None = None,
) -> AsyncGenerator[list[tuple[int, Event]]]:
    """Run checked requests; yield what happens, all that has happened since at once."""
    box = Mailbox(office)
    submission = engine.submit(requests, box.put, watch_text=watch_text)
    left = len(requests)
    try:
        while left:
            batch = await box.take()
            left -= sum(event.last for _, event in batch)
            if tally is not None:
                tally.write(sum(_n_tokens(event) for _, event in batch))
            yield batch
    finally:
        submission.cancel()


def _n_tokens(event: Event) -> int:
    """Return how many tokens an event is about; those of a search come with its end."""
    if event.token_id is None and event.completion is not None:
        return event.completion.n_tokens
    return int(event.token_id is not None)
