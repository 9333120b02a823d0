"""One request from the door to its answer: read, let in, lent a model, waited for, counted."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, AsyncExitStack
from typing import TypeVar

from pydantic import BaseModel
from starlette.requests import Request

from nlpkit.apps.serve.body import read_body
from nlpkit.apps.serve.connection import EventStream, read_bytes, while_connected
from nlpkit.apps.serve.door.observing import Tally, tally_of
from nlpkit.apps.serve.models import LoadedModel
from nlpkit.apps.serve.state import ServerState, state_of

_T = TypeVar("_T")
_B = TypeVar("_B", bound=BaseModel)


class Visit:
    """A request that was let in. `visiting` makes one.

    Attributes:
        request: The request.
        state: The server.
        tally: What is counted of the request.
    """

    def __init__(self, request: Request, stack: AsyncExitStack) -> None:
        self.request = request
        self.state: ServerState = state_of(request)
        self.tally: Tally = tally_of(request.scope)
        self._stack = stack

    async def read(self, kind: type[_B], **known: object) -> _B:
        """Read the body.

        Args:
            kind: What it should be.
            known: Fields that the address says.

        Raises:
            ApiError: It is something else, too long, or too slow.
        """
        data = await read_bytes(self.request, self.state.settings.max_body_bytes)
        return await self.state.briefly(lambda: read_body(kind, data, **known))

    async def briefly(self, work: Callable[[], _T]) -> _T:
        """Run something that takes moments outside the event loop."""
        return await self.state.briefly(work)

    async def borrow(self, context: AbstractContextManager[_T]) -> _T:
        """Enter a context until the request is over; its beginning may take long."""
        return await self._stack.enter_async_context(self.state.borrowed(context))

    async def lend(self, model: str) -> LoadedModel:
        """Lend a model until the request is over.

        Raises:
            ApiError: There is no such model.
            NlpkitError: It cannot be loaded.
        """
        self.tally.model = model if model in self.state.models.ids else None
        return await self.borrow(self.state.models.lend(model))

    async def wait(self, work: Awaitable[_T]) -> _T:
        """Wait for work, for as long as the client does and the server allows.

        Raises:
            ClientGoneError: The client went away.
            ApiError: It took too long.
        """
        return await while_connected(self.request.receive, work, limit=self.state.settings.timeout)

    def stream(self, events: AsyncGenerator[list[str]]) -> EventStream:
        """Answer with events; the request is over when they are."""
        return EventStream(events, self._stack.pop_all(), limit=self.state.settings.timeout)


@contextlib.asynccontextmanager
async def visiting(request: Request) -> AsyncIterator[Visit]:
    """Let a request in for as long as the block runs, or, where it is answered with a stream, the stream does.

    Raises:
        QueueFullError: There are too many.
    """
    async with AsyncExitStack() as stack:
        visit = Visit(request, stack)
        stack.enter_context(visit.state.gate.enter())
        yield visit
