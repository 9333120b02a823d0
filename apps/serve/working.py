"""Work in threads for requests: tasks, which run on the shared engine beside all else, and stop when unwanted."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from nlpkit.core.decode.shared.submission import Cancellation

if TYPE_CHECKING:
    from nlpkit.apps.serve.state import ServerState

_T = TypeVar("_T")


async def until_ended(*tasks: asyncio.Future[Any]) -> None:
    """Wait until tasks have ended, however often one is told to wait no more: what they use is given back behind it."""
    # A scope of anyio that was left cancels again and again what waits inside it; others do it once.
    with anyio.CancelScope(shield=True):
        while not all(task.done() for task in tasks):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            # Whoever wants it has it already.
            task.exception()


async def in_thread(state: ServerState, work: Callable[[], _T]) -> _T:
    """Run work in a thread; cancelling the coroutine stops it at its next call of a shared engine.

    ::

        with state.models.toolkit(name) as toolkit:  # inside `work`
            return toolkit.run("translation", rows)

    Args:
        state: The server.
        work: What to run.

    Returns:
        What it returns.
    """
    cancellation = Cancellation()

    def run() -> _T:
        with cancellation.applied():
            return work()

    task = asyncio.ensure_future(state.at_length(run))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        cancellation.cancel()
        await until_ended(task)
        raise


async def pieces_in_thread(state: ServerState, work: Callable[[], Iterable[_T]]) -> AsyncGenerator[list[_T]]:
    """Run work that gives one piece after another in a thread; yield what it gives, all that is there at once.

    Ending the iteration early stops the work at its next call of a shared engine.

    Args:
        state: The server.
        work: What to run; its pieces are few or bounded, since all wait for the reader.
    """
    loop = asyncio.get_running_loop()
    cancellation = Cancellation()
    ready: deque[_T] = deque()
    arrived = asyncio.Event()

    def run() -> None:
        try:
            with cancellation.applied():
                for piece in work():
                    cancellation.check()
                    ready.append(piece)
                    loop.call_soon_threadsafe(arrived.set)
        finally:
            loop.call_soon_threadsafe(arrived.set)

    task = asyncio.ensure_future(state.at_length(run))
    try:
        while not (task.done() and not ready):
            if not ready:
                arrived.clear()
                waiter = asyncio.ensure_future(arrived.wait())
                await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
                waiter.cancel()
            taken = [ready.popleft() for _ in range(len(ready))]
            if taken:
                yield taken
        task.result()
    finally:
        cancellation.cancel()
        await until_ended(task)
