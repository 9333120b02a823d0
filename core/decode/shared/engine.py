"""`SharedEngine`: the interface of `Engine` for many callers at once, whose requests run side by side in one loop."""

from __future__ import annotations

import contextlib
import queue
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING

from nlpkit.core.decode.loop import Event
from nlpkit.core.decode.prefix_cache.order import plan_order
from nlpkit.core.decode.request import Completion, Generation, Request, Score, TokenEvent
from nlpkit.core.decode.sampler import draw_seed
from nlpkit.core.decode.shared.reading import Reader
from nlpkit.core.decode.shared.station import Entry, Station
from nlpkit.core.decode.shared.submission import (
    CLOSED,
    CancelledRequestError,
    ClosedServiceError,
    Sink,
    Submission,
    current_cancellation,
)
from nlpkit.core.errors import ConfigError, ContextOverflowError

if TYPE_CHECKING:
    from nlpkit.core.decode.engine import Engine
    from nlpkit.core.decode.shared.thread import DecodeThread

FEW = 4
"""Requests of one call up to which whole texts are kept for later ones, not their common beginnings alone."""
AHEAD = 8
"""Requests that wait in the loop itself while it works: enough to refill what becomes free, few enough that whoever
comes next need not wait for long."""
FOOTPRINT = 3
"""How much more of a cache may be written than is in use at once, before a new one is begun."""
SCORED_AT_ONCE = 512
"""Tokens that are scored between two steps of running texts."""


