"""Hypotheses in the cache: rows that are shared hold what rows that are copied hold, bit for bit."""

from __future__ import annotations

import random

import pytest
import torch
from kernel_models import VARIANTS, needs_kernels, quantized, runner_of
from tiny_models import ToyTokenizer, tiny_config, tiny_gpt

from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.engine import Engine
from nlpkit.core.decode.request import Request
from nlpkit.core.decode.strategies.forks import CopiedRows, Entry, Forks, Move, SharedRows, new_forks
from nlpkit.core.model.cache import KVCache
from nlpkit.core.model.gpt import GPT
from nlpkit.core.quantization.kernel_pass import Kernels
from nlpkit.core.runners.kernels import KernelRunner


def walked(forks: Forks, *, seed: int, steps: int = 45) -> list[torch.Tensor]:
    """Logits of random searches that come, fork, shrink and go."""
    chance = random.Random(seed)
    found: list[torch.Tensor] = []
    live: dict[int, tuple[int, int]] = {}  # length, hypotheses
    sizes: dict[int, int] = {}
    key = 0
    for _ in range(steps):
        if len(live) < 5 and chance.random() < 0.4:
            new = []
            for _ in range(chance.randint(1, 2)):
                prompt = [chance.randrange(29) for _ in range(chance.choice([1, 3, 31, 40]))]
                size = chance.randint(1, 5)
                new.append(Entry(key, prompt, size, len(prompt) + steps))
                sizes[key], live[key] = size, (len(prompt), 1)
                key += 1
            found.append(forks.enter(new))
        for gone in [one for one in live if chance.random() < 0.08]:
            forks.leave(gone)
            del live[gone]
        if live:
            moves = []
            for one, (length, count) in live.items():
                parents = [chance.randrange(count) for _ in range(chance.randint(1, sizes[one]))]
                moves.append(Move(one, parents, [chance.randrange(29) for _ in parents], length))
                live[one] = length + 1, len(parents)
            found.append(forks.step(moves))
    return found


@needs_kernels
@pytest.mark.parametrize("name", VARIANTS)
def test_shared_rows_hold_what_copied_rows_do(name: str) -> None:
    model = quantized("int8", **VARIANTS[name])
    runner = runner_of(model)
    assert isinstance(runner, KernelRunner)
    assert runner.can_share
    threads = torch.get_num_threads()
    expected = walked(CopiedRows(runner_of(model)), seed=1)
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found = walked(SharedRows(runner_of(model)), seed=1)
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
    for forks in (SharedRows(runner_of(model)), CopiedRows(runner_of(model))):
        forks.enter([Entry(0, [1, 2, 3], 40, 99)])
        parents = [0] * 40
        for length in range(3, 40):
            logits = forks.step([Move(0, parents, [(7 * i + length) % 29 for i in range(40)], length)])
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
    assert isinstance(new_forks(runner_of(tiny_gpt())), CopiedRows)


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
