"""The one thread that computes: engines that share it take turns, so that they do not fight for the processor."""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

from nlpkit.core.decode.shared.submission import CLOSED, ClosedServiceError

_T = TypeVar("_T")


class TakesTurns(Protocol):
    """What runs on the thread. All of its methods are called there alone."""

    @property
    def busy(self) -> bool:
        """Whether there is anything to compute."""
        ...

    def turn(self) -> None:
        """Compute for a moment. Raises only what it cannot go on after."""
        ...

    def stop(self) -> None:
        """Tell everybody who waits that nothing more comes. Never raises."""
        ...


class DecodeThread:
    """Lets any number of engines compute in turn, and sleeps while none has work.

    A process that ends closes it: what computes must not be torn away with the interpreter.
    """

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._members: list[TakesTurns] = []
        self._closing = False
        # One thread may come twice: whatever is collected as garbage in between may cancel what it asked for.
        self._lock = threading.RLock()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="nlpkit-decode", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @property
    def alive(self) -> bool:
        """Whether it takes work."""
        return self._thread.is_alive() and not self._closing

    def post(self, action: Callable[[], None]) -> None:
        """Run something on the thread between two turns; it must be short and must not raise.

        Raises:
            ClosedServiceError: The thread has ended: it would never be run.
        """
        with self._lock:
            if self._ended:
                raise ClosedServiceError(CLOSED)
            self._inbox.put(action)

    def call(self, work: Callable[[], _T]) -> Future[_T]:
        """Run something on the thread between two turns.

        Args:
            work: What to run; short, since everybody waits for it.

        Returns:
            What it returns or raises, when it has run, or `ClosedServiceError`, where the thread is closed before. A
            future that is cancelled before is not run.

        Raises:
            ClosedServiceError: The thread has ended.
        """
        future: Future[_T] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    if self._closing:
                        # Whoever ends the thread does not wait for all that was asked of it.
                        raise ClosedServiceError(CLOSED)
                    future.set_result(work())
                except BaseException as error:  # whoever waits gets it
                    future.set_exception(error)

        self.post(run)
        return future

    def join(self, member: TakesTurns) -> None:
        """Let an engine take turns.

        Raises:
            ClosedServiceError: The thread has ended.
        """
        self.post(lambda: self._members.append(member))

    def leave(self, member: TakesTurns) -> None:
        """Let an engine take no more turns; whoever waits for it is told. Idempotent."""

        def go() -> None:
            if member in self._members:
                self._members.remove(member)
                member.stop()

        with contextlib.suppress(ClosedServiceError):
            self.post(go)

    def close(self, timeout: float = 10.0) -> None:
        """End the thread; whoever waits is told. Idempotent.

        Args:
            timeout: Seconds to wait for it.
        """
        self._closing = True
        with contextlib.suppress(ClosedServiceError):
            self.post(lambda: None)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        atexit.unregister(self.close)

    def _run(self) -> None:
        try:
            while not self._closing:
                self._answer(wait=not any(member.busy for member in self._members))
                for member in tuple(self._members):
                    if member.busy:
                        self._turn(member)
        finally:
            self._end()

    def _end(self) -> None:
        """Tell everybody that nothing more comes; also those who have just handed something in."""
        with self._lock:
            self._ended = True
        while True:
            try:
                action = self._inbox.get_nowait()
            except queue.Empty:
                break
            with contextlib.suppress(Exception):
                action()
        for member in self._members:
            member.stop()
        self._members.clear()

    def _turn(self, member: TakesTurns) -> None:
        try:
            member.turn()
        except Exception:  # it could not even begin anew, for want of memory: the others go on without it
            self._members.remove(member)
            member.stop()

    def _answer(self, *, wait: bool) -> None:
        """Run what was posted; `wait` for it if there is nothing else to do."""
        while True:
            try:
                action = self._inbox.get(block=wait)
            except queue.Empty:
                return
            action()
            wait = False
