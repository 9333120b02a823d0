"""Texts that are read a few tokens at a time give what they give at once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny_models import ToyTokenizer, tiny_config, tiny_engine, tiny_gpt
from torch import Tensor

from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.engine import Engine
from nlpkit.core.decode.request import Request
from nlpkit.core.decode.shared import reading
from nlpkit.core.decode.shared.engine import SharedEngine
from nlpkit.core.decode.shared.submission import ClosedServiceError
from nlpkit.core.decode.shared.thread import DecodeThread
from nlpkit.core.errors import ConfigError, ContextOverflowError, InputError
from nlpkit.core.runners.gpt import GPTRunner


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedEngine]:
    monkeypatch.setattr(reading, "AT_ONCE", 24)
    thread = DecodeThread()
    yield SharedEngine(tiny_engine(), thread)
    thread.close()


def texts(count: int) -> list[list[int]]:
    rng = random.Random(count)
    return [[rng.randrange(29) for _ in range(rng.choice([1, 2, 9, 40, 128]))] for _ in range(count)]


def test_scores_are_those_of_the_engine(shared: SharedEngine) -> None:
    found = [shared.reader.scores(ids, top=3) for ids in texts(40)]
    # Beside texts that are written.
    list(shared.generate([Request(prompt_ids=(1, 2), config=DecodeConfig(max_tokens=20))]))
    for ids, future in zip(texts(40), found, strict=True):
        (expected,) = tiny_engine().score([(ids[:1], ids[1:])])
        scores = future.result(20)
        assert scores.logprobs == pytest.approx(expected.token_logprobs, abs=1e-5)
        assert all(len(top) == 3 and top == tuple(sorted(top, key=lambda e: -e[1])) for top in scores.alternatives)
        greedy = [top[0][1] == logprob for top, logprob in zip(scores.alternatives, scores.logprobs, strict=True)]
        assert all(greedy) == expected.is_greedy


def test_means_are_those_of_the_whole_text(shared: SharedEngine) -> None:
    model = tiny_gpt(tiny_config())
    found = [shared.reader.mean_hidden(ids) for ids in texts(20)]
    scores = shared.reader.scores([1, 2, 3])
    for ids, future in zip(texts(20), found, strict=True):
        expected = model.hidden(torch.tensor([ids]))[0].mean(0)
        assert future.result(20) == pytest.approx(expected.tolist(), abs=1e-5)
    assert len(scores.result(20).logprobs) == 2


def test_what_cannot_be_read_is_refused(shared: SharedEngine) -> None:
    with pytest.raises(InputError, match="empty"):
        shared.reader.scores([])
    with pytest.raises(InputError, match="vocabulary"):
        shared.reader.mean_hidden([29])
    with pytest.raises(ContextOverflowError):
        shared.reader.mean_hidden([1] * 129)
    assert len(shared.reader.scores([1] * 129).result(20).logprobs) == 128


def test_a_model_without_hidden_states_makes_no_means() -> None:
    class Plain:
        def __init__(self) -> None:
            inner = GPTRunner(tiny_gpt())
            self.max_seq_len, self.vocab_size = inner.max_seq_len, inner.vocab_size

    thread = DecodeThread()
    engine = Engine(Plain, ToyTokenizer(29))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="hidden states"):
        reading.Reader(engine, thread).mean_hidden([1])
    thread.close()


def test_what_is_not_wanted_is_not_read(shared: SharedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    extend = GPTRunner.extend

    def counted(self: GPTRunner, first: int, parts: Any, lengths: Any, **options: Any) -> Tensor:
        read.extend(map(len, parts))
        return extend(self, first, parts, lengths, **options)

    monkeypatch.setattr(GPTRunner, "extend", counted)
    wait = threading.Event()
    # Nothing is read before all is cancelled.
    shared._thread.call(lambda: wait.wait(20))
    futures = [shared.reader.scores([1] * 128) for _ in range(50)]
    assert all(future.cancel() for future in futures[1:])
    wait.set()
    assert len(futures[0].result(20).logprobs) == 127
    for _ in range(1000):
        if not shared.reader.busy:
            break
        time.sleep(0.005)
    assert sum(read) == 127


def test_those_who_wait_are_told_of_the_end(shared: SharedEngine) -> None:
    futures = [shared.reader.scores([1] * 128) for _ in range(200)]
    shared.close()
    with pytest.raises(ClosedServiceError):
        futures[-1].result(20)


def test_what_comes_after_the_end_is_told_of_it(shared: SharedEngine) -> None:
    shared.close()
    for ask in (shared.reader.scores, shared.reader.mean_hidden):
        with pytest.raises(ClosedServiceError):
            ask([1] * 8).result(20)
    shared._thread.close()
    for ask in (shared.reader.scores, shared.reader.mean_hidden):
        with pytest.raises(ClosedServiceError):
            ask([1] * 8).result(20)


def test_texts_can_be_checked_before_any_is_read(shared: SharedEngine) -> None:
    shared.reader.check([1] * 129)
    shared.reader.check([1] * 128, hidden=True)
    with pytest.raises(ContextOverflowError):
        shared.reader.check([1] * 129, hidden=True)
    with pytest.raises(InputError):
        shared.reader.check([1, 29])
