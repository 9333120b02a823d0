"""Hypotheses in the cache: rows that are shared hold what rows that are copied hold, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from kernel_models import VARIANTS, needs_kernels, quantized, runner_of
from tiny_models import ToyTokenizer, tiny_config, tiny_gpt

from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.engine import Engine
from nlpkit.core.decode.hypothesis import Hypothesis
from nlpkit.core.decode.prefill import Prefill, Running
from nlpkit.core.decode.request import Request
from nlpkit.core.decode.slots import SharedSlots, Slots, new_slots
from nlpkit.core.decode.special_ids import SpecialIds
from nlpkit.core.model.cache import KVCache
from nlpkit.core.model.gpt import GPT
from nlpkit.core.quantization.kernel_pass import Kernels
from nlpkit.core.runners.kernels import KernelRunner


class Scripted:
    """A strategy whose texts fork as it is told."""

    forks = True
    wants_hidden = False

    def __init__(self, width: int, texts: list[Hypothesis]) -> None:
        self.width = width
        self.live = texts

    def fork(self, parents: Sequence[int], tokens: Sequence[int]) -> None:
        self.live = [self.live[parent].fork(token) for parent, token in zip(parents, tokens, strict=True)]


def begun(
    slots: Slots, running: Sequence[Running], prompts: Sequence[tuple[int, list[int], int]], room: int
) -> tuple[list[Running], torch.Tensor]:
    """Begin searches, given by number, prompt and most texts."""
    tokenizer = ToyTokenizer(29)
    new = []
    for key, prompt, size in prompts:
        request = Request(prompt_ids=tuple(prompt))
        text = Hypothesis((key, 0), request, tokenizer, SpecialIds.of(tokenizer))
        new.append(Prefill(Running(key, request, Scripted(size, [text])), request.prompt_ids))  # type: ignore[arg-type]
    slots.reserve(sum(one.strategy.width for one in (*running, *(entry.running for entry in new))), room)
    for entry in new:
        slots.enter(entry)
    logits, _ = slots.fill(new, [entry.tokens for entry in new], [1] * len(new), with_hidden=False)
    for entry in new:
        entry.running.strategy.live[0].slot = entry.slot
    return [entry.running for entry in new], logits


def walked(slots: Slots, *, seed: int, steps: int = 45) -> list[torch.Tensor]:
    """Logits of random searches that come, fork, shrink and go."""
    chance = random.Random(seed)
    found: list[torch.Tensor] = []
    running: list[Running] = []
    key = 0
    for _ in range(steps):
        before = [text for one in running for text in one.strategy.live]
        if len(running) < 5 and chance.random() < 0.4:
            prompts = []
            for _ in range(chance.randint(1, 2)):
                prompt = [chance.randrange(29) for _ in range(chance.choice([1, 3, 31, 40]))]
                prompts.append((key, prompt, chance.randint(1, 5)))
                key += 1
            new, logits = begun(slots, running, prompts, 40 + steps)
            running += new
            found.append(logits)
        running = [one for one in running if chance.random() >= 0.08]
        for one in running:
            parents = [chance.randrange(len(one.strategy.live)) for _ in range(chance.randint(1, one.strategy.width))]
            one.strategy.fork(parents, [chance.randrange(29) for _ in parents])  # type: ignore[attr-defined]
        slots.move(running, (), before)
        if running:
            found.append(slots.extend(running, None, with_hidden=False)[0])
    return found


@needs_kernels
@pytest.mark.parametrize("name", VARIANTS)
def test_shared_rows_hold_what_copied_rows_do(name: str) -> None:
    model = quantized("int8", **VARIANTS[name])
    runner = runner_of(model)
    assert isinstance(runner, KernelRunner)
    assert runner.can_share
    assert isinstance(new_slots(runner), SharedSlots)
    threads = torch.get_num_threads()
    expected = walked(Slots(runner_of(model)), seed=1)
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found = walked(new_slots(runner_of(model)), seed=1)
            assert len(found) == len(expected)
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    finally:
        torch.set_num_threads(threads)


@needs_kernels
def test_norms_of_heads_have_kernels() -> None:
    assert "head" in {options.get("qk_norm") for options in VARIANTS.values()}
    assert isinstance(runner_of(quantized(qk_norm="head")), KernelRunner)


@needs_kernels
def test_many_hypotheses_of_one_search() -> None:
    """More than the kernels look at together."""
    model = quantized("int8", qk_norm="head", n_kv_heads=4)
    found = []
    for slots in (new_slots(runner_of(model)), Slots(runner_of(model))):
        running, _ = begun(slots, (), [(0, [1, 2, 3], 40)], 99)
        strategy = running[0].strategy
        parents = [0] * 40
        for length in range(3, 40):
            before = strategy.live
            strategy.fork(parents, [(7 * i + length) % 29 for i in range(40)])  # type: ignore[attr-defined]
            slots.move(running, (), before)
            logits, _ = slots.extend(running, None, with_hidden=False)
            parents = [i // 2 for i in range(40)]
        found.append(logits)
    assert torch.equal(*found)


@needs_kernels
def test_nothing_is_read_outside_the_cache() -> None:
    model = quantized()
    cache = KVCache(model.config, n_rows=3, dtype=model.dtype, device=model.device)
    cache.reserve(64)
    one = torch.tensor([0])
    for homes, error in (
        (torch.tensor([[3, 0]], dtype=torch.int32), IndexError),
        (torch.tensor([[-1, 0]], dtype=torch.int32), IndexError),
        (torch.tensor([[0]], dtype=torch.int32), ValueError),
        (torch.tensor([[0, 0]]), ValueError),
    ):
        with torch.inference_mode(), pytest.raises(error):
            Kernels(model).hidden(one, one, torch.tensor([1]), cache, longest=2, homes=homes)


def test_models_without_kernels_copy() -> None:
    assert not isinstance(new_slots(runner_of(tiny_gpt())), SharedSlots)


def engine_for(model: GPT) -> Engine:
    return Engine(lambda: runner_of(model), ToyTokenizer(29))


@pytest.mark.parametrize("kernels", [False, pytest.param(True, marks=needs_kernels)])
def test_searches_that_replace_others_equal_each_alone(kernels: bool) -> None:
    model = quantized("int8", scale=0.3) if kernels else tiny_gpt(tiny_config())
    engine = engine_for(model)
    chance = random.Random(0)
    shapes = [
        {"beam_size": 4, "n": 2}, {"beam_size": 3, "stop": ("a", "bc")}, {"beam_size": 4, "beam_groups": 2, "n": 3},
        {"beam_size": 5, "must_include": ("de",)}, {"beam_size": 2, "min_tokens": 3}, {"beam_size": 4, "no_repeat_ngram": 1},
    ]  # fmt: skip
    requests = [
        Request(
            prompt_ids=tuple(chance.randrange(29) for _ in range(chance.randint(1, 40))),
            config=DecodeConfig(max_tokens=chance.randint(3, 20), **shapes[i % len(shapes)]),  # type: ignore[arg-type]
        )
        for i in range(18)
    ]
    together = dict(engine.generate(requests, batch_tokens=700))
    assert sorted(together) == list(range(18))
    for i, request in enumerate(requests):
        ((_, alone),) = list(engine.generate([request]))
        for one, other in zip(alone.completions, together[i].completions, strict=True):
            assert (one.token_ids, one.text, one.finish_reason) == (other.token_ids, other.text, other.finish_reason)
