"""Contrastive search against its definition."""

from __future__ import annotations

import functools
import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import ToyTokenizer, tiny_config, tiny_engine, tiny_gpt

from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.constraint import Constraint
from nlpkit.core.decode.engine import Engine
from nlpkit.core.decode.request import Completion, Request
from nlpkit.core.decode.strategies.contrastive import check_runner
from nlpkit.core.errors import ConfigError
from nlpkit.core.model.gpt import GPT
from nlpkit.core.runners.gpt import GPTRunner

VOCAB = 23


@functools.cache
def model_of(seed: int) -> GPT:
    return tiny_gpt(tiny_config(vocab_size=VOCAB), seed=seed, scale=0.35)


@functools.cache
def engine_of(seed: int, prefill_chunk: int = 2048) -> Engine:
    return Engine(lambda: GPTRunner(model_of(seed), prefill_chunk=prefill_chunk), ToyTokenizer(VOCAB))


def reference(seed: int, prompt: tuple[int, ...], *, k: int, alpha: float, max_tokens: int) -> tuple[int, ...]:
    """The definition, without a cache: every candidate is run through the whole model."""
    model = model_of(seed)
    ids = list(prompt)
    for _ in range(max_tokens):
        hidden = model.hidden(torch.tensor([ids]))[0]
        probs = torch.softmax(model.logits(hidden[-1]), -1)
        best = probs.topk(k)
        tries = torch.tensor([[*ids, token] for token in best.indices.tolist()])
        candidates = model.hidden(tries)[:, -1]
        closest = F.cosine_similarity(candidates[:, None], hidden[None], dim=-1).amax(-1)
        scores = ((1 - alpha) * best.values - alpha * closest).tolist()
        ids.append(best.indices.tolist()[scores.index(max(scores))])
        if ids[-1] == 0:
            break
    return tuple(ids[len(prompt) :])


def write(engine: Engine, prompt: tuple[int, ...], **options: object) -> Completion:
    config = DecodeConfig(**{"contrastive_alpha": 0.6, "top_k": 4, "max_tokens": 12, **options})  # type: ignore[arg-type]
    ((_, generation),) = engine.generate([Request(prompt_ids=prompt, config=config)])
    (completion,) = generation.completions
    assert generation.prompt_tokens == len(prompt)
    return completion


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 3),
    prompt=st.lists(st.integers(1, VOCAB - 1), min_size=1, max_size=6),
    k=st.sampled_from([1, 2, 5, VOCAB]),
    alpha=st.sampled_from([0.1, 0.4, 0.6, 0.9, 1.0]),
)
def test_it_follows_its_definition(seed: int, prompt: list[int], k: int, alpha: float) -> None:
    done = write(engine_of(seed), tuple(prompt), top_k=k, contrastive_alpha=alpha, max_tokens=7)
    assert done.token_ids == reference(seed, tuple(prompt), k=k, alpha=alpha, max_tokens=7)


@pytest.mark.parametrize("seed", range(4))
def test_one_candidate_is_greedy(seed: int) -> None:
    greedy = write(engine_of(seed), (3, 4, 5), contrastive_alpha=0.0, top_k=0)
    assert write(engine_of(seed), (3, 4, 5), top_k=1).token_ids == greedy.token_ids


def test_it_repeats_less() -> None:
    def repeats(text: str) -> int:
        return len(text) - len(set(text))

    options = {"max_tokens": 30, "ignore_eos": True}
    greedy = [repeats(write(engine_of(s), (3, 4), contrastive_alpha=0.0, top_k=0, **options).text) for s in range(3)]
    apart = [repeats(write(engine_of(s), (3, 4), contrastive_alpha=0.7, top_k=6, **options).text) for s in range(3)]
    assert sum(apart) < sum(greedy)


def test_several_at_once_equal_each_alone() -> None:
    engine = engine_of(1)
    configs = [
        DecodeConfig(max_tokens=9, contrastive_alpha=0.6, top_k=4),
        DecodeConfig(max_tokens=3, contrastive_alpha=0.3, top_k=2),
        DecodeConfig(max_tokens=0, contrastive_alpha=0.3, top_k=2),
        DecodeConfig(max_tokens=8),
        DecodeConfig(max_tokens=14, contrastive_alpha=0.8, top_k=7, frequency_penalty=1.0),
        DecodeConfig(max_tokens=6, beam_size=2),
        DecodeConfig(max_tokens=7, contrastive_alpha=0.5, top_k=3, constraint=Constraint.regex("(ab|cd|e)+")),
    ]
    requests = [Request(prompt_ids=(2 + i,) * (1 + 2 * i), config=config) for i, config in enumerate(configs)]
    alone = {i: next(iter(engine.generate([request])))[1].completions for i, request in enumerate(requests)}
    for budget in (10_000, 150):
        for some in (requests, requests[::-1]):
            together = {
                requests.index(some[i]): generation.completions
                for i, generation in engine.generate(some, batch_tokens=budget)
            }
            assert {i: [c.token_ids for c in done] for i, done in together.items()} == {
                i: [c.token_ids for c in done] for i, done in alone.items()
            }