class SharedEngine:
    """One engine on a thread of its own, for any number of callers.

    Requests join the running ones as soon as there is room. Callers take turns: one with many requests does not hold
    up one with a single request. What a request gets does not depend on the others.

    Args:
        engine: The engine; nobody else may use it from now on.
        thread: Where it computes.
        batch_tokens: Bound on positions of the cache in use, slots times length; None takes the engine's.

    Attributes:
        engine: The engine.
        batch_tokens: Bound on positions of the cache in use.
        max_seq_len: The model's context, in tokens.
        vocab_size: Number of logits.
        reader: Reads texts without writing any, beside all else.
    """

    def __init__(self, engine: Engine, thread: DecodeThread, *, batch_tokens: int | None = None) -> None:
        self.engine = engine
        self.batch_tokens = engine.batch_tokens if batch_tokens is None else batch_tokens
        self.max_seq_len = min(engine.max_seq_len, self.batch_tokens)
        self.vocab_size = engine.vocab_size
        self._thread = thread
        self._closed = False
        # Everything below belongs to the thread.
        self._main = self._new_station()
        self._others: list[Station] = []
        self._suspects: deque[Entry] = deque()
        self._queue: deque[Submission] = deque()
        self.reader = Reader(engine, thread)
        thread.join(self)

    # For callers, on any thread.

    @property
    def n_waiting(self) -> int:
        """Requests that hold no slot yet."""
        return sum(len(submission.todo) for submission in tuple(self._queue)) + self._main.loop.n_waiting

    @property
    def closed(self) -> bool:
        """Whether it takes no more requests."""
        return self._closed

    @property
    def n_slots(self) -> int:
        """Slots in use."""
        return sum(station.loop.n_slots for station in (self._main, *self._others))

    def check(self, request: Request) -> None:
        """Refuse a request that cannot run, as `Engine.check` does, or that needs more memory than all may use.

        Raises:
            NlpkitError: As `Engine.check`.
            ContextOverflowError: Its texts together could hold more tokens than `batch_tokens`.
        """
        self.engine.check(request)
        config = request.config
        width = max(config.n, config.beam_size, config.top_k if config.contrastive_alpha else 1)
        need = width * (len(request.prompt_ids) + config.max_tokens)
        if need > self.batch_tokens:
            raise ContextOverflowError(
                f"{width} text{'s' * (width > 1)} of up to {len(request.prompt_ids) + config.max_tokens} tokens are "
                f"{need:,} in all, and all requests together may hold {self.batch_tokens:,} here. Lower max_tokens or "
                "the number of texts, or allow more with batch_tokens."
            )

    def submit(self, requests: Sequence[Request], sink: Sink, *, watch_text: bool = False) -> Submission:
        """Hand in requests.

        Args:
            requests: At least one; all must have passed `check`.
            sink: Gets what happens to them.
            watch_text: Tell text step by step, where it is known before the end.

        Returns:
            What cancels them.

        Raises:
            ClosedServiceError: The engine was closed.
        """
        if self._closed or not self._thread.alive:
            raise ClosedServiceError(CLOSED)
        seeded = [_with_seed(request) for request in requests]
        order, shared = plan_order([request.prompt_ids for request in seeded])
        submission = Submission(
            seeded,
            sink,
            watch_text=watch_text,
            order=order,
            keep=[None] * len(seeded) if len(seeded) <= FEW else shared,
            cancel=self._cancel,
        )
        self._thread.post(lambda: self._enter(submission))
        return submission

    def _cancel(self, submission: Submission) -> None:
        # Where the thread has ended, nothing of it is left.
        with contextlib.suppress(ClosedServiceError):
            self._thread.post(lambda: self._drop(submission))

    def generate(
        self, requests: Sequence[Request], *, batch_tokens: int | None = None
    ) -> Iterator[tuple[int, Generation]]:
        """Decode requests as `Engine.generate` does, beside those of others; `batch_tokens` has no effect."""
        for request in requests:
            self.check(request)
        return self._generate(requests) if requests else iter(())

    def _generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Generation]]:
        parts: dict[int, list[Completion]] = {}
        for place, event in self._events(requests, watch_text=False):
            if event.completion is not None:
                parts.setdefault(place, []).append(event.completion)
            if event.last:
                done = sorted(parts.pop(place), key=lambda completion: completion.index)
                yield (
                    place,
                    Generation(
                        completions=tuple(done),
                        prompt_tokens=len(requests[place].prompt_ids),
                        seconds=time.perf_counter() - event.started,
                    ),
                )

    def stream(self, request: Request) -> Iterator[TokenEvent]:
        """Decode one request step by step as `Engine.stream` does, beside those of others."""
        if request.config.beam_size > 1:
            raise ConfigError(
                f"beam_size {request.config.beam_size} cannot be streamed: beam search knows its text only at the end."
            )
        self.check(request)
        return self._stream(request)

    def _stream(self, request: Request) -> Iterator[TokenEvent]:
        for _, event in self._events([request], watch_text=True):
            yield TokenEvent(text=event.text, index=event.index, token_id=event.token_id, completion=event.completion)

    def _events(self, requests: Sequence[Request], *, watch_text: bool) -> Iterator[tuple[int, Event]]:
        cancellation = current_cancellation()
        cancellation.check()
        box: queue.SimpleQueue[tuple[int, Event | Exception]] = queue.SimpleQueue()
        submission = self.submit(requests, lambda place, event: box.put((place, event)), watch_text=watch_text)
        left = len(requests)
        try:
            with cancellation.holding(submission):
                while left:
                    place, event = box.get()
                    if isinstance(event, Exception):
                        raise event
                    left -= event.last
                    yield place, event
        finally:
            submission.cancel()

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Score]:
        """Compute log-likelihoods as `Engine.score` does, a few between two steps of running texts.

        Raises:
            ClosedServiceError: The engine was closed.
        """
        cancellation = current_cancellation()
        scores: list[Score] = []
        for first, stop in _parts([len(context) + len(continuation) for context, continuation in pairs]):
            cancellation.check()
            scores += self.score_some(pairs[first:stop]).result()
        return scores

    def score_some(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Future[list[Score]]:
        """Compute log-likelihoods of few pairs at once, between two steps of running texts.

        Raises:
            ClosedServiceError: The engine was closed; where that happens before they are computed, the future has it.
        """

        def compute() -> list[Score]:
            if self._closed:
                raise ClosedServiceError(CLOSED)
            return self.engine.score(pairs)

        return self._thread.call(compute)

    def close(self) -> None:
        """Take no more requests; whoever waits for one gets `ClosedServiceError`."""
        self._closed = True
        self._thread.leave(self)

    # On the thread alone.

    @property
    def busy(self) -> bool:
        """Whether anything is waiting or running."""
        return bool(self._queue or self._others or self._suspects) or not self._main.loop.idle

    def turn(self) -> None:
        """Let requests in, take one step, and tell what happened."""
        self._feed()
        for station in (self._main, *self._others):
            try:
                for entry, event in station.step():
                    entry.deliver(event)
            except Exception as error:  # one request may be the cause, and all would be lost
                self._recover(station, error)
        self._others = [station for station in self._others if not station.loop.idle]
        if not self.busy and self.engine.prefixes is not None:
            self.engine.prefixes.flush()

    def stop(self) -> None:
        """Tell everybody that nothing more comes."""
        error = ClosedServiceError("The program is ending, or the model was unloaded, before the text was complete.")
        entries = [*self._suspects, *(entry for one in (self._main, *self._others) for entry in one.entries.values())]
        for submission in [*(entry.submission for entry in entries), *self._queue]:
            submission.fail(error)
        self._closed = True
        self._queue.clear()
        self._suspects.clear()
        self._others.clear()
        self._main.entries.clear()
        # Nobody closes an engine that broke down, and what reads beside it holds the weights.
        self._thread.leave(self.reader)

    def _new_station(self) -> Station:
        return Station(self.engine.new_loop(batch_tokens=self.batch_tokens))

    def _enter(self, submission: Submission) -> None:
        if self._closed:
            # It was handed in while the engine was being closed: nobody would ever come to it.
            submission.fail(ClosedServiceError(CLOSED))
        else:
            self._queue.append(submission)

    def _feed(self) -> None:
        """Move requests into the loop, one of each caller in turn."""
        if self._queue and self._main.footprint > FOOTPRINT * self.batch_tokens:
            # Each slot has held a long text by now, and what was written of the cache stays: begin with a new one.
            self._others.append(self._main)
            self._main = self._new_station()
        loop = self._main.loop
        while self._queue and (loop.idle or loop.n_waiting < AHEAD):
            submission = self._queue.popleft()
            if submission.done or not submission.todo:
                continue
            self._main.put(Entry(submission, submission.todo.popleft()))
            if submission.todo:
                self._queue.append(submission)
        if self._suspects and not any(one.alone for one in self._others):
            station = self._new_station()
            station.alone = True
            station.put(self._suspects.popleft())
            self._others.append(station)

    def _drop(self, submission: Submission) -> None:
        submission.todo.clear()
        submission.fail(CancelledRequestError("The request was cancelled."))
        if submission in self._queue:
            self._queue.remove(submission)
        self._suspects = deque(entry for entry in self._suspects if entry.submission is not submission)
        for station in (self._main, *self._others):
            try:
                station.drop(submission)
            except Exception as error:  # as in `turn`
                self._recover_or_end(station, error)

    def _recover_or_end(self, station: Station, error: Exception) -> None:
        """Recover between two turns, where nobody else would see that it cannot be done."""
        try:
            self._recover(station, error)
        except Exception:  # it could not even begin anew, for want of memory: the other engines go on without it
            self._closed = True
            self._thread.leave(self)

    def _recover(self, station: Station, error: Exception) -> None:
        """Give up a loop that failed. Whoever may be the cause is tried again alone; the others begin again.

        Raises:
            Exception: There is no new one to be had; all who were in it are told of `error`.
        """
        entries = list(station.entries.values())
        try:
            self._begin_again(station, entries, error)
        except Exception:
            for entry in entries:
                entry.submission.fail(error)
            raise

    def _begin_again(self, station: Station, entries: Sequence[Entry], error: Exception) -> None:
        suspects = [] if station.alone else [entry for entry in entries if entry.may_fail]
        if station is self._main:
            self._main = self._new_station()
        else:
            self._others.remove(station)
        if not suspects:
            for entry in entries:
                entry.submission.fail(error)
            return
        self._suspects += [entry.again() for entry in suspects]
        for entry in entries:
            if entry not in suspects:
                self._main.put(entry.again())


def _with_seed(request: Request) -> Request:
    """Return a request that gives the same text whenever it is run."""
    if request.config.temperature > 0 and request.config.seed is None:
        return replace(request, config=request.config.replace(seed=draw_seed()))
    return request


def _parts(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cut a list into runs of at most `SCORED_AT_ONCE` tokens, of one entry at least."""
    first = total = 0
    for place, size in enumerate(sizes):
        if place > first and total + size > SCORED_AT_ONCE:
            yield first, place
            first, total = place, 0
        total += size
    if first < len(sizes):
        yield first, len(sizes)
