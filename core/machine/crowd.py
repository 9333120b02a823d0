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
_INTERRUPTED = 40.0
"""Interruptions a second from which on the cores count as busy: other programs that compute cause 100 and more."""
_BETTER = 0.9
"""Fewer threads are kept if they take at most this part of the time."""
_PATIENCE, _MOST_PATIENCE = 1.0, 16.0
"""Seconds until another number of threads is tried: first, and after trials in vain."""
_REST = 10.0
"""At least so many times as long as a trial took, the next one waits."""


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
        self._before: tuple[int, dict[int, float]] | None = None
        """Of a trial: threads before it, and their pace for each number of tokens."""
        self._began = 0.0
        self._rest_until, self._patience = 0.0, _PATIENCE
        self._went_down = False
        self._begin()

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
                self._begin()
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

    def _begin(self) -> None:
        # Passes of several sizes take turns, where guesses are checked or texts come and go: each has its own pace.
        self._windows: dict[int, tuple[int, float]] = {}
        self._seconds, self._count = 0.0, self._interrupted()

    def _took(self, n_tokens: int, threads: int, seconds: float) -> None:
        if threads != self._threads:
            return
        passes, spent = self._windows.get(n_tokens, (0, 0.0))
        self._windows[n_tokens] = passes + 1, spent + seconds
        self._seconds += seconds
        if passes + 1 < _PASSES or spent + seconds < _SECONDS:
            return
        busy = (self._interrupted() - self._count) / self._seconds >= _INTERRUPTED
        # One pass alone says little.
        paces = {size: spent / count for size, (count, spent) in self._windows.items() if 2 * count >= _PASSES}
        self._decide(paces, n_tokens, busy=busy)
        self._begin()

    def _decide(self, paces: dict[int, float], n_tokens: int, *, busy: bool) -> None:
        now = self._clock()
        if self._before is not None:
            threads, known = self._before
            self._before = None
            fewer = self._threads < threads
            better = n_tokens in known and paces[n_tokens] < known[n_tokens] * (_BETTER if fewer else 1.0)
            if not better:
                self._threads = threads
            self._patience = _PATIENCE if better else min(_MOST_PATIENCE, 2 * self._patience)
            self._rest_until = now + max(self._patience, _REST * (now - self._began))
        elif now >= self._rest_until:
            down = busy and self._threads > 1 and not (self._went_down and self._threads < self._most)
            if down or self._threads < self._most:
                self._before, self._began = (self._threads, paces), now
                self._threads = self._threads // 2 if down else min(self._most, 2 * self._threads)
                self._went_down = down


TEAM = Team()
"""That of this process: its passes share the cores."""
