"""One engine for many callers: each gets what it would get alone, and what nobody wants any more takes no room."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_engine
from torch import Tensor

from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.request import Generation, Request
from nlpkit.core.decode.shared.engine import SharedEngine
from nlpkit.core.decode.shared.submission import Cancellation, CancelledRequestError, ClosedServiceError
from nlpkit.core.decode.shared.thread import DecodeThread
from nlpkit.core.errors import ConfigError, ContextOverflowError, ModelFileError
from nlpkit.core.runners.gpt import GPTRunner

LONG = DecodeConfig(max_tokens=100, ignore_eos=True)


@pytest.fixture
def thread() -> Iterator[DecodeThread]:
    thread = DecodeThread()
    yield thread
    thread.close()


@pytest.fixture
def shared(thread: DecodeThread) -> SharedEngine:
    return SharedEngine(tiny_engine(), thread)


def request(rng: random.Random, **changes: Any) -> Request:
    ids = tuple(rng.randrange(1, 29) for _ in range(rng.choice([1, 4, 30])))
    options = rng.choice([{}, {"temperature": 1.0, "seed": 5, "n": 2}, {"beam_size": 3, "n": 2}, {"stop": ("ab", "c")}])
    return Request(prompt_ids=ids, config=DecodeConfig(**{"max_tokens": rng.randint(0, 20), **options, **changes}))


def facts(generation: Generation) -> list[tuple[object, ...]]:
    # Log-probabilities are those of a pass over many rows, whose last bits differ.
    return [(one.text, one.token_ids, one.finish_reason, one.seed) for one in generation.completions]


def wait_until_idle(shared: SharedEngine) -> None:
    for _ in range(1000):
        if not shared.busy and not shared.n_slots:
            return
        time.sleep(0.005)
    raise AssertionError(f"{shared.n_slots} slots are still in use")


def test_many_threads_get_what_each_gets_alone(shared: SharedEngine) -> None:
    rng = random.Random(1)
    lists = [[request(rng) for _ in range(rng.randint(1, 5))] for _ in range(12)]
    alone = tiny_engine()
    alone.prefixes = None
    expected = [[facts(next(alone.generate([one]))[1]) for one in some] for some in lists]

    def run(some: list[Request]) -> list[Any]:
        found = dict(shared.generate(some))
        return [facts(found[place]) for place in range(len(some))]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, lists)) == expected
    wait_until_idle(shared)


def test_a_stream_is_its_text(shared: SharedEngine) -> None:
    one = Request(prompt_ids=(3, 4), config=DecodeConfig(max_tokens=12, ignore_eos=True))
    events = list(shared.stream(one))
    assert events[-1].completion is not None
    assert "".join(event.text for event in events) == events[-1].completion.text
    assert len(events) == 12


def test_scores_are_those_of_the_engine(shared: SharedEngine) -> None:
    pairs = [([1, 2], [3, 4]), ([5], []), ([6, 7], [8])] * 3
    for found, expected in zip(shared.score(pairs), tiny_engine().score(pairs), strict=True):
        assert found.logprob == pytest.approx(expected.logprob)
        assert found.is_greedy == expected.is_greedy


def test_what_cannot_run_is_refused_where_it_is_asked(shared: SharedEngine) -> None:
    with pytest.raises(ContextOverflowError):
        shared.generate([Request(prompt_ids=(1,) * 100, config=DecodeConfig(max_tokens=100))])
    with pytest.raises(ConfigError):
        shared.stream(Request(prompt_ids=(1,), config=DecodeConfig(beam_size=2)))
    assert list(shared.generate([])) == []


def test_a_reader_that_stops_reading_frees_its_slot(shared: SharedEngine) -> None:
    stream = shared.stream(Request(prompt_ids=(3,), config=LONG))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    wait_until_idle(shared)


def test_a_switch_stops_what_another_thread_waits_for(shared: SharedEngine) -> None:
    cancellation, waiting = Cancellation(), threading.Event()

    def work() -> str:
        with cancellation.applied():
            requests = [Request(prompt_ids=(place,), config=LONG) for place in range(1, 28)] * 20
            try:
                for _ in shared.generate(requests):
                    waiting.set()
            except CancelledRequestError:
                return "cancelled"
        return "done"

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        assert waiting.wait(20)
        cancellation.cancel()
        assert future.result(20) == "cancelled"
    wait_until_idle(shared)
    with cancellation.applied(), pytest.raises(CancelledRequestError):
        next(shared.generate([Request(prompt_ids=(1,), config=LONG)]))


def test_one_caller_with_many_requests_does_not_hold_up_another(thread: DecodeThread) -> None:
    shared = SharedEngine(tiny_engine(), thread, batch_tokens=500)
    finished: list[str] = []
    many = shared.submit(
        [Request(prompt_ids=(place % 27 + 1,), config=LONG) for place in range(100)],
        lambda place, event: finished.append("many"),
    )
    list(shared.generate([Request(prompt_ids=(9,), config=DecodeConfig(max_tokens=2))]))
    assert not many.done
    assert len(finished) < 100 * 100 / 4
    many.cancel()
    wait_until_idle(shared)


def test_an_engine_that_is_closed_tells_those_who_wait(shared: SharedEngine) -> None:
    stream = shared.stream(Request(prompt_ids=(3,), config=LONG))
    next(stream)
    shared.close()
    with pytest.raises(ClosedServiceError):
        list(stream)
    with pytest.raises(ClosedServiceError):
        next(shared.generate([Request(prompt_ids=(1,), config=LONG)]))


def test_threads_take_turns_with_several_engines(thread: DecodeThread) -> None:
    first, second = SharedEngine(tiny_engine(), thread), SharedEngine(tiny_engine(seed=3), thread)
    one = Request(prompt_ids=(3, 4), config=DecodeConfig(max_tokens=12))
    for shared, seed in ((first, 0), (second, 3)):
        ((_, generation),) = shared.generate([one])
        ((_, expected),) = tiny_engine(seed=seed).generate([one])
        assert generation.completions == expected.completions


def nothing_left(generated: Sequence[int]) -> Tensor:
    """Allow three tokens, then none: such a request fails while it is written."""
    return torch.full((29,), len(generated) < 3)


def test_a_request_that_fails_spoils_no_other(shared: SharedEngine) -> None:
    rng = random.Random(2)
    good = [request(rng, max_tokens=20) for _ in range(6)]
    good += [Request(prompt_ids=(4, 5), config=DecodeConfig(max_tokens=20, logit_bias={3: -100}))]
    bad = Request(prompt_ids=(7,), config=LONG, token_filter=nothing_left)
    alone = tiny_engine()
    expected = [facts(next(alone.generate([one]))[1]) for one in good]

    def run(one: Request) -> object:
        try:
            return facts(next(shared.generate([one]))[1])
        except ConfigError as error:
            return str(error)

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(run, [*good, bad, bad]))
    assert found[:-2] == expected
    assert all("leave no token" in str(told) for told in found[-2:])
    wait_until_idle(shared)


def test_a_stream_goes_on_where_it_was_when_another_request_fails(shared: SharedEngine) -> None:
    one = Request(prompt_ids=(3, 4), config=DecodeConfig(max_tokens=60, ignore_eos=True, temperature=1.0, seed=8))
    stream = shared.stream(one)
    texts = [next(stream).text for _ in range(3)]
    with pytest.raises(ConfigError, match="leave no token"):
        list(shared.generate([Request(prompt_ids=(7,), config=LONG, token_filter=nothing_left)]))
    rest = list(stream)
    assert rest[-1].completion is not None
    assert "".join([*texts, *(event.text for event in rest)]) == rest[-1].completion.text
    assert rest[-1].completion.token_ids == next(tiny_engine().generate([one]))[1].completions[0].token_ids


def test_what_is_no_fault_of_a_request_is_told_to_all(shared: SharedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ModelFileError("numbers that are none")

    with monkeypatch.context() as patch:
        patch.setattr(GPTRunner, "extend", broken)
        with pytest.raises(ModelFileError):
            list(shared.generate([Request(prompt_ids=(1,), config=LONG), Request(prompt_ids=(2,), config=LONG)]))
    assert list(shared.generate([Request(prompt_ids=(1,), config=LONG)]))


def test_a_cache_that_has_held_much_is_given_up(thread: DecodeThread) -> None:
    shared = SharedEngine(tiny_engine(), thread, batch_tokens=200)
    first = shared._main
    short = [Request(prompt_ids=(place % 27 + 1,), config=DecodeConfig(max_tokens=4)) for place in range(24)]
    long = [Request(prompt_ids=(place % 27 + 1,), config=LONG) for place in range(4)]
    alone = tiny_engine()
    expected = [facts(next(alone.generate([one]))[1]) for one in [*short, *long]]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda one: facts(next(shared.generate([one]))[1]), [*short, *long])) == expected
        # What comes now finds a new cache.
        assert facts(next(shared.generate([short[0]]))[1]) == expected[0]
    wait_until_idle(shared)
    assert shared._main is not first


def test_an_engine_that_cannot_go_on_tells_those_who_wait_and_spares_the_others(
    thread: DecodeThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, whole = SharedEngine(tiny_engine(), thread), SharedEngine(tiny_engine(), thread)

    def fail(*arguments: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(broken._main.loop, "step", fail)
    monkeypatch.setattr(broken.engine, "new_loop", fail)
    with pytest.raises((MemoryError, ClosedServiceError)):
        list(broken.generate([Request(prompt_ids=(1,), config=LONG)]))
    assert broken.closed
    with pytest.raises(ClosedServiceError):
        list(broken.generate([Request(prompt_ids=(1,), config=LONG)]))
    assert list(whole.generate([Request(prompt_ids=(1,), config=LONG)]))
    # Nothing holds its weights any more.
    assert thread._members == [whole.reader, whole]


def test_an_engine_that_cannot_go_on_after_a_cancellation_spares_the_others(
    thread: DecodeThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, whole = SharedEngine(tiny_engine(), thread), SharedEngine(tiny_engine(), thread)

    def fail(*arguments: object, **options: object) -> None:
        raise MemoryError

    unwanted, other = (broken.stream(Request(prompt_ids=(one,), config=LONG)) for one in (1, 2))
    next(unwanted), next(other)
    monkeypatch.setattr(broken._main, "drop", fail)
    monkeypatch.setattr(broken.engine, "new_loop", fail)
    unwanted.close()  # type: ignore[attr-defined]
    with pytest.raises((MemoryError, ClosedServiceError)):
        list(other)
    assert broken.closed
    assert list(whole.generate([Request(prompt_ids=(1,), config=LONG)]))
    assert thread._members == [whole.reader, whole]


def test_nothing_is_scored_by_an_engine_that_was_closed(shared: SharedEngine, thread: DecodeThread) -> None:
    shared.close()
    with pytest.raises(ClosedServiceError):
        shared.score([([1], [2])])
    thread.close()
    with pytest.raises(ClosedServiceError):
        shared.score([([1], [2])])
    # As often as one likes.
    shared.close()
    thread.close()


def test_a_thread_that_is_closed_does_not_compute_what_waits(thread: DecodeThread) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work() -> int:
        begun.set()
        go_on.wait(20)
        return 1

    first, *others = [thread.call(work) for _ in range(3)]
    assert begun.wait(20)
    closing = threading.Thread(target=thread.close)
    closing.start()
    while thread.alive:
        time.sleep(0.005)
    go_on.set()
    closing.join()
    assert first.result(20) == 1
    for one in others:
        with pytest.raises(ClosedServiceError):
            one.result(20)


def test_a_thread_that_breaks_down_tells_those_who_wait(
    thread: DecodeThread, shared: SharedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda what: told.append(what.exc_type))
    stream = shared.stream(Request(prompt_ids=(3,), config=LONG))
    next(stream)
    thread.post(lambda: [].pop())
    with pytest.raises(ClosedServiceError):
        list(stream)
    thread.close()
    assert told == [IndexError]
    assert not thread.alive


def test_a_process_may_end_while_the_thread_computes() -> None:
    code = (
        "import sys, time\nsys.path.insert(0, sys.argv[1])\nfrom nlpkit.core.decode.shared.thread import DecodeThread\n"
        "import torch\nthread = DecodeThread()\nmatrix = torch.rand(300, 300)\n"
        "def work():\n    for _ in range(3000):\n        matrix @ matrix\n        if thread._closing: return\n"
        "for _ in range(50): thread.call(work)\ntime.sleep(0.1)\n"
    )
    support = Path(__file__).parents[3] / "support"
    done = subprocess.run([sys.executable, "-c", code, str(support)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
