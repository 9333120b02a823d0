"""Reading texts without writing any: log-probabilities of their tokens, or the mean of their hidden states.

A few tokens at a time, between the steps of texts that are being written, so that a long text holds nobody up.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import Tensor

from nlpkit.core.decode.runner import ShowsHidden
from nlpkit.core.decode.shared.submission import CLOSED, ClosedServiceError
from nlpkit.core.errors import ConfigError, ContextOverflowError, InputError

if TYPE_CHECKING:
    from nlpkit.core.decode.engine import Engine
    from nlpkit.core.decode.runner import Runner
    from nlpkit.core.decode.shared.thread import DecodeThread

AT_ONCE = 256
"""Tokens of one turn."""
MOST_ROWS = 32
"""Texts of one turn."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class TokenScores:
    """What the model thinks of the tokens of a text, from its second on.

    Attributes:
        logprobs: The log-probability of each token, in nats.
        alternatives: For each, the likeliest tokens at its place and their log-probabilities, best first.
    """

    logprobs: tuple[float, ...]
    alternatives: tuple[tuple[tuple[int, float], ...], ...]


@dataclass(eq=False)
class _Reading(Generic[_T]):
    """A text that is read.

    Attributes:
        ids: What goes through the model.
        future: Gets what was found.
        done: How many tokens were read.
    """

    ids: tuple[int, ...]
    future: Future[_T]
    done: int = 0

    @property
    def left(self) -> int:
        return len(self.ids) - self.done

    def finish(self) -> None:
        """Say what was found."""
        raise NotImplementedError


@dataclass(eq=False)
class _Scoring(_Reading[TokenScores]):
    following: tuple[int, ...] = ()
    top: int = 0
    logprobs: list[float] = field(default_factory=list)
    alternatives: list[tuple[tuple[int, float], ...]] = field(default_factory=list)

    def take(self, logits: Tensor, count: int) -> None:
        """Take the logits behind the next tokens, shape ``(count, vocab_size)``."""
        # One table for both: whoever asks whether a token is the likeliest compares the numbers.
        table = torch.log_softmax(logits, -1)
        chosen = torch.tensor(self.following[self.done : self.done + count], device=table.device)
        self.logprobs += table.gather(1, chosen[:, None])[:, 0].tolist()
        if not self.top:
            self.alternatives += [()] * count
            return
        best = table.topk(min(self.top, table.shape[-1]))
        for ids, values in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            self.alternatives.append(tuple(zip(ids, values, strict=True)))

    def finish(self) -> None:
        self.future.set_result(TokenScores(tuple(self.logprobs), tuple(self.alternatives)))


@dataclass(eq=False)
class _Averaging(_Reading["list[float]"]):
    total: Tensor | None = None

    def take(self, hidden: Tensor) -> None:
        """Take the hidden states of the next tokens, shape ``(count, d_model)``."""
        part = hidden.double().sum(0)
        self.total = part if self.total is None else self.total + part

    def finish(self) -> None:
        total = torch.zeros(0) if self.total is None else self.total
        self.future.set_result((total / len(self.ids)).tolist())


