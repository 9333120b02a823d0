"""Continuous batching: whatever arrives, ends or is cancelled when, each text is what it would be alone; and none
waits longer than is fair."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from counting_runner import CountingRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_models import runner_of
from tiny_models import ToyTokenizer, tiny_config, tiny_engine, tiny_gpt

from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.loop import Loop
from nlpkit.core.decode.prefill import MOST_PADDING, WIDEST_ADDITION, Prefill, pass_width, pick_leaders
from nlpkit.core.decode.prefix_cache.prefixes import PrefixCache
from nlpkit.core.decode.request import Request
from nlpkit.core.decode.slots import SlotCopy, assign, copy_slots
from nlpkit.core.decode.speculation.prompt_lookup import PromptLookup
from nlpkit.core.decode.speculation.speculator import Experience, PassCost, Speculator
from nlpkit.core.quantization.apply import quantize_model
from nlpkit.core.quantization.fuse import fuse_projections
from nlpkit.core.quantization.kernel_build import load_library
from nlpkit.core.runners.gpt import GPTRunner

pytestmark = pytest.mark.property
MODEL = tiny_gpt(tiny_config(max_seq_len=512))
SLIDING = tiny_gpt(tiny_config(max_seq_len=512, sliding_window=20, sliding_layers=[0], family="mistral"))


LIBRARY = load_library()
KERNELS = tiny_gpt(tiny_config(d_model=64, n_heads=4, head_dim=16, d_ff=96, max_seq_len=512), scale=0.2).to(
    torch.bfloat16
)
fuse_projections(KERNELS)
quantize_model(KERNELS, "int4", LIBRARY)
needs_kernels = pytest.mark.skipif(LIBRARY is None, reason="this machine has no compiled kernels")


class Free(PassCost):
    def known(self, n_rows: int) -> bool:
        return True

    def ratio(self, n_rows: int, drafted: int, *, costly: bool) -> float:
        return 1.0

    def widest(self, n_rows: int, *, costly: bool) -> int:
        return 6


def random_requests(rng: random.Random, count: int) -> list[Request]:
    bases = [[rng.randrange(29) for _ in range(rng.randint(20, 150))] for _ in range(2)]
    requests = []
    for _ in range(count):
        prompt = rng.choice([[], bases[0], bases[1], bases[0][:70]])
        prompt = prompt + [rng.randrange(29) for _ in range(rng.choice([1, 2, 9, 30, 120]))]
        config = rng.choice(
            [
                DecodeConfig(max_tokens=rng.randint(0, 12)),
                DecodeConfig(max_tokens=20, ignore_eos=True),
                DecodeConfig(max_tokens=20, temperature=0.9, seed=rng.randrange(99), top_p=0.9),
                DecodeConfig(max_tokens=9, temperature=1.3, seed=3, top_k=8, n=rng.randint(2, 4)),
                DecodeConfig(max_tokens=15, stop=("ab", "c"), ignore_eos=True),
                DecodeConfig(max_tokens=10, frequency_penalty=1.0, min_tokens=3),
            ]
        )
        if rng.random() < 0.5:
            config = config.replace(speculation="prompt")
        requests.append(Request(prompt_ids=tuple(prompt), config=config))
    return requests


Facts = list[tuple[str, tuple[int, ...], str, int]]


def alone(model: torch.nn.Module, requests: Sequence[Request]) -> list[Facts]:
    found = []
    for one in requests:
        loop = Loop(runner_of(model), ToyTokenizer(29))
        loop.submit(one)
        found.append(finish(loop)[0])
    return found


def finish(loop: Loop) -> dict[int, Facts]:
    done: dict[int, Facts] = {}
    while not loop.idle:
        collect(loop, done)
    return {ticket: sorted(facts, key=lambda fact: fact[3]) for ticket, facts in done.items()}


def collect(loop: Loop, done: dict[int, Facts]) -> None:
    for event in loop.step():
        if event.completion is not None:
            one = event.completion
            done.setdefault(event.ticket, []).append((one.text, one.token_ids, one.finish_reason, one.index))


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(MODEL, id="full"),
        pytest.param(SLIDING, id="sliding"),
        pytest.param(KERNELS, id="kernels", marks=needs_kernels),
    ],
)
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    chunk=st.sampled_from([None, 1, 7, 40]),
    prefill=st.sampled_from([30, 2048]),
    batch_tokens=st.sampled_from([1, 400, 900, 8192]),
    kept=st.sampled_from([None, 0, 300]),
)
def test_every_text_is_what_it_is_alone(
    model: torch.nn.Module, seed: int, chunk: int | None, prefill: int, batch_tokens: int, kept: int | None
) -> None:
    rng = random.Random(seed)
    requests = random_requests(rng, 8)
    expected = alone(model, requests)
    loop = Loop(
        runner_of(model),
        ToyTokenizer(29),
        batch_tokens=batch_tokens,
        max_slots=rng.randint(1, 6),
        prefill=prefill,
        chunk=chunk,
        prefixes=None if kept is None else PrefixCache(kept),
        speculator=Speculator({"prompt": PromptLookup()}, Experience(cost=Free())),
    )
    tickets: dict[int, int] = {}
    waiting = list(range(len(requests)))
    dropped: set[int] = set()
    done: dict[int, Facts] = {}
    while waiting or not loop.idle:
        while waiting and (loop.idle or rng.random() < 0.3):
            number = waiting.pop(0)
            tickets[loop.submit(requests[number])] = number
        if rng.random() < 0.05:
            ticket = rng.choice(list(tickets))
            loop.cancel(ticket)
            dropped.add(ticket)
        events = len(done.get(ticket, [])) if dropped else 0
        collect(loop, done)
        if dropped:
            # Nothing more comes of a request once it is cancelled.
            assert len(done.get(ticket, [])) == events
    for ticket, number in tickets.items():
        if ticket not in dropped:
            assert sorted(done[ticket], key=lambda fact: fact[3]) == expected[number]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_nothing_is_left_of_what_is_cancelled(seed: int) -> None:
    rng = random.Random(seed)
    loop = Loop(
        GPTRunner(MODEL),
        ToyTokenizer(29),
        max_slots=4,
        chunk=5,
        prefixes=PrefixCache(100),
        speculator=Speculator({"prompt": PromptLookup()}, Experience(cost=Free())),
    )
    tickets = [loop.submit(one) for one in random_requests(rng, 6)]
    for _ in range(rng.randint(0, 12)):
        loop.step()
    rng.shuffle(tickets)
    for ticket in tickets:
        loop.cancel(ticket)
        loop.cancel(ticket)
        loop.step()
    assert loop.idle
    assert not loop._waiting_for_prefix
    assert loop._speculator is not None
    assert not loop._speculator.active
    loop.cancel(10**6)
    # The rows are free for others.
    (request,) = random_requests(rng, 1)
    ticket = loop.submit(request)
    assert finish(loop).get(ticket) == alone(MODEL, [request])[0]


def greedy(length: int, max_tokens: int, first: int = 1) -> Request:
    prompt = tuple((first + i * i) % 29 for i in range(length))
    return Request(prompt_ids=prompt, config=DecodeConfig(max_tokens=max_tokens, ignore_eos=True))


def test_a_long_prompt_does_not_hold_up_running_texts() -> None:
    runner = CountingRunner(MODEL)
    loop = Loop(runner, ToyTokenizer(29), chunk=16)
    first = loop.submit(greedy(5, 60))
    loop.step()
    long = loop.submit(greedy(400, 5, first=2))
    silent = most_silent = 0
    started = False
    while not started:
        before = runner.n_tokens
        events = loop.step()
        assert runner.n_tokens - before <= 16
        silent = 0 if any(event.ticket == first for event in events) else silent + 1
        most_silent = max(most_silent, silent)
        started = any(event.ticket == long for event in events)
    assert most_silent == 1
    assert sorted(finish(loop)) == [first, long]


def test_without_chunks_prompts_go_first() -> None:
    runner = CountingRunner(MODEL)
    loop = Loop(runner, ToyTokenizer(29), chunk=None)
    loop.submit(greedy(5, 60))
    loop.step()
    loop.submit(greedy(400, 5, first=2))
    loop.step()
    assert runner.passes[-1] == [400]


def test_a_short_prompt_does_not_wait_for_a_long_one_before_it() -> None:
    loop = Loop(GPTRunner(MODEL), ToyTokenizer(29), prefill=64, chunk=16)
    long = loop.submit(greedy(450, 3))
    loop.step()
    short = loop.submit(greedy(20, 3, first=2))
    order = []
    while not loop.idle:
        order += [event.ticket for event in loop.step() if event.completion is not None]
    assert order == [short, long]


def test_the_queue_is_served_in_order_of_arrival() -> None:
    loop = Loop(GPTRunner(MODEL), ToyTokenizer(29), batch_tokens=300, max_slots=3)
    sizes = [10, 200, 10, 10, 200, 10]
    tickets = [loop.submit(greedy(size, 20, first=i)) for i, size in enumerate(sizes)]
    order = []
    while not loop.idle:
        for event in loop.step():
            if event.ticket not in order:
                order.append(event.ticket)
    assert order == tickets


def test_rows_are_refilled_before_all_have_ended() -> None:
    runner = CountingRunner(MODEL)
    loop = Loop(runner, ToyTokenizer(29), max_slots=4)
    for i in range(12):
        loop.submit(greedy(5, 5 + 9 * (i % 4), first=i))
    finish(loop)
    widths = [len(rows) for rows in runner.passes if max(rows) == 1]
    # Only at the very end are there rows without work.
    assert sum(widths[: len(widths) // 2]) > 3.5 * (len(widths) // 2)


def test_those_that_wait_for_a_cancelled_prompt_go_on_without_it() -> None:
    common = tuple((7 * i + i * i) % 29 for i in range(100))
    runner = CountingRunner(MODEL)
    loop = Loop(runner, ToyTokenizer(29), prefill=20, prefixes=PrefixCache(0))
    requests = [Request(prompt_ids=(*common, i), config=DecodeConfig(max_tokens=4)) for i in range(4)]
    tickets = [loop.submit(one) for one in requests]
    loop.step()
    assert runner.passes == [[20]]
    loop.cancel(tickets[0])
    done = finish(loop)
    assert [done[ticket] for ticket in tickets[1:]] == alone(MODEL, requests[1:])
    # One of the others led on: the beginning was computed once more, not three times.
    assert runner.n_tokens < 20 + 100 + 60


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=9), st.integers(1, 200))
def test_passes_are_wide_without_much_padding(left: list[int], budget: int) -> None:
    width = pass_width(left, budget)
    assert 1 <= width <= max(left)
    assert width == 1 or width * len(left) <= budget
    padding = sum(max(0, width - count) for count in left)
    useful = sum(min(width, count) for count in left)
    assert padding <= max(MOST_PADDING, useful // 4)
    assert width >= min(min(left), max(1, budget // len(left)))
    assert pass_width([5000] * len(left), 10**6, afresh=False) == WIDEST_ADDITION


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 6))
def test_places_fill_the_range_and_leave_what_is_in_it(sources: list[int], first: int) -> None:
    targets = assign(sources, first)
    assert sorted(targets) == list(range(first, first + len(sources)))
    for source in set(sources):
        if first <= source < first + len(sources):
            assert targets[sources.index(source)] == source


class Letters:
    """Stands in for a runner: a row is one letter."""

    def __init__(self) -> None:
        self.rows = list(range(30))

    def copy_row(self, source: int, target: int, length: int) -> None:
        self.rows[target] = self.rows[source]

    def reorder(self, start_row: int, sources: Sequence[int], length: int) -> None:
        self.rows[start_row : start_row + len(sources)] = [self.rows[source] for source in sources]


@settings(deadline=None)
@given(st.data())
def test_copies_are_as_if_made_at_once(data: st.DataObject) -> None:
    targets = data.draw(st.lists(st.integers(0, 9), unique=True, max_size=9))
    sources = [data.draw(st.integers(0, 9)) for _ in targets]
    runner = Letters()
    copy_slots(runner, [SlotCopy(source, target, 1) for source, target in zip(sources, targets, strict=True)])  # type: ignore[arg-type]
    expected = list(range(30))
    for source, target in zip(sources, targets, strict=True):
        expected[target] = source
    assert runner.rows == expected


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 90), st.integers(0, 99)), min_size=1, max_size=7))
def test_nobody_waits_for_those_behind(parts: list[tuple[int, int, int]]) -> None:
    entries = [Prefill(None, tuple([base] * length + [100 + tail])) for base, length, tail in parts]
    pick_leaders(entries, [0] * len(entries), ())
    for number, entry in enumerate(entries):
        if entry.leader is not None:
            assert entry.leader in entries[:number]
            assert 0 < entry.shared < len(entry.tokens)
            assert entry.tokens[: entry.shared] == entry.leader.tokens[: entry.shared]


def test_the_engine_hands_out_schedules_that_are_fair() -> None:
    engine = tiny_engine(max_seq_len=512)
    loop = engine.new_loop()
    loop.submit(greedy(5, 40))
    loop.step()
    loop.submit(greedy(450, 3, first=3))
    steps = [loop.step() for _ in range(4)]
    assert any(steps[:2])
    assert any(steps[2:])
