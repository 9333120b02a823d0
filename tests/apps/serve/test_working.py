"""Tasks run in threads, over the engine that everything else runs on, and stop when nobody wants them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anyio
import pytest
from tiny_server import tiny_models, tiny_settings

from nlpkit.apps.pipeline.result import TaskResult
from nlpkit.apps.serve.mailbox import PostOffice
from nlpkit.apps.serve.running import complete
from nlpkit.apps.serve.state import LONG_WORKERS, ServerState
from nlpkit.apps.serve.working import in_thread, pieces_in_thread
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.request import Request
from nlpkit.core.errors import NlpkitError


@asynccontextmanager
async def state_of() -> AsyncIterator[ServerState]:
    settings = tiny_settings()
    models = tiny_models(settings)
    yield ServerState(settings, models, PostOffice(asyncio.get_running_loop()))
    for loaded in models.loaded.values():
        for _ in range(500):
            if not loaded.engine.busy and not loaded.users:
                break
            await asyncio.sleep(0.01)
        assert (loaded.engine.n_slots, loaded.engine.n_waiting, loaded.users) == (0, 0, 0)
    models.close()


def rows(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"row {number}"} for number in range(count)]


def run_rows(state: ServerState, count: int, **options: Any) -> list[str]:
    with state.models.toolkit("tiny") as toolkit:
        return [str(result) for result in toolkit.run("generation", rows(count), options={"max_tokens": 30, **options})]


def test_tasks_run_beside_completions() -> None:
    async def go() -> tuple[list[str], list[str], str]:
        async with state_of() as state:
            with state.models.lend("tiny") as loaded:
                raw = Request(prompt_ids=tuple(b"row 3"), config=DecodeConfig(max_tokens=30))
                first, second, (done,) = await asyncio.gather(
                    in_thread(state, lambda: run_rows(state, 6)),
                    in_thread(state, lambda: run_rows(state, 6)),
                    complete(loaded.engine, [raw], state.office),
                )
            return first, second, done.completions[0].text

    first, second, text = asyncio.run(go())
    assert first == second
    assert first[3] == text


def test_a_task_that_nobody_wants_stops() -> None:
    async def go() -> None:
        async with state_of() as state:
            task = asyncio.create_task(in_thread(state, lambda: run_rows(state, 500, max_tokens=200)))
            await asyncio.sleep(0.3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 10)

    asyncio.run(go())


def test_pieces_come_as_they_are_made() -> None:
    async def go() -> list[str | TaskResult]:
        async with state_of() as state:

            def work() -> Iterator[str | TaskResult]:
                with state.models.toolkit("tiny") as toolkit:
                    yield from toolkit.stream("generation", {"prompt": "once"}, options={"max_tokens": 20})

            return [piece async for batch in pieces_in_thread(state, work) for piece in batch]

    *pieces, result = asyncio.run(go())
    assert isinstance(result, TaskResult)
    assert len(pieces) > 1
    assert "".join(map(str, pieces)) == str(result)


def test_leaving_pieces_early_stops_the_work() -> None:
    closed: list[str] = []

    async def go() -> None:
        async with state_of() as state:

            def work() -> Iterator[str | TaskResult]:
                try:
                    with state.models.toolkit("tiny") as toolkit:
                        yield from toolkit.stream("generation", {"prompt": "once"}, options={"max_tokens": 240})
                finally:
                    closed.append("closed")

            pieces = pieces_in_thread(state, work)
            await anext(pieces)
            await pieces.aclose()

    asyncio.run(go())
    assert closed == ["closed"]


@pytest.mark.parametrize("how", ["scope", "task"])
def test_no_thread_outlives_the_wait_for_it(how: str) -> None:
    """What it works with is given back when the wait is over."""
    ended: list[str] = []

    def work() -> Iterator[str]:
        yield "one"
        time.sleep(0.3)
        ended.append("ended")

    async def streamed(state: ServerState) -> None:
        async with aclosing(pieces_in_thread(state, work)) as pieces:
            await anext(pieces)
            await anyio.sleep(10)

    async def whole(state: ServerState) -> None:
        await in_thread(state, lambda: list(work()))

    async def go(ask: Callable[[ServerState], Awaitable[None]]) -> None:
        async with state_of() as state:
            if how == "scope":
                with anyio.move_on_after(0.1):
                    await ask(state)
            else:
                task = asyncio.ensure_future(ask(state))
                for _ in range(3):
                    await asyncio.sleep(0.05)
                    task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert ended == ["ended"]
            ended.clear()

    for ask in (streamed, whole):
        asyncio.run(go(ask))


def test_loaded_models_are_lent_however_many_tasks_run() -> None:
    async def go() -> None:
        async with state_of() as state:
            with state.models.lend("tiny"):
                pass
            ended = threading.Event()
            tasks = [asyncio.ensure_future(state.at_length(lambda: ended.wait(30))) for _ in range(LONG_WORKERS)]
            try:
                while state._long.available_tokens:
                    await asyncio.sleep(0.01)
                with anyio.fail_after(10):
                    async with state.borrowed(state.models.lend("tiny")) as loaded:
                        assert not loaded.engine.closed
            finally:
                ended.set()
                await asyncio.gather(*tasks)

    asyncio.run(go())


def test_what_goes_wrong_in_the_thread_is_raised() -> None:
    async def go() -> None:
        async with state_of() as state:

            def work() -> Iterator[str]:
                yield "one"
                raise NlpkitError("no")

            with pytest.raises(NlpkitError, match=r"^no$"):
                _ = [piece async for piece in pieces_in_thread(state, work)]
            with pytest.raises(NlpkitError, match="no room"):
                await in_thread(state, lambda: run_rows(state, 1, max_tokens=5000))

    asyncio.run(go())