class Reader:
    """Reads texts on the thread of a shared engine.

    Args:
        engine: The engine.
        thread: Where it computes.
    """

    def __init__(self, engine: Engine, thread: DecodeThread) -> None:
        self._engine = engine
        self._thread = thread
        self._queue: deque[_Scoring | _Averaging] = deque()
        self._group: list[_Scoring | _Averaging] = []
        self._runner: Runner | None = None
        self._closed = False
        thread.join(self)

    def scores(self, ids: Sequence[int], *, top: int = 0) -> Future[TokenScores]:
        """Score each token of a text but the first, which nothing stands before.

        Args:
            ids: The text, at least one token.
            top: How many of the likeliest tokens to tell for each place.

        Raises:
            InputError: The text has no tokens, or some that the model does not know.
            ContextOverflowError: It is longer than the model's context.
            ClosedServiceError: The thread has ended.
        """
        self.check(ids)
        future: Future[TokenScores] = Future()
        if len(ids) == 1:
            future.set_result(TokenScores((), ()))
        else:
            one = _Scoring(tuple(ids[:-1]), future, following=tuple(ids[1:]), top=top)
            self._thread.post(lambda: self._enter(one))
        return future

    def mean_hidden(self, ids: Sequence[int]) -> Future[list[float]]:
        """Average the hidden states of a text's tokens behind the model's last norm.

        Args:
            ids: The text, at least one token.

        Returns:
            The mean, of length ``d_model``.

        Raises:
            InputError: The text has no tokens, or some that the model does not know.
            ContextOverflowError: It is longer than the model's context.
            ConfigError: The model shows no hidden states.
            ClosedServiceError: The thread has ended.
        """
        self.check(ids, hidden=True)
        one = _Averaging(tuple(ids), Future())
        self._thread.post(lambda: self._enter(one))
        return one.future

    def check(self, ids: Sequence[int], *, hidden: bool = False) -> None:
        """Refuse a text that cannot be read.

        Args:
            ids: The text.
            hidden: Whether its hidden states are wanted, as `mean_hidden` averages them, or the tokens' scores.

        Raises:
            InputError: The text has no tokens, or some that the model does not know.
            ContextOverflowError: It is longer than the model's context.
            ConfigError: Hidden states are wanted of a model that shows none.
        """
        if hidden and not self._engine.shows_hidden:
            raise ConfigError(
                "This model runs through transformers and shows no hidden states here, so it makes no embeddings. Use "
                "a model of a family that nlpkit's own core runs."
            )
        if not ids:
            raise InputError("The text is empty: it has no tokens. Give at least one character.")
        if min(ids) < 0 or max(ids) >= self._engine.vocab_size:
            raise InputError(f"The text holds ids outside the vocabulary of {self._engine.vocab_size} tokens.")
        # The last token's score needs nothing behind it.
        if len(ids) - (not hidden) > self._engine.max_seq_len:
            raise ContextOverflowError(
                f"The text has {len(ids)} tokens; the model's context holds {self._engine.max_seq_len}. Shorten it."
            )

    # On the thread alone.

    @property
    def busy(self) -> bool:
        """Whether there is anything to read."""
        return bool(self._queue or self._group)

    def turn(self) -> None:
        """Read a few tokens."""
        try:
            self._step()
        except Exception as error:  # those who wait get it
            self._fail(self._group, error)
            self._group, self._runner = [], None
        if not self.busy:
            # What it holds is of no use to anybody.
            self._runner = None

    def stop(self) -> None:
        """Tell everybody that nothing more comes, and from now on whoever asks for more."""
        self._closed = True
        self._fail(
            [*self._group, *self._queue], ClosedServiceError("The program is ending, or the model was unloaded.")
        )
        self._group.clear()
        self._queue.clear()

    def _enter(self, one: _Scoring | _Averaging) -> None:
        if self._closed:
            # It was handed in while the reader was being closed: nobody would ever come to it.
            self._fail([one], ClosedServiceError(CLOSED))
        else:
            self._queue.append(one)

    def _step(self) -> None:
        if not self._group and not self._gather():
            return
        runner = self._runner
        if runner is None:
            return
        # The longest come first, so that those that are left stand in rows without gaps.
        width = max(1, AT_ONCE // len(self._group))
        parts = [one.ids[one.done : one.done + width] for one in self._group]
        lengths = [one.done for one in self._group]
        if isinstance(self._group[0], _Averaging):
            if not isinstance(runner, ShowsHidden):
                raise ConfigError("This model shows no hidden states.")
            _, states = runner.extend_with_hidden(0, parts, lengths)
            for one, hidden in zip(self._group, states, strict=True):
                if isinstance(one, _Averaging):
                    one.take(hidden)
        else:
            sizes = [len(part) for part in parts]
            logits = torch.split(runner.extend(0, parts, lengths, wanted=sizes), sizes)
            for one, table in zip(self._group, logits, strict=True):
                if isinstance(one, _Scoring):
                    one.take(table, len(table))
        for one, part in zip(self._group, parts, strict=True):
            one.done += len(part)
        for one in self._group:
            if not one.left:
                with contextlib.suppress(InvalidStateError):
                    one.finish()
        self._group = [one for one in self._group if one.left]
        if all(one.future.cancelled() for one in self._group):
            self._group = []

    def _gather(self) -> bool:
        """Take the next texts that can be read side by side; tell whether there are any."""
        group: list[_Scoring | _Averaging] = []
        n_tokens = 0
        while self._queue and len(group) < MOST_ROWS:
            one = self._queue[0]
            if group and (type(one) is not type(group[0]) or n_tokens + len(one.ids) > 2 * AT_ONCE):
                break
            self._queue.popleft()
            if not one.future.cancelled():
                group.append(one)
                n_tokens += len(one.ids)
        self._group = sorted(group, key=lambda one: -len(one.ids))
        if not group:
            return False
        self._runner = self._runner or self._engine.new_runner()
        self._runner.reserve(len(group), len(self._group[0].ids))
        return True

    @staticmethod
    def _fail(readings: Sequence[_Scoring | _Averaging], error: Exception) -> None:
        for one in readings:
            with contextlib.suppress(InvalidStateError):
                one.future.set_exception(error)