def test_a_prompt_in_chunks_is_the_same() -> None:
    prompt = tuple(range(1, 20))
    assert write(engine_of(2, 4), prompt).token_ids == write(engine_of(2), prompt).token_ids


def test_to_the_end_of_the_context() -> None:
    prompt = (3,) * 100
    done = write(engine_of(0), prompt, max_tokens=28, ignore_eos=True)
    assert len(done.token_ids) == 28
    short = Request(prompt_ids=(4, 5), config=DecodeConfig(contrastive_alpha=0.6, top_k=4, max_tokens=28))
    long = Request(
        prompt_ids=prompt, config=DecodeConfig(contrastive_alpha=0.6, top_k=4, max_tokens=28, ignore_eos=True)
    )
    both = dict(engine_of(0).generate([short, long]))
    assert both[1].completions[0].token_ids == done.token_ids


def test_logprobs_are_the_models() -> None:
    done = write(engine_of(1), (3, 4), logprobs=2)
    scored = engine_of(1).score([((3, 4), done.token_ids)])[0]
    assert done.logprobs == pytest.approx(scored.token_logprobs, abs=1e-4)
    assert all(len(step) == 2 and step[0][1] >= step[1][1] for step in done.top_logprobs)
    assert len(done.top_logprobs) == len(done.token_ids)


def test_streaming_is_the_same() -> None:
    for options in ({}, {"stop": ("a", "k")}, {"ignore_eos": True, "max_tokens": 30}):
        config = DecodeConfig(**{"contrastive_alpha": 0.6, "top_k": 4, "max_tokens": 12, **options})  # type: ignore[arg-type]
        events = list(engine_of(3).stream(Request(prompt_ids=(3, 4), config=config)))
        assert [event.completion is None for event in events] == [True] * (len(events) - 1) + [False]
        whole = write(engine_of(3), (3, 4), **options)
        assert events[-1].completion == whole
        assert "".join(event.text for event in events) == whole.text
        assert tuple(event.token_id for event in events) == whole.token_ids


def test_bans_penalties_and_constraints_apply() -> None:
    banned = write(engine_of(0), (3, 4), logit_bias=dict.fromkeys(range(5, VOCAB), -100.0), ignore_eos=True)
    assert set(banned.token_ids) <= {1, 2, 3, 4}
    distinct = write(engine_of(0), (3, 4), no_repeat_ngram=1, ignore_eos=True)
    assert len(set(distinct.token_ids)) == 12
    fits = write(engine_of(0), (3, 4), constraint=Constraint.regex("(ab|cd){2,5}"), max_tokens=20)
    assert fits.finish_reason == "eos"
    assert re.fullmatch("(ab|cd){2,5}", fits.text)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": 0.5}, "deterministic"),
        ({"beam_size": 2}, "deterministic"),
        ({"temperature": 0.5, "n": 2}, "deterministic"),
        ({"top_k": 0}, "needs top_k"),
        ({"contrastive_alpha": 1.5}, "from 0 to 1"),
    ],
)
def test_options_that_contradict(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DecodeConfig(**{"contrastive_alpha": 0.6, "top_k": 4, **options})  # type: ignore[arg-type]


def test_a_runner_without_hidden_states_is_refused() -> None:
    class Bare:
        max_seq_len, vocab_size = 9, 9

    with pytest.raises(ConfigError, match="needs hidden states"):
        check_runner(Bare())  # type: ignore[arg-type]
    engine = tiny_engine(vocab_size=9)
    engine._scorer = Bare()  # type: ignore[assignment]
    request = Request(prompt_ids=(1,), config=DecodeConfig(max_tokens=1, contrastive_alpha=0.5, top_k=2))
    with pytest.raises(ConfigError, match="needs hidden states"):
        engine.generate([request])
