"""What happens in the house: counted for Prometheus, and told to the log, in which no text of anybody's stands."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from nlpkit.apps.serve.state import ServerState

LOG = logging.getLogger("nlpkit.serve")
SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


@dataclass
class Tally:
    """What is known of one request; handlers fill it in.

    Attributes:
        model: Id of the model.
        prompt_tokens: Tokens of all prompts.
        completion_tokens: Tokens that were written so far.
        began: When it came, on the clock of `time.perf_counter`.
        first_token: When its first token was written, on the same clock.
    """

    model: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    began: float = field(default_factory=time.perf_counter)
    first_token: float | None = None

    def write(self, n_tokens: int) -> None:
        """Count tokens that were written."""
        if n_tokens and self.first_token is None:
            self.first_token = time.perf_counter()
        self.completion_tokens += n_tokens


def tally_of(scope: Scope) -> Tally:
    """Return the tally of a request."""
    tally: Tally = scope.setdefault("state", {}).setdefault("tally", Tally())
    return tally


class Metrics:
    """Counts for Prometheus, of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "nlpkit_requests", "Requests by route and status.", ("route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "nlpkit_request_seconds", "Seconds from a request to the end of its answer.", ("route",), buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self._first = Histogram(
            "nlpkit_first_token_seconds", "Seconds from a request to its first token.", buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self._tokens = Counter("nlpkit_tokens", "Tokens that were read and written.", ("kind",), registry=self.registry)

    def watch(self, state: ServerState) -> None:
        """Tell what is in the house as well."""
        self.registry.register(_House(state))

    def count(self, route: str, status: int, tally: Tally) -> None:
        """Count a request that is over."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(time.perf_counter() - tally.began)
        if tally.first_token is not None:
            self._first.observe(tally.first_token - tally.began)
        self._tokens.labels("prompt").inc(tally.prompt_tokens)
        self._tokens.labels("completion").inc(tally.completion_tokens)

    def text(self) -> bytes:
        """Return all counts in Prometheus' text format."""
        return generate_latest(self.registry)


class _House:
    """What is true at the moment that somebody asks."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    def collect(self) -> Iterator[Any]:
        state = self._state
        yield GaugeMetricFamily("nlpkit_requests_inside", "Requests running or waiting.", value=state.gate.inside)
        turned_away = state.gate.turned_away
        yield CounterMetricFamily("nlpkit_turned_away", "Requests refused because of too many.", value=turned_away)
        slots = GaugeMetricFamily("nlpkit_slots", "Texts that are being written.", labels=("model",))
        waiting = GaugeMetricFamily("nlpkit_waiting", "Texts that wait for a slot.", labels=("model",))
        sizes = GaugeMetricFamily("nlpkit_model_bytes", "About the bytes of weights.", labels=("model",))
        for name, loaded in state.models.loaded.items():
            slots.add_metric((name,), loaded.engine.n_slots)
            waiting.add_metric((name,), loaded.engine.n_waiting)
            sizes.add_metric((name,), loaded.size)
        yield from (slots, waiting, sizes)


class Observer:
    """Counts and logs each request.

    Args:
        app: What answers it.
        metrics: Where it is counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; see the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        tally = tally_of(scope)
        status = 499  # nothing was sent: the client is gone

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except Exception:
            status = 500
            raise
        finally:
            route = _route_of(scope)
            self._metrics.count(route, status, tally)
            if LOG.isEnabledFor(logging.INFO):
                LOG.info("%s", json.dumps(_line(scope, route, status, tally)))


def _route_of(scope: Scope) -> str:
    """Return the address as the application declares it: what people put in its place is not told."""
    # The router writes what it found into the scope; a path that nobody serves is counted as one.
    path = scope["path"]
    for route in getattr(scope.get("app"), "routes", ()):
        if isinstance(route, Route) and route.path_regex.match(path):
            return route.path
    return "unknown"


def _line(scope: Scope, route: str, status: int, tally: Tally) -> dict[str, Any]:
    client = scope.get("client")
    first = None if tally.first_token is None else round(tally.first_token - tally.began, 4)
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "client": client[0] if client else None,
        "method": scope["method"],
        "route": route,
        "status": status,
        "seconds": round(time.perf_counter() - tally.began, 4),
        "first_token_seconds": first,
        "model": tally.model,
        "prompt_tokens": tally.prompt_tokens,
        "completion_tokens": tally.completion_tokens,
    }
