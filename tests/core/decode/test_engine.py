"""The engine's invariants, on tiny random models in fp32."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import ToyTokenizer, tiny_config, tiny_engine, tiny_gpt

from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.engine import Engine
from nlpkit.core.decode.loop import Loop
from nlpkit.core.decode.request import Generation, Request
from nlpkit.core.errors import ConfigError, ContextOverflowError, InputError
from nlpkit.core.runners.gpt import GPTRunner

ENGINE = tiny_engine()
SLIDING = tiny_engine(sliding_window=6, sliding_layers=[0], family="mistral")


def run(engine: Engine, requests: list[Request], **options: int) -> list[Generation]:
    results = dict(engine.generate(requests, **options))
    assert sorted(results) == list(range(len(requests)))
    return [results[i] for i in range(len(requests))]


def facts(generation: Generation) -> list[tuple[object, ...]]:
    return [(c.text, c.token_ids, c.finish_reason, c.index) for c in generation.completions]


def mixed_requests(seed: int, count: int) -> list[Request]:
    rng = random.Random(seed)
    requests = []
    for _ in range(count):
        prompt = tuple(rng.randrange(29) for _ in range(rng.choice([1, 2, 5, 9, 17, 30])))
        config = rng.choice(
            [
                DecodeConfig(max_tokens=12),
                DecodeConfig(max_tokens=20, temperature=0.9, seed=rng.randrange(99), top_p=0.9),
                DecodeConfig(max_tokens=9, temperature=1.3, seed=3, top_k=8, n=3),
                DecodeConfig(max_tokens=15, stop=("ab", "c"), ignore_eos=True),
                DecodeConfig(max_tokens=7, frequency_penalty=1.0, presence_penalty=0.5, min_tokens=3),
                DecodeConfig(max_tokens=6, repetition_penalty=1.4, no_repeat_ngram=2),
                DecodeConfig(max_tokens=8, beam_size=3, n=2),
            ]
        )
        requests.append(Request(prompt_ids=prompt, config=config))
    return requests


def parts_at_a_tie(engine: Engine, request: Request, one: Any, other: Any) -> bool:
    """Tell whether two greedy texts part where rounding decides: the tokens are as likely as each other."""
    (_, first, *_), (_, second, *_) = one[0], other[0]
    place = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    context = [*request.prompt_ids, *first[:place]]
    left, right = engine.score([(context, [first[place]]), (context, [second[place]])])
    return abs(left.logprob - right.logprob) < 2e-6


@pytest.mark.property
@pytest.mark.parametrize("engine", [ENGINE, SLIDING], ids=["full", "sliding"])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), batch_tokens=st.sampled_from([1, 60, 150, 8192]))
def test_batch_equals_single_in_any_order(engine: Engine, seed: int, batch_tokens: int) -> None:
    requests = mixed_requests(seed, 9)
    alone = [facts(run(engine, [request])[0]) for request in requests]
    order = list(range(len(requests)))
    random.Random(seed).shuffle(order)
    together = run(engine, [requests[i] for i in order], batch_tokens=batch_tokens)
    for i, generation in zip(order, together, strict=True):
        assert facts(generation) == alone[i] or parts_at_a_tie(engine, requests[i], alone[i], facts(generation))


@pytest.mark.property
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_arrivals_and_cancellations_at_random_times_change_nothing(seed: int) -> None:
    rng = random.Random(seed)
    requests = mixed_requests(seed, 8)
    expected = [facts(run(ENGINE, [request])[0]) for request in requests]
    loop = Loop(GPTRunner(tiny_gpt()), ToyTokenizer(29), batch_tokens=160, max_slots=5)
    tickets: dict[int, int] = {}
    waiting = list(range(len(requests)))
    dropped: set[int] = set()
    got: dict[int, list[tuple[object, ...]]] = {}
    while waiting or not loop.idle:
        if waiting and rng.random() < 0.4:
            number = waiting.pop(0)
            tickets[loop.submit(requests[number])] = number
        if tickets and rng.random() < 0.05:
            ticket = rng.choice(list(tickets))
            loop.cancel(ticket)
            dropped.add(tickets[ticket])
        for event in loop.step():
            if event.completion is not None:
                done = event.completion
                got.setdefault(tickets[event.ticket], []).append(
                    (done.text, done.token_ids, done.finish_reason, done.index)
                )
    for number, facts_alone in enumerate(expected):
        if number not in dropped:
            assert sorted(got[number], key=lambda fact: fact[3]) == facts_alone


def test_greedy_equals_the_argmax_of_uncached_logits() -> None:
    model = tiny_gpt()
    for prompt in ([3, 1, 4], [0], [5] * 20):
        ids = list(prompt)
        for _ in range(25):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        request = Request(prompt_ids=tuple(prompt), config=DecodeConfig(max_tokens=25, ignore_eos=False))
        (got,) = run(ENGINE, [request])[0].completions
        wanted = ids[len(prompt) :]
        if 0 in wanted:
            wanted = wanted[: wanted.index(0) + 1]
        assert list(got.token_ids) == wanted


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_chunked_prefill_changes_nothing(chunk: int) -> None:
    requests = mixed_requests(4, 6)
    assert [facts(g) for g in run(tiny_engine(prefill_chunk=chunk), requests)] == [
        facts(g) for g in run(ENGINE, requests)
    ]


def test_score_of_a_generation_is_its_reported_logprob() -> None:
    requests = mixed_requests(11, 12)
    pairs, reported = [], []
    for request, generation in zip(requests, run(ENGINE, requests), strict=True):
        for completion in generation.completions:
            pairs.append((request.prompt_ids, completion.token_ids))
            reported.append(completion)
    for score, completion in zip(ENGINE.score(pairs), reported, strict=True):
        assert score.token_logprobs == pytest.approx(completion.logprobs, abs=1e-4)
        assert score.logprob == pytest.approx(completion.logprob, abs=1e-3)


def test_score_knows_what_is_greedy() -> None:
    (greedy,) = run(ENGINE, [Request(prompt_ids=(3, 1), config=DecodeConfig(max_tokens=6))])[0].completions
    other = ((greedy.token_ids[0] + 1) % 29, *greedy.token_ids[1:])
    scores = ENGINE.score([((3, 1), greedy.token_ids), ((3, 1), other), ((3, 1), ())])
    assert [score.is_greedy for score in scores] == [True, False, True]
    assert scores[1].logprob < scores[0].logprob
    assert scores[2].logprob == 0.0


@pytest.mark.property
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), stops=st.lists(st.text("abcde", min_size=1, max_size=3), max_size=3))
def test_streamed_text_equals_the_completion(seed: int, stops: list[str]) -> None:
    config = DecodeConfig(max_tokens=30, temperature=1.5, seed=seed, stop=tuple(stops), n=2)
    request = Request(prompt_ids=(1, 2, 3), config=config)
    whole = run(ENGINE, [request])[0].completions
    texts, done = {0: "", 1: ""}, {}
    for event in ENGINE.stream(request):
        texts[event.index] += event.text
        if event.completion is not None:
            done[event.index] = event.completion
    for completion in whole:
        assert texts[completion.index] == completion.text == done[completion.index].text
        assert done[completion.index].token_ids == completion.token_ids
        assert not any(stop in completion.text for stop in stops)


def test_a_seed_gives_the_same_sample_and_none_reports_what_it_drew() -> None:
    request = Request(prompt_ids=(4, 5), config=DecodeConfig(max_tokens=20, temperature=1.5, ignore_eos=True))
    first = run(ENGINE, [request])[0].completions[0]
    second = run(ENGINE, [request])[0].completions[0]
    assert first.seed != second.seed
    assert first.token_ids != second.token_ids
    again = Request(prompt_ids=(4, 5), config=request.config.replace(seed=first.seed))
    assert run(ENGINE, [again])[0].completions[0].token_ids == first.token_ids


def test_completions_of_one_request_differ() -> None:
    config = DecodeConfig(max_tokens=20, temperature=1.5, n=8, ignore_eos=True, seed=1)
    completions = run(ENGINE, [Request(prompt_ids=(4,), config=config)])[0].completions
    assert [completion.index for completion in completions] == list(range(8))
    assert len({completion.token_ids for completion in completions}) == 8


def test_finish_reasons() -> None:
    length = run(ENGINE, [Request(prompt_ids=(1,), config=DecodeConfig(max_tokens=5, ignore_eos=True))])[0]
    assert length.completions[0].finish_reason == "length"
    assert len(length.completions[0].token_ids) == 5
    text = length.completions[0].text
    stop = Request(prompt_ids=(1,), config=DecodeConfig(max_tokens=5, ignore_eos=True, stop=(text[2],)))
    stopped = run(ENGINE, [stop])[0].completions[0]
    assert stopped.finish_reason == "stop"
    assert stopped.text == text[: text.index(text[2])]
    forced = DecodeConfig(max_tokens=5, logit_bias=dict.fromkeys(range(1, 29), -100.0))
    ended = run(ENGINE, [Request(prompt_ids=(1,), config=forced)])[0].completions[0]
    assert (ended.finish_reason, ended.token_ids, ended.text) == ("eos", (0,), "")
    # An end-of-sequence token at the very last step is an end, not a limit.
    last = run(ENGINE, [Request(prompt_ids=(1,), config=replace(forced, max_tokens=1))])[0].completions[0]
    assert last.finish_reason == "eos"
    nothing = run(ENGINE, [Request(prompt_ids=(1,), config=DecodeConfig(max_tokens=0))])[0].completions[0]
    assert (nothing.finish_reason, nothing.token_ids) == ("length", ())


def test_minimum_length_holds_off_eos_and_stops() -> None:
    bias = {0: 50.0}
    config = DecodeConfig(max_tokens=9, min_tokens=4, logit_bias=bias)
    done = run(ENGINE, [Request(prompt_ids=(1,), config=config)])[0].completions[0]
    assert len(done.token_ids) == 5
    assert done.finish_reason == "eos"


def test_logprobs_are_of_the_raw_distribution() -> None:
    model = tiny_gpt()
    config = DecodeConfig(max_tokens=3, temperature=0.3, top_k=1, logprobs=4, seed=0, logit_bias={5: 30.0})
    done = run(ENGINE, [Request(prompt_ids=(7, 8), config=config)])[0].completions[0]
    raw = torch.log_softmax(model(torch.tensor([[7, 8]]))[0, -1], -1)
    assert done.token_ids[0] == 5
    assert done.logprobs[0] == pytest.approx(float(raw[5]), abs=1e-5)
    best = raw.topk(4)
    assert [token for token, _ in done.top_logprobs[0]] == best.indices.tolist()
    assert [value for _, value in done.top_logprobs[0]] == pytest.approx(best.values.tolist(), abs=1e-5)


def test_a_token_filter_restricts_every_step() -> None:
    def only_even(generated: object) -> torch.Tensor:
        return torch.arange(29) % 2 == 0

    config = DecodeConfig(max_tokens=20, temperature=2.0, seed=0, ignore_eos=True)
    done = run(ENGINE, [Request(prompt_ids=(3,), config=config, token_filter=only_even)])[0].completions[0]
    assert len(done.token_ids) == 20
    assert all(token % 2 == 0 for token in done.token_ids)


def test_the_whole_context_can_be_used() -> None:
    for prompt in (127, 100):
        request = Request(prompt_ids=(3,) * prompt, config=DecodeConfig(max_tokens=128 - prompt, ignore_eos=True))
        short = Request(prompt_ids=(4, 5), config=DecodeConfig(max_tokens=9, ignore_eos=True))
        results = run(ENGINE, [request, short])
        assert len(results[0].completions[0].token_ids) == 128 - prompt
        assert facts(results[1]) == facts(run(ENGINE, [short])[0])


def test_learned_positions_reach_the_end_of_their_table() -> None:
    engine = tiny_engine(positions="learned", norm="layer", gated_mlp=False, family="gpt2", n_kv_heads=4)
    request = Request(prompt_ids=(3,) * 100, config=DecodeConfig(max_tokens=28, ignore_eos=True))
    assert len(run(engine, [request])[0].completions[0].token_ids) == 28


@pytest.mark.parametrize(
    ("request_", "error", "part"),
    [
        (Request(prompt_ids=()), InputError, "empty"),
        (Request(prompt_ids=(29,)), InputError, "29"),
        (Request(prompt_ids=(-1,)), InputError, "-1"),
        (Request(prompt_ids=(1,) * 100, config=DecodeConfig(max_tokens=29)), ContextOverflowError, "128"),
        (Request(prompt_ids=(1,), config=DecodeConfig(max_tokens=5, logit_bias={99: 1.0})), ConfigError, "99"),
    ],
)
def test_bad_requests_are_refused_before_anything_runs(request_: Request, error: type[Exception], part: str) -> None:
    with pytest.raises(error, match=part):
        ENGINE.generate([Request(prompt_ids=(1,), config=DecodeConfig(max_tokens=3)), request_])


def test_two_generations_at_once_do_not_share_a_cache() -> None:
    requests = [Request(prompt_ids=(i, 2, 3), config=DecodeConfig(max_tokens=9 + i)) for i in range(4)]
    expected = [facts(generation) for generation in run(ENGINE, requests)]
    first, second = ENGINE.generate(requests), ENGINE.generate(requests)
    got_first, got_second = {}, {}
    for (i, one), (j, two) in zip(first, second, strict=True):
        got_first[i], got_second[j] = facts(one), facts(two)
    assert [got_first[i] for i in range(4)] == expected == [got_second[i] for i in range(4)]


def test_memory_stays_within_the_token_budget() -> None:
    runner = GPTRunner(tiny_gpt(tiny_config()))
    loop = Loop(runner, ToyTokenizer(29), batch_tokens=200)
    for i in range(40):
        loop.submit(Request(prompt_ids=(1,) * (1 + i % 9), config=DecodeConfig(max_tokens=10)))
    finished = 0
    while not loop.idle:
        finished += sum(event.completion is not None for event in loop.step())
    assert finished == 40
    # Rows are bounded by the budget over the longest request; slots round up to a step of the cache.
    assert runner._cache.n_rows <= 200 // 11
