"""Routes of the tasks in the table: one each, and no code that knows which task it serves."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from nlpkit.apps.pipeline.plan import build_decoding
from nlpkit.apps.pipeline.result import TaskResult
from nlpkit.apps.serve.errors import to_api_error
from nlpkit.apps.serve.openapi import Operation
from nlpkit.apps.serve.tasks.bodies import TaskBody, build_body, rows_of
from nlpkit.apps.serve.visit import Visit, visiting
from nlpkit.apps.serve.working import in_thread, pieces_in_thread
from nlpkit.apps.tasks.table import ALIASES, load_task, task_names
from nlpkit.apps.tasks.task import Row, Task
from nlpkit.apps.toolkit import Toolkit
from nlpkit.core.errors import NlpkitError

LOG = logging.getLogger("nlpkit.serve")
GROUP = "Tasks"


@dataclass(frozen=True)
class TaskEndpoint:
    """A task under an address.

    Attributes:
        task: The task.
        name: What the address calls it.
        body: What its requests hold.
    """

    task: Task[Any]
    name: str
    body: type[TaskBody]

    async def answer(self, request: Request) -> Any:
        """Run the task on a request's rows."""
        async with visiting(request) as visit:
            body = await visit.read(self.body)
            rows = rows_of(self.task, body)
            options = {} if body.options is None else body.options.model_dump(exclude_none=True)
            # What is wrong with the options needs no model to be told.
            build_decoding(self.task, options)
            toolkit = await lend_toolkit(visit, body.model)
            if body.stream:
                return visit.stream(self._events(visit, toolkit, rows[0], options, body))

            def work() -> list[TaskResult]:
                return toolkit.run(self.task, rows, options=options, on_overflow=body.on_overflow)

            results = await visit.wait(in_thread(visit.state, work))
            for result in results:
                count(visit, result)
            found = [result.to_dict() for result in results]
            return JSONResponse({"results": found} if getattr(body, "rows", None) is not None else found[0])

    async def _events(
        self, visit: Visit, toolkit: Toolkit, row: Row, options: dict[str, Any], body: TaskBody
    ) -> AsyncGenerator[list[str]]:
        def work() -> Iterator[str | TaskResult]:
            return toolkit.stream(self.task, row, options=options, on_overflow=body.on_overflow)

        try:
            async with contextlib.aclosing(pieces_in_thread(visit.state, work)) as found:
                async for pieces in found:
                    yield [json.dumps(_event(visit, piece)) for piece in pieces]
            yield ["[DONE]"]
        except Exception as error:  # the status was sent: what went wrong is an event like any other
            yield [json.dumps(to_api_error(error).body()), "[DONE]"]

    def operation(self) -> Operation:
        """Describe it."""
        summary = f"Run the task {self.task.name}."
        return Operation(f"/v1/{self.name}", "post", summary, GROUP, self.body, also=("text/event-stream",))


async def lend_toolkit(visit: Visit, model: str | None) -> Toolkit:
    """Lend the tasks on a model until the request is over.

    Args:
        visit: The request.
        model: The model's id; None is the first.

    Raises:
        ApiError: There is no such model.
    """
    models = visit.state.models
    name = model or models.ids[0]
    visit.tally.model = name if name in models.ids else None
    return await visit.borrow(models.toolkit(name))


def count(visit: Visit, result: TaskResult) -> None:
    """Count what a result took."""
    visit.tally.prompt_tokens += result.used_tokens
    visit.tally.write(result.output_tokens)


def _event(visit: Visit, piece: str | TaskResult) -> dict[str, Any]:
    if isinstance(piece, str):
        return {"text": piece}
    count(visit, piece)
    return {"result": piece.to_dict()}


def task_endpoints() -> list[TaskEndpoint]:
    """Return every task of the table under its name and under its command's; one that cannot be loaded is left out."""
    endpoints = []
    for task_name in task_names():
        try:
            task = load_task(task_name)
        except NlpkitError as error:
            LOG.warning("a task is not served: %s", error)
            continue
        for name in (*(alias for alias, meant in ALIASES.items() if meant == task_name), task_name):
            words = "".join(filter(str.isalnum, name.title()))
            endpoints.append(TaskEndpoint(task, name, build_body(task, f"{words}Task")))
    return endpoints


def task_routes(endpoints: list[TaskEndpoint]) -> list[Route]:
    """Return the routes of tasks."""
    return [Route(f"/v1/{one.name}", one.answer, methods=["POST"]) for one in endpoints]
