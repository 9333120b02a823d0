"""How many threads pay while other programs keep the cores busy.

The threads of a pass wait for each other many times a millisecond. Where other programs take the cores in turns, a
thread that waits loses its turn, and each such wait takes as long as somebody else's: several threads are then much
slower than one, which waits for nobody. So the pace of passes is measured, and fewer threads are tried while threads
are being interrupted. What a pass computes does not depend on their number.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MOST_TOKENS = 64
"""Passes of more tokens compute so long between two waits that all threads always pay."""

_PASSES, _SECONDS = 8, 0.04
"""A pace is measured over so many passes at least, and so long."""
_INTERRUPTED = 0.5
"""Interruptions a pass from which on the cores count as busy; on an idle machine there are almost none."""
_BETTER = 0.9
"""Fewer threads are kept if they take at most this part of the time."""
_PATIENCE, _MOST_PATIENCE = 1.0, 16.0
"""Seconds until another number of threads is tried: first, and after trials in vain."""


def interruptions() -> int:
    """Return how often threads of this process lost their core to others so far; 0 where that is not known."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


class Team:
    """Chooses the number of threads of small passes, by how fast they were.

    Any thread may use one; what two threads measure at the same moment is then a pace of both, which is as good.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.perf_counter, interrupted: Callable[[], int] = interruptions
    ) -> None:
        """Begin with all threads.

        Args:
            clock: Seconds.
            interrupted: Counts interruptions.
        """
        self._clock, self._interrupted = clock, interrupted
        self._lock = threading.Lock()
        self._most = self._threads = 1
        self._before: tuple[int, int, float] | None = None
        """Of a trial: threads, tokens a pass and pace before it."""
        self._rest_until, self._patience = 0.0, _PATIENCE
        self._went_down = False
        self._begin(0)

    def threads(self, most: int, n_tokens: int) -> int:
        """Return how many threads to compute with.

        Args:
            most: As many as there may be.
            n_tokens: Tokens of the pass.
        """
        if most != self._most:
            with self._lock:
                self._most = self._threads = most
                self._before = None
                self._begin(0)
        return most if n_tokens > MOST_TOKENS else self._threads

    @contextmanager
    def passing(self, most: int, n_tokens: int) -> Iterator[int]:
        """Measure one pass; yields how many threads it shall take.

        Args:
            most: As many as there may be.
            n_tokens: Tokens of the pass.
        """
        threads = self.threads(most, n_tokens)
        if most == 1 or n_tokens > MOST_TOKENS:
            yield threads
            return
        start = self._clock()
        yield threads
        with self._lock:
            self._took(n_tokens, threads, self._clock() - start)

    def _begin(self, n_tokens: int) -> None:
        self._tokens, self._passes, self._seconds, self._count = n_tokens, 0, 0.0, self._interrupted()

    def _took(self, n_tokens: int, threads: int, seconds: float) -> None:
        if threads != self._threads:
            return
        if n_tokens != self._tokens:
            self._begin(n_tokens)
        self._passes += 1
        self._seconds += seconds
        if self._passes < _PASSES or self._seconds < _SECONDS:
            return
        pace, busy = self._seconds / self._passes, (self._interrupted() - self._count) / self._passes >= _INTERRUPTED
        self._decide(pace, busy=busy)
        self._begin(n_tokens)

    def _decide(self, pace: float, *, busy: bool) -> None:
        now = self._clock()
        if self._before is not None:
            threads, n_tokens, known = self._before
            self._before = None
            fewer = self._threads < threads
            better = n_tokens == self._tokens and pace < known * (_BETTER if fewer else 1.0)
            if not better:
                self._threads = threads
            self._patience = _PATIENCE if better else min(_MOST_PATIENCE, 2 * self._patience)
            self._rest_until = now + self._patience
        elif now >= self._rest_until:
            down = busy and self._threads > 1 and not (self._went_down and self._threads < self._most)
            if down or self._threads < self._most:
                self._before = self._threads, self._tokens, pace
                self._threads = self._threads // 2 if down else min(self._most, 2 * self._threads)
                self._went_down = down


TEAM = Team()
"""That of this process: its passes share the cores."""
