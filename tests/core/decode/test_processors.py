"""Processors and their order against a numpy oracle."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.core.decode import processors
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.processors import process
from nlpkit.core.decode.request import Request
from nlpkit.core.decode.sampler import sample, truncate, uniform
from nlpkit.core.decode.special_ids import SpecialIds
from nlpkit.core.errors import ConfigError

VOCAB = 23
logit_rows = st.lists(
    st.integers(-40, 40).map(lambda tenth: tenth / 5 + 0.013), min_size=VOCAB, max_size=VOCAB, unique=True
)


def oracle(logits: np.ndarray, request: Request, generated: list[int], eos: list[int]) -> np.ndarray:
    """All processors, one after the other, written as plainly as possible."""
    x = logits.astype(np.float64).copy()
    config = request.config
    for token, bias in config.logit_bias.items():
        x[token] = -np.inf if bias <= -100 else x[token] + bias
    if config.ignore_eos:
        x[eos] = -np.inf
    if request.token_filter is not None:
        x[~request.token_filter(generated).numpy()] = -np.inf
    for token in set(request.prompt_ids) | set(generated):
        x[token] = x[token] / config.repetition_penalty if x[token] > 0 else x[token] * config.repetition_penalty
    for token, count in Counter(generated).items():
        x[token] -= count * config.frequency_penalty + (count > 0) * config.presence_penalty
    n = config.no_repeat_ngram
    if n and len(generated) >= n:
        tail = generated[len(generated) - n + 1 :]
        for start in range(len(generated) - n + 1):
            if generated[start : start + n - 1] == tail:
                x[generated[start + n - 1]] = -np.inf
    if len(generated) < config.min_tokens:
        x[eos] = -np.inf
    if config.temperature == 0:
        return x
    x = x / config.temperature
    if config.top_k:
        kth = np.sort(x)[::-1][min(config.top_k, VOCAB) - 1]
        x[x < kth] = -np.inf
    if config.typical_p < 1:
        p = softmax(x)
        with np.errstate(divide="ignore", invalid="ignore"):
            surprise = -np.log(p)
            entropy = np.nansum(np.where(p > 0, p * surprise, 0.0))
        x = keep(x, p, np.argsort(np.abs(surprise - entropy), kind="stable"), config.typical_p)
    if config.top_p < 1:
        p = softmax(x)
        x = keep(x, p, np.argsort(-p, kind="stable"), config.top_p)
    if config.min_p > 0:
        p = softmax(x)
        x[p < config.min_p * p.max() * (1 - 1e-9)] = -np.inf
    return x


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def keep(x: np.ndarray, p: np.ndarray, order: np.ndarray, mass: float) -> np.ndarray:
    out = np.full_like(x, -np.inf)
    collected = 0.0
    for token in order:
        if collected >= mass and collected > 0:
            break
        out[token] = x[token]
        collected += p[token]
    return out


configs = st.builds(
    DecodeConfig,
    temperature=st.sampled_from([0.0, 0.5, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 3, 10, 50]),
    top_p=st.sampled_from([0.11, 0.53, 0.91, 1.0]),
    min_p=st.sampled_from([0.0, 0.031, 0.29]),
    typical_p=st.sampled_from([0.23, 0.71, 1.0]),
    repetition_penalty=st.sampled_from([0.8, 1.0, 1.3]),
    frequency_penalty=st.sampled_from([-0.7, 0.0, 1.1]),
    presence_penalty=st.sampled_from([-1.3, 0.0, 0.9]),
    no_repeat_ngram=st.sampled_from([0, 1, 2, 3]),
    min_tokens=st.sampled_from([0, 4]),
    ignore_eos=st.booleans(),
    logit_bias=st.sampled_from([{}, {3: 2.5, 7: -100.0}, {0: -1.5}]),
)


@settings(max_examples=300, deadline=None)
@given(
    logit_rows,
    configs,
    st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=6),
    st.lists(st.integers(0, 5), max_size=9),
    st.booleans(),
)
def test_all_processors_in_order(
    row: list[float], config: DecodeConfig, prompt: list[int], generated: list[int], filtered: bool
) -> None:
    allowed = torch.tensor([token % 4 != 1 for token in range(VOCAB)])
    request = Request(prompt_ids=tuple(prompt), config=config, token_filter=(lambda ids: allowed) if filtered else None)
    logits = torch.tensor(row, dtype=torch.float64)
    expected = oracle(logits.numpy(), request, generated, [0, 1])
    got = process(logits, request, generated, SpecialIds(frozenset({0, 1})))
    if config.temperature > 0:
        got = truncate(got[None], [config])[0]
    assert torch.equal(logits, torch.tensor(row, dtype=torch.float64)), "the input was changed"
    assert not np.isneginf(expected).all()
    assert np.array_equal(np.isneginf(expected), torch.isneginf(got).numpy())
    alive = ~np.isneginf(expected)
    np.testing.assert_allclose(got.numpy()[alive], expected[alive], atol=1e-9)


def test_each_row_keeps_its_own_settings() -> None:
    """At the shape that the engine uses, not only for one row."""
    logits = torch.randn(4, 3000, generator=torch.Generator().manual_seed(0))
    rows = [
        DecodeConfig(temperature=1.0, top_p=0.5),
        DecodeConfig(temperature=1.0),
        DecodeConfig(temperature=0.7, top_k=5),
        DecodeConfig(temperature=2.0, top_p=0.9999),
    ]
    together = truncate(logits, rows)
    for i, config in enumerate(rows):
        alone = truncate(logits[i : i + 1], [config])
        assert torch.equal(together[i : i + 1], alone)
    kept = (~torch.isneginf(together)).sum(-1).tolist()
    assert kept[1] == 3000
    assert kept[2] == 5
    assert 0 < kept[0] < 1500 < kept[3] < 3000


def test_top_p_of_nearly_flat_rows_needs_more_than_the_first_candidates() -> None:
    logits = torch.zeros(1, 5000) + torch.linspace(0, 0.01, 5000)
    kept = (~torch.isneginf(processors.keep_top_p(logits, torch.tensor([0.9])))).sum()
    assert abs(int(kept) - 4500) < 30


def test_bans_give_way_before_no_token_is_left() -> None:
    row = torch.zeros(3)
    used_up = Request(prompt_ids=(1,), config=DecodeConfig(no_repeat_ngram=1, min_tokens=9))
    assert torch.isneginf(process(row, used_up, [1, 2], SpecialIds(frozenset({0})))).tolist() == [False, True, True]
    nothing = Request(prompt_ids=(1,), config=DecodeConfig(logit_bias={0: -100.0, 1: -100.0, 2: -101.0}))
    with pytest.raises(ConfigError, match="no token"):
        process(row, nothing, [], SpecialIds(frozenset({0})))


def test_zero_temperature_needs_no_division() -> None:
    config = DecodeConfig(temperature=0.0)
    row = torch.tensor([1e4, 0.0, -1e4])
    assert int(process(row, Request(prompt_ids=(1,), config=config), [], SpecialIds(frozenset({0}))).argmax()) == 0


def test_samples_follow_the_distribution() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.2, 0.0]))
    n = 20_000
    drawn = sample(logits.expand(n, 4), [uniform(5, 0, step) for step in range(n)])
    counts = Counter(drawn)
    assert counts[3] == 0
    for token, p in ((0, 0.5), (1, 0.3), (2, 0.2)):
        assert abs(counts[token] / n - p) < 4 * math.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize("number", [0.0, 0.999999999999999])
def test_extreme_numbers_never_pick_an_impossible_token(number: float) -> None:
    logits = torch.tensor([[float("-inf"), 0.0, 1.0, float("-inf")]])
    assert sample(logits, [number])[0] in (1, 2)


def test_numbers_differ_by_seed_index_and_step() -> None:
    seen = {uniform(seed, index, step) for seed in (0, 1, 2**62) for index in range(3) for step in range(5)}
    assert len(seen) == 45
    assert uniform(7, 2, 3) == uniform(7, 2, 3)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"frequency_penalty": 3.0}, "frequency_penalty"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"length_penalty": -(10**5000)}, "length_penalty"),
        ({"n": 2}, "temperature 0"),
        ({"beam_size": 3, "temperature": 1.0}, "beam"),
        ({"beam_size": 2, "n": 3}, "beam_size"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens"),
        ({"stop": ("",)}, "stop"),
        ({"seed": -1}, "seed"),
        ({"logit_bias": {-1: 0.5}}, "logit_bias"),
        ({"logit_bias": {3: "x"}}, "logit_bias"),
        ({"logit_bias": {True: 1.0}}, "logit_bias"),
        ({"logit_bias": [3]}, "logit_bias"),
        ({"logit_bias": {3: float("inf")}}, "from -10,000"),
        ({"logit_bias": {3: float("nan")}}, "from -10,000"),
        ({"logit_bias": {3: 1e39}}, "from -10,000"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 1.5}, "logprobs"),
        ({"seed": 1.5}, "seed"),
        ({"seed": True}, "seed"),
        ({"ignore_eos": "yes"}, "ignore_eos"),
    ],
)
def test_bad_options_are_refused_by_name(options: dict[str, object], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        DecodeConfig(**options)  # type: ignore[arg-type]


def test_unknown_option_gets_a_hint() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'temperature'"):
        DecodeConfig().replace(temprature=1.0)
