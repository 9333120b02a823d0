"""Streams of events: what makes them ends before what it uses is given back, however the stream ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from nlpkit.apps.serve.connection import EventStream


@pytest.mark.parametrize("where", ["while it writes", "while it waits", "before it begins"])
def test_what_makes_the_events_ends_before_what_it_uses(where: str) -> None:
    told: list[str] = []
    gone = asyncio.Event()

    async def events() -> AsyncGenerator[list[str]]:
        told.append("begun")
        try:
            yield ["first"]
            gone.set()
            await asyncio.sleep(60)
        finally:
            told.append("ended")

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start" and where == "before it begins":
            gone.set()
            await asyncio.sleep(60)
        if message["type"] == "http.response.body" and where == "while it writes":
            # Whoever reads takes nothing, and then hangs up.
            gone.set()
            await asyncio.sleep(60)

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def go() -> None:
        resources = AsyncExitStack()
        resources.callback(lambda: told.append("given back"))
        await EventStream(events(), resources)({"type": "http"}, receive, send)  # type: ignore[arg-type]

    asyncio.run(go())
    assert told == (["given back"] if where == "before it begins" else ["begun", "ended", "given back"])
