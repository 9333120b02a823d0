"""Who may come in: keys, names that the server is called by, and how many at once."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nlpkit.apps.serve.door.keys import bearer_key, knows_key
from nlpkit.apps.serve.errors import ApiError, QueueFullError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from nlpkit.apps.serve.settings import ServeSettings

OPEN_PATHS = frozenset(
    {
        *("/health", "/ready"),
        *("/", "/favicon.ico"),
        *("/languages", "/frontend/settings", "/detect", "/translate", "/translate_file"),
    }
)
"""What answers without a key in the header: whoever watches over the server has none, the page has to ask for one, and
LibreTranslate's clients send theirs as a field, which is checked where fields are read."""
OPEN_FOLDERS = ("/page/", "/download_file/")
"""The same for all that lies below: what the page is made of, and files whose names nobody can guess."""


class Gate:
    """Counts requests in the house.

    Args:
        limit: Most of them.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.inside = 0
        self.turned_away = 0

    @contextlib.contextmanager
    def enter(self) -> Iterator[None]:
        """Let a request in for as long as the block runs; on the event loop's thread alone.

        Raises:
            QueueFullError: There are too many.
        """
        if self.inside >= self.limit:
            self.turned_away += 1
            raise QueueFullError(self.limit, retry_after=2)
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1


def host_name(header: str) -> str:
    """Return the name in a ``Host`` header, without its port, in small letters."""
    header = header.strip().lower()
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].rstrip(".")


def _port(address: str, kind: str) -> str:
    """Return the port of a ``Host`` header or of an origin behind its ``//``; the usual one where it names none."""
    behind = address.strip().rpartition("]")[2]
    return behind.partition(":")[2] or {"http": "80", "https": "443"}.get(kind, "")


class Doorkeeper:
    """Turns away requests that call the server by a name that is not its own, or bring no key.

    A page in a browser can let its own name lead to this machine (DNS rebinding); the ``Host`` header then still says
    that name. It also lets a page send, unasked, what looks like a form; the ``Origin`` header then says whose page.

    Args:
        app: What is behind the door.
        settings: Names and keys.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self._app = app
        self._keys = settings.api_keys
        self._allowed = frozenset(name.lower() for name in settings.allowed_hosts)
        self._names = {"localhost", "127.0.0.1", "::1", *self._allowed}
        self._any_address = _is_wildcard(settings.host)
        if not self._any_address:
            self._names.add(settings.host.lower())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; see the ASGI specification."""
        if scope["type"] == "http":
            from starlette.responses import JSONResponse

            try:
                self._check(scope)
            except ApiError as error:
                response = JSONResponse(error.body(), status_code=error.status, headers=error.headers)
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_own(self, origin: str, host: str) -> bool:
        """Tell whether what a browser sends comes from a page of this server, or from what its user installed.

        Args:
            origin: The ``Origin`` header.
            host: The ``Host`` header.
        """
        kind, _, address = origin.lower().partition("://")
        name = host_name(address)
        # Behind a proxy the browser sees another port than is called: a name that was allowed is enough.
        if kind.endswith("-extension") or name in self._allowed:
            return True
        # What listens on another port of this machine is another's.
        return name in {*self._names, host_name(host)} and _port(address, kind) == _port(host, kind)

    def _check(self, scope: Scope) -> None:
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name, value)
        host = headers.get(b"host", b"").decode("latin-1")
        name = host_name(host)
        if name not in self._names and not (self._any_address and _is_address(name)):
            raise ApiError(
                f"This server is not called {name[:100]!r}. Call it by its address, or start it with --allow-host.",
                status=421,
                code="wrong_host",
            )
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and not self._is_own(origin, host):
            raise ApiError(
                f"Pages of {origin[:100]!r} may not use this server.",
                status=403,
                kind="permission_error",
                code="wrong_origin",
            )
        if not self._keys or scope["path"] in OPEN_PATHS or scope["path"].startswith(OPEN_FOLDERS):
            return
        if not knows_key(bearer_key(headers.get(b"authorization", b"").decode("latin-1")), self._keys):
            raise ApiError(
                "The API key is missing or wrong. Send it in the header: Authorization: Bearer KEY.",
                status=401,
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


def _is_wildcard(host: str) -> bool:
    return _is_address(host) and ipaddress.ip_address(host).is_unspecified


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
