"""Running the application until the process is asked to end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvicorn

from nlpkit.core.errors import ConfigError

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from nlpkit.apps.serve.settings import ServeSettings
    from nlpkit.apps.serve.state import ServerState


MOST_HEADER_BYTES = 65_536
"""Longest head of a request."""


def open_socket(host: str, port: int) -> socket.socket:
    """Listen, before anything that takes long is done.

    Raises:
        ConfigError: The address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(1024)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"Port {port} of {host} cannot be listened on: {error.strerror or error}. Choose another with --port."
        ) from error
    return listening


def build_config(app: Starlette, settings: ServeSettings) -> uvicorn.Config:
    """Say how connections are answered."""
    return uvicorn.Config(
        app,
        # The other one takes headers of any length.
        http="h11",
        h11_max_incomplete_event_size=MOST_HEADER_BYTES,
        ws="none",
        lifespan="on",
        proxy_headers=False,
        server_header=False,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=int(settings.grace) + 5,
    )


def serve(app: Starlette, settings: ServeSettings, listening: socket.socket, *, on_start: Callable[[], None]) -> None:
    """Answer requests until the process gets SIGINT or SIGTERM.

    Args:
        app: The application.
        settings: How to serve.
        listening: An open socket.
        on_start: Called when requests are answered.
    """
    server = _Server(build_config(app, settings), settings.grace, on_start)
    try:
        server.run(sockets=[listening])
    except SystemExit:
        # SIGTERM is how a server is asked to end; uvicorn raises it once more when it has.
        if not server.should_exit:
            raise


class _Server(uvicorn.Server):
    """Ends in two steps: what runs may go on for a while; then it is told of the end, and streams are closed."""

    def __init__(self, config: uvicorn.Config, grace: float, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._grace = grace
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if self.started:
            self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let running requests go on for a while, then end them."""
        state: ServerState = self.config.app.state.server  # type: ignore[union-attr]
        state.models.ending = True
        last = asyncio.get_running_loop().call_later(self._grace, state.models.end)
        try:
            await super().shutdown(sockets)
        finally:
            last.cancel()
