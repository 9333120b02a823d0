"""One loop for all strategies: whatever runs beside it, joins late, or is kept of it, each text is what it is alone."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_models import needs_kernels, quantized, runner_of
from tiny_models import ToyTokenizer, tiny_config, tiny_engine, tiny_gpt

from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.constraint import Constraint
from nlpkit.core.decode.engine import Engine
from nlpkit.core.decode.loop import Loop
from nlpkit.core.decode.request import Completion, Request
from nlpkit.core.decode.strategies.ended import Beam
from nlpkit.core.model.gpt import GPT

WAYS: dict[str, dict[str, object]] = {
    "greedy": {},
    "sampling": {"temperature": 1.2, "seed": 4, "n": 3},
    "guesses": {"speculation": "prompt"},
    "beams": {"beam_size": 4, "n": 3},
    "beams with stops": {"beam_size": 3, "stop": ("ab", "c"), "ignore_eos": True},
    "diverse beams": {"beam_size": 4, "beam_groups": 2, "n": 4},
    "phrases": {"beam_size": 5, "must_include": ("de", "k")},
    "contrastive": {"contrastive_alpha": 0.6, "top_k": 4},
    "contrastive with stops": {"contrastive_alpha": 0.4, "top_k": 3, "stop": ("d",), "ignore_eos": True},
    "constrained": {"constraint": Constraint.regex("(ab|cd|e)+")},
    "constrained beams": {"constraint": Constraint.regex("(ab|cd|e)+"), "beam_size": 3},
    "constrained contrastive": {"constraint": Constraint.regex("(ab|cd|e)+"), "contrastive_alpha": 0.5, "top_k": 3},
}
MODELS = ["dense", pytest.param("kernels", marks=needs_kernels)]


@functools.cache
def model_of(kind: str) -> GPT:
    return quantized("int8", scale=0.3) if kind == "kernels" else tiny_gpt(tiny_config(max_seq_len=256))


def engine_of(kind: str) -> Engine:
    return Engine(lambda: runner_of(model_of(kind)), ToyTokenizer(29))


def request(rng: random.Random, way: str, *, length: int | None = None) -> Request:
    prompt = tuple(rng.randrange(1, 29) for _ in range(length or rng.choice([1, 3, 20, 45])))
    return Request(prompt_ids=prompt, config=DecodeConfig(**{"max_tokens": rng.randint(6, 16), **WAYS[way]}))  # type: ignore[arg-type]


def facts(completions: Sequence[Completion]) -> list[tuple[object, ...]]:
    return [(c.text, c.token_ids, c.finish_reason, c.index) for c in sorted(completions, key=lambda c: c.index)]


def alone(kind: str, one: Request) -> list[tuple[object, ...]]:
    engine = engine_of(kind)
    engine.prefixes = None
    ((_, generation),) = engine.generate([one])
    return facts(generation.completions)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("way", WAYS)
def test_kept_beginnings_change_nothing(kind: str, way: str) -> None:
    rng = random.Random(len(way))
    first = request(rng, way, length=40)
    longer = Request(prompt_ids=(*first.prompt_ids, 3, 4, 5), config=first.config)
    other = Request(prompt_ids=(*first.prompt_ids[:30], 7, 8), config=first.config)
    engine = engine_of(kind)
    assert engine.prefixes is not None
    for one, reused in ((first, 0), (longer, 40), (other, 30), (first, 39)):
        before = engine.prefixes.reused
        ((_, generation),) = engine.generate([one])
        assert facts(generation.completions) == alone(kind, one)
        # By chance the next token or two may be the same as well.
        assert reused <= engine.prefixes.reused - before <= reused + (2 if reused else 0)
    # And beside each other.
    together = dict(engine_of(kind).generate([first, longer, other]))
    for number, one in enumerate((first, longer, other)):
        assert facts(together[number].completions) == alone(kind, one)


def test_strategies_take_over_what_others_computed() -> None:
    """Only contrastive search needs more than keys and values: it takes what contrastive search left."""
    rng = random.Random(1)
    prompt = request(rng, "greedy", length=40).prompt_ids
    engine = engine_of("dense")
    assert engine.prefixes is not None
    for way, reused in (("greedy", 0), ("contrastive", 0), ("beams", 39), ("contrastive", 39), ("sampling", 39)):
        one = Request(prompt_ids=prompt, config=request(rng, way).config)
        before = engine.prefixes.reused
        ((_, generation),) = engine.generate([one])
        assert engine.prefixes.reused - before == reused
        assert facts(generation.completions) == alone("dense", one)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("seed", range(3))
def test_a_long_mixed_list_is_what_each_is_alone(kind: str, seed: int) -> None:
    rng = random.Random(seed)
    requests = [request(rng, way) for way in WAYS for _ in range(2)]
    rng.shuffle(requests)
    expected = [alone(kind, one) for one in requests]
    found = dict(engine_of(kind).generate(requests, batch_tokens=700))
    assert [facts(found[number].completions) for number in range(len(requests))] == expected


@pytest.mark.property
@pytest.mark.parametrize("kind", MODELS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), chunk=st.sampled_from([None, 5, 256]))
def test_those_that_join_late_are_what_they_are_alone(kind: str, seed: int, chunk: int | None) -> None:
    rng = random.Random(seed)
    requests = [request(rng, rng.choice(list(WAYS))) for _ in range(8)]
    loop = engine_of(kind).new_loop(batch_tokens=800, chunk=chunk)
    tickets: dict[int, int] = {}
    done: dict[int, list[Completion]] = {}
    ended: set[int] = set()
    dropped: set[int] = set()
    waiting = list(range(len(requests)))
    while waiting or not loop.idle:
        if waiting and (loop.idle or rng.random() < 0.4):
            number = waiting.pop(0)
            tickets[loop.submit(requests[number])] = number
        if rng.random() < 0.04:
            dropped.add(rng.choice(list(tickets)))
            for ticket in dropped:
                loop.cancel(ticket)
        for event in loop.step():
            assert event.ticket not in ended
            if event.completion is not None:
                done.setdefault(event.ticket, []).append(event.completion)
            if event.last:
                ended.add(event.ticket)
    assert ended | dropped == set(tickets)
    for ticket in ended:
        assert facts(done[ticket]) == alone(kind, requests[tickets[ticket]])


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("way", ["beams", "diverse beams", "contrastive", "sampling"])
def test_cancelling_frees_the_slots(kind: str, way: str) -> None:
    rng = random.Random(0)
    first = request(rng, way, length=20)
    second, third = request(rng, "beams", length=20), request(rng, "greedy", length=5)
    loop = Loop(runner_of(model_of(kind)), ToyTokenizer(29), max_slots=4)
    ticket = loop.submit(first)
    others = {loop.submit(second): second, loop.submit(third): third}
    for _ in range(3):
        assert not any(event.ticket in others for event in loop.step())
    loop.cancel(ticket)
    done: dict[int, list[Completion]] = {}
    while not loop.idle:
        for event in loop.step():
            assert event.ticket != ticket
            if event.completion is not None:
                done.setdefault(event.ticket, []).append(event.completion)
    for number, one in others.items():
        assert facts(done[number]) == alone(kind, one)


def test_results_come_out_before_all_have_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    loops: list[Loop] = []
    new_loop = Engine.new_loop

    def watched(self: Engine, *, batch_tokens: int | None = None, chunk: int | None = None) -> Loop:
        loops.append(new_loop(self, batch_tokens=batch_tokens, chunk=chunk))
        return loops[-1]

    monkeypatch.setattr(Engine, "new_loop", watched)
    rng = random.Random(2)
    requests = [request(rng, way) for way in WAYS for _ in range(3)]
    waiting = []
    for _ in engine_of("dense").generate(requests, batch_tokens=500):
        waiting.append(len(loops[0]._waiting))
    assert len(loops) == 1
    assert waiting[0] > len(requests) / 2
    assert waiting == sorted(waiting, reverse=True)
    assert waiting[-1] == 0


def test_mixed_steps_are_one_pass() -> None:
    class Counted(type(runner_of(model_of("dense")))):  # type: ignore[misc]
        calls = 0

        def extend(self, *args: object, **options: object) -> object:
            self.calls += 1
            return super().extend(*args, **options)

        def extend_with_hidden(self, *args: object, **options: object) -> object:
            self.calls += 1
            return super().extend_with_hidden(*args, **options)

    rng = random.Random(3)
    for ways in (("greedy", "sampling", "beams"), ("greedy", "beams", "contrastive")):
        runner = Counted(model_of("dense"))
        loop = Loop(runner, ToyTokenizer(29))
        for way in ways:
            loop.submit(request(rng, way, length=4))
        for number in range(1, 5):
            loop.step()
            assert runner.calls == number


@pytest.mark.parametrize("penalty", [-1.0, 0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("options", [{}, {"stop": ("c",), "constraint": Constraint.regex("[a-e]*f")}])
def test_ending_early_never_changes_the_result(
    monkeypatch: pytest.MonkeyPatch, penalty: float, options: dict[str, object]
) -> None:
    def best(exhaustive: bool) -> list[tuple[object, ...]]:
        found = []
        with monkeypatch.context() as patch:
            if exhaustive:
                patch.setattr(Beam, "done", property(lambda beam: not beam.live))
            for seed in range(8):
                engine = tiny_engine(vocab_size=9, seed=seed, scale=0.4)
                config = DecodeConfig(max_tokens=14, beam_size=3, length_penalty=penalty, **options)  # type: ignore[arg-type]
                ((_, generation),) = engine.generate([Request(prompt_ids=(2, 3), config=config)])
                found += [(*fact, c.score) for c in generation.completions for fact in facts([c])]
        return found

    assert best(False) == best(True)


def test_beams_stop_when_none_can_overtake() -> None:
    passes = []

    class Counted(type(runner_of(model_of("dense")))):  # type: ignore[misc]
        def extend(self, *args: object, **options: object) -> object:
            passes.append(1)
            return super().extend(*args, **options)

    model = tiny_gpt(tiny_config(vocab_size=9), seed=1, scale=0.4)
    engine = Engine(lambda: Counted(model), ToyTokenizer(9))
    config = DecodeConfig(max_tokens=100, beam_size=3, length_penalty=0.0)
    list(engine.generate([Request(prompt_ids=(2, 3), config=config)]))
    assert len(passes) < 40
