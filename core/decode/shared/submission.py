"""What a caller holds of the requests that it handed in: they can be cancelled, alone or with all others of a task."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from nlpkit.core.errors import NlpkitError

if TYPE_CHECKING:
    from nlpkit.core.decode.loop import Event
    from nlpkit.core.decode.request import Request

Sink: TypeAlias = "Callable[[int, Event | Exception], None]"
"""Takes what happens to a request: its place among those handed in, and the event; or, once for all of them, the error
that ends them. Called on the thread that computes: it must be short."""


CLOSED = "The model is being unloaded, or the program is ending. Try again later."


class CancelledRequestError(NlpkitError):
    """The caller no longer wants what it asked for."""


class ClosedServiceError(NlpkitError):
    """The engine was closed while it worked on a request."""


class Submission:
    """Requests that were handed in together.

    Attributes:
        requests: The requests.
        watch_text: Whether text is told step by step.
        todo: Places of those that are not in the loop yet, in the order in which they should go.
        keep: For each request, how many of its first tokens are worth keeping; None is all.
        left: How many are not finished.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        sink: Sink,
        *,
        watch_text: bool,
        order: Sequence[int],
        keep: Sequence[int | None],
        cancel: Callable[[Submission], None],
    ) -> None:
        self.requests = tuple(requests)
        self.watch_text = watch_text
        self.todo = deque(order)
        self.keep = tuple(keep)
        self.left = len(self.requests)
        self._sink: Sink | None = sink
        self._cancel = cancel

    @property
    def done(self) -> bool:
        """Whether nothing more comes."""
        return self._sink is None

    def cancel(self) -> None:
        """Drop all of its requests; their slots are free soon. From any thread, and as often as one likes."""
        if not self.done:
            self._cancel(self)

    def deliver(self, place: int, event: Event) -> None:
        """Hand an event on; on the thread that computes."""
        if self._sink is None:
            return
        if event.last:
            self.left -= 1
        sink = self._sink
        if not self.left:
            self._sink = None
        # Whoever cannot take it any more (its event loop is closed) is no concern of the others.
        with contextlib.suppress(Exception):
            sink(place, event)

    def fail(self, error: Exception) -> None:
        """Say that nothing more comes, and why; on the thread that computes."""
        sink, self._sink = self._sink, None
        if sink is not None:
            with contextlib.suppress(Exception):
                sink(0, error)


class Cancellation:
    """A switch that stops whatever a piece of work waits for, from another thread.

    Inside ``with cancellation.applied():`` everything that this thread asks a shared engine for is dropped when the
    switch is thrown, and `CancelledRequestError` is raised where it waits.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._held: set[Submission] = set()

    @property
    def cancelled(self) -> bool:
        """Whether the switch was thrown."""
        return self._cancelled

    def cancel(self) -> None:
        """Throw the switch."""
        with self._lock:
            self._cancelled = True
            held = list(self._held)
        for submission in held:
            submission.cancel()

    def check(self) -> None:
        """Refuse to go on once the switch was thrown.

        Raises:
            CancelledRequestError: It was.
        """
        if self._cancelled:
            raise CancelledRequestError("The request was cancelled.")

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Apply it to what this thread does in the block."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    @contextlib.contextmanager
    def holding(self, submission: Submission) -> Iterator[None]:
        """Apply it to one submission for as long as the block runs."""
        with self._lock:
            self._held.add(submission)
            cancelled = self._cancelled
        if cancelled:
            submission.cancel()
        try:
            yield
        finally:
            with self._lock:
                self._held.discard(submission)


_current: contextvars.ContextVar[Cancellation | None] = contextvars.ContextVar("nlpkit_cancellation", default=None)


def current_cancellation() -> Cancellation:
    """Return the switch that applies to this thread; one that nobody can throw where there is none."""
    return _current.get() or Cancellation()
