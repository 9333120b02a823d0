"""What all requests of a server share, and the steps that all of their handlers take."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio import CapacityLimiter
from starlette.requests import Request

from nlpkit.apps.serve.door.gate import Gate
from nlpkit.apps.serve.mailbox import PostOffice
from nlpkit.apps.serve.models import ServedModels
from nlpkit.apps.serve.settings import ServeSettings

_T = TypeVar("_T")
SHORT_WORKERS = 4
"""Threads for what takes moments: reading bodies, tokenizing."""
LONG_WORKERS = 64
"""Threads for what takes long and mostly waits: tasks."""


class ServerState:
    """What all requests share. Made on the event loop that answers them.

    Args:
        settings: How to serve.
        models: The models.
        office: Brings what the engine says to this event loop.

    Attributes:
        gate: Counts the requests in the house.
    """

    def __init__(self, settings: ServeSettings, models: ServedModels, office: PostOffice) -> None:
        self.settings = settings
        self.models = models
        self.office = office
        self.gate = Gate(settings.queue)
        self._short = CapacityLimiter(SHORT_WORKERS)
        self._long = CapacityLimiter(LONG_WORKERS)
        # Most find their model loaded, and must not wait for those who wait for another, nor for tasks.
        self._lending = CapacityLimiter(settings.queue)

    async def briefly(self, work: Callable[[], _T]) -> _T:
        """Run something that takes moments outside the event loop."""
        return await anyio.to_thread.run_sync(work, limiter=self._short)

    async def at_length(self, work: Callable[[], _T]) -> _T:
        """Run something that may take long outside the event loop; it is waited for even if nobody wants it now."""
        return await anyio.to_thread.run_sync(work, limiter=self._long)

    @contextlib.asynccontextmanager
    async def borrowed(self, context: AbstractContextManager[_T]) -> AsyncIterator[_T]:
        """Enter a context whose beginning may take long, such as that of lending a model."""
        value = await anyio.to_thread.run_sync(context.__enter__, limiter=self._lending)
        try:
            yield value
        finally:
            context.__exit__(None, None, None)


def state_of(request: Request) -> ServerState:
    """Return what all requests share."""
    state: ServerState = request.app.state.server
    return state
