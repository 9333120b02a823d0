"""The other end of a request: what it sent, and whether it is still there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, TypeVar

import anyio
from starlette.requests import ClientDisconnect

from nlpkit.apps.serve.errors import ApiError
from nlpkit.apps.serve.working import until_ended

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

_T = TypeVar("_T")
SLOWEST_SECONDS = 60.0
"""How long a reader may take nothing before it is given up."""
PING_SECONDS = 15.0
"""Silence after which a stream says that it is alive."""


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


async def read_bytes(request: Request, limit: int) -> bytes:
    """Read a request's body.

    Args:
        request: The request.
        limit: Most bytes.

    Raises:
        ApiError: It is longer, of status 413, or comes too slowly.
        ClientGoneError: The client went away.
    """
    too_large = ApiError(
        f"The body is longer than {limit:,} bytes, which is this server's limit.", status=413, code="body_too_large"
    )
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > limit:
        raise too_large
    parts: list[bytes] = []
    size = 0
    try:
        with anyio.fail_after(SLOWEST_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise too_large
                parts.append(part)
    except ClientDisconnect:
        raise ClientGoneError from None
    except TimeoutError:
        raise ApiError("The body did not arrive in time.", status=408, code="request_timeout") from None
    return b"".join(parts)


def too_long(limit: float) -> ApiError:
    """Return the error of a request that takes too long."""
    return ApiError(
        f"The request took longer than {limit:g} s, which is this server's limit. Ask for less.",
        status=504,
        kind="server_error",
        code="timeout",
    )


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_connected(receive: Receive, work: Awaitable[_T], *, limit: float | None = None) -> _T:
    """Run work for as long as the client waits for it; its body must have been read.

    Args:
        receive: What the client sends.
        work: The work.
        limit: Most seconds.

    Raises:
        ClientGoneError: The client went away; the work was cancelled.
        ApiError: It took longer, and was cancelled; with status 504.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        done, _ = await asyncio.wait({task, gone}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if not done and limit is not None:
            raise too_long(limit)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await until_ended(task, gone)


class EventStream:
    """A response of server-sent events; what it needs is given back however it ends.

    Args:
        events: The events' data, several at a time.
        resources: What to give back at the end.
        limit: Most seconds; a stream that takes longer ends with an error.
        headers: More headers.
    """

    def __init__(
        self,
        events: AsyncGenerator[list[str]],
        resources: AsyncExitStack,
        *,
        limit: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._events = events
        self._resources = resources
        self._limit = limit
        self._written = 0.0
        self._headers = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-cache",
            "x-accel-buffering": "no",
            **(headers or {}),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; see the ASGI specification."""
        # What makes the events ends first: it uses what is given back.
        async with self._resources, contextlib.aclosing(self._events):
            with contextlib.suppress(ClientGoneError):
                await while_connected(receive, self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self._headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        self._written = time.monotonic()
        pings = asyncio.ensure_future(self._ping(send))
        try:
            with anyio.move_on_after(math.inf if self._limit is None else self._limit) as time_left:
                async for batch in self._events:
                    await self._write(send, batch)
            if time_left.cancelled_caught and self._limit is not None:
                await self._write(send, [json.dumps(too_long(self._limit).body()), "[DONE]"])
        finally:
            pings.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _ping(self, send: Send) -> None:
        while True:
            await asyncio.sleep(PING_SECONDS / 3)
            if time.monotonic() - self._written > PING_SECONDS:
                await self._write(send, [])

    async def _write(self, send: Send, events: list[str]) -> None:
        """Send events; none is a comment, which says that the stream is alive."""
        data = "".join(f"data: {event}\n\n" for event in events).encode() or b": ping\n\n"
        try:
            with anyio.fail_after(SLOWEST_SECONDS):
                await send({"type": "http.response.body", "body": data, "more_body": True})
        except (TimeoutError, OSError) as error:
            raise ClientGoneError from error
        self._written = time.monotonic()
