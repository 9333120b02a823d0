"""The application: routes, and what happens around each of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from nlpkit.apps.serve.connection import ClientGoneError
from nlpkit.apps.serve.door.gate import Doorkeeper
from nlpkit.apps.serve.door.observing import Metrics, Observer
from nlpkit.apps.serve.errors import ApiError, to_api_error
from nlpkit.apps.serve.libretranslate import routes as libretranslate
from nlpkit.apps.serve.mailbox import PostOffice
from nlpkit.apps.serve.models import ServedModels
from nlpkit.apps.serve.openai import routes as openai
from nlpkit.apps.serve.openapi import Operation, build_openapi, render_docs
from nlpkit.apps.serve.page.routes import page_routes
from nlpkit.apps.serve.settings import ServeSettings
from nlpkit.apps.serve.state import ServerState
from nlpkit.apps.serve.tasks.routes import task_endpoints, task_routes
from nlpkit.core.errors import NlpkitError

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PAGE_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}
_WATCHING = "Watching over the server"
OPERATIONS = [
    Operation("/health", "get", "Say that the process lives.", _WATCHING, unready="It cannot compute."),
    Operation("/ready", "get", "Say whether the first model is in memory.", _WATCHING, unready="It is not."),
    Operation("/metrics", "get", "Count for Prometheus.", _WATCHING, media="text/plain"),
]
FORESEEN = (ApiError, NlpkitError, ClientGoneError, MemoryError, Exception)
"""Errors that get an answer in the interface's form; only the last kind is a bug, and goes on to the log."""


def build_app(settings: ServeSettings, *, models: ServedModels | None = None) -> Starlette:
    """Put the application together.

    Args:
        settings: How to serve.
        models: The models; by default those of the settings, loaded when they are first asked for.

    Returns:
        An ASGI application. Its models are closed when it ends.
    """
    served = models or ServedModels(settings)
    metrics = Metrics()
    tasks = task_endpoints()
    served_tasks = [task.operation() for task in tasks]
    operations = [*openai.OPERATIONS, *served_tasks, *libretranslate.OPERATIONS, *OPERATIONS]
    document = build_openapi(operations, version=version("nlpkit"), models=served.ids)
    page = render_docs(document)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.server = state = ServerState(settings, served, PostOffice(asyncio.get_running_loop()))
        metrics.watch(state)
        try:
            yield
        finally:
            await asyncio.to_thread(served.close)

    return Starlette(
        routes=[
            *openai.ROUTES,
            *task_routes(tasks),
            *libretranslate.ROUTES,
            *page_routes(),
            Route("/openapi.json", lambda request: JSONResponse(document), methods=["GET"]),
            Route("/docs", lambda request: HTMLResponse(page, headers=PAGE_HEADERS), methods=["GET"]),
            Route("/metrics", lambda request: Response(metrics.text(), media_type=METRICS_TYPE), methods=["GET"]),
            Route("/health", health, methods=["GET"]),
            Route("/ready", ready, methods=["GET"]),
        ],
        middleware=[Middleware(Observer, metrics=metrics), Middleware(Doorkeeper, settings=settings)],
        exception_handlers={HTTPException: answer_http_error, **dict.fromkeys(FORESEEN, answer_error)},
        lifespan=lifespan,
    )


async def health(request: Request) -> Response:
    """Say that the process lives."""
    alive = request.app.state.server.models.thread.alive
    return JSONResponse({"status": "ok" if alive else "failed"}, status_code=200 if alive else 503)


async def ready(request: Request) -> Response:
    """Say whether the first model is in memory."""
    models = request.app.state.server.models
    is_ready = models.ids[0] in models.loaded and models.thread.alive and not models.ending
    return JSONResponse({"ready": is_ready}, status_code=200 if is_ready else 503)


async def answer_http_error(request: Request, error: Exception) -> Response:
    """Answer what the router refuses."""
    if not isinstance(error, HTTPException):
        raise error
    what = {404: "There is no such address", 405: f"{request.method} is not possible here"}
    message = f"{what.get(error.status_code, error.detail)}: {request.url.path[:200]}. /docs lists what there is."
    return _answer(ApiError(message, status=error.status_code), dict(error.headers or {}))


async def answer_error(request: Request, error: Exception) -> Response:
    """Answer an error; what is a bug goes to the log."""
    if isinstance(error, ClientGoneError):
        return Response(status_code=499)
    return _answer(to_api_error(error))


def _answer(error: ApiError, headers: dict[str, Any] | None = None) -> Response:
    return JSONResponse(error.body(), status_code=error.status, headers={**(headers or {}), **error.headers})
