"""Beam search against brute force on a tiny vocabulary."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tiny_models import tiny_config, tiny_engine, tiny_gpt

from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.request import Completion, Request
from nlpkit.core.errors import ConfigError

VOCAB, LENGTH = 5, 4


def search(seed: int, *, scale: float = 0.5, prompt: tuple[int, ...] = (2, 3), **options: object) -> list[Completion]:
    engine = tiny_engine(vocab_size=VOCAB, seed=seed, scale=scale)
    request = Request(prompt_ids=prompt, config=DecodeConfig(max_tokens=LENGTH, **options))  # type: ignore[arg-type]
    return list(next(iter(engine.generate([request])))[1].completions)


def all_texts(seed: int, prompt: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], float]]:
    """Every sequence that ends by token 0 or has the full length, with its log-probability."""
    model = tiny_gpt(tiny_config(vocab_size=VOCAB), seed=seed, scale=0.5)

    def grow(ids: tuple[int, ...], total: float) -> Iterator[tuple[tuple[int, ...], float]]:
        if ids and (ids[-1] == 0 or len(ids) == LENGTH):
            yield ids, total
            return
        logprobs = torch.log_softmax(model(torch.tensor([[*prompt, *ids]]))[0, -1], -1).tolist()
        for token in range(VOCAB):
            yield from grow((*ids, token), total + logprobs[token])

    yield from grow((), 0.0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0, 2.0, -0.5])
def test_a_wide_beam_is_exhaustive(seed: int, penalty: float) -> None:
    scored = [(total / len(ids) ** penalty, ids) for ids, total in all_texts(seed, (2, 3))]
    assert len(scored) > 300
    best = sorted(scored, reverse=True)[:6]
    got = search(seed, beam_size=VOCAB**LENGTH, n=6, length_penalty=penalty)
    assert [completion.token_ids for completion in got] == [ids for _, ids in best]
    assert [completion.score for completion in got] == pytest.approx([score for score, _ in best], abs=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_a_wider_beam_never_finds_worse_when_exhaustive(seed: int) -> None:
    widest = search(seed, beam_size=VOCAB**LENGTH)[0].score
    assert widest is not None
    for size in (2, 3, 5):
        score = search(seed, beam_size=size)[0].score
        assert score is not None
        assert score <= widest + 1e-5


@pytest.mark.parametrize("seed", range(6))
def test_logprobs_sum_to_the_score(seed: int) -> None:
    for completion in search(seed, beam_size=4, n=4, length_penalty=0.5):
        assert completion.score == pytest.approx(completion.logprob / len(completion.token_ids) ** 0.5, abs=1e-4)


def test_several_searches_at_once_equal_each_alone() -> None:
    engine = tiny_engine(vocab_size=29, seed=3)
    requests = [
        Request(prompt_ids=(1 + i,) * (1 + 3 * i), config=DecodeConfig(max_tokens=6 + i, beam_size=2 + i % 3, n=2))
        for i in range(6)
    ]

    def facts(numbered: list[Request]) -> dict[int, list[tuple[int, ...]]]:
        return {i: [c.token_ids for c in g.completions] for i, g in engine.generate(numbered)}

    together = facts(requests)
    assert together == {i: facts([request])[0] for i, request in enumerate(requests)}
    narrow = {i: [c.token_ids for c in g.completions] for i, g in engine.generate(requests, batch_tokens=40)}
    assert narrow == together


def test_a_stop_string_ends_a_hypothesis() -> None:
    plain = search(1, beam_size=3, ignore_eos=True)[0]
    stop = plain.text[1]
    for completion in search(1, beam_size=3, n=3, ignore_eos=True, stop=(stop,)):
        assert stop not in completion.text


def test_processors_apply_to_beams() -> None:
    config = DecodeConfig(max_tokens=6, beam_size=3, n=3, logit_bias={1: -100.0}, no_repeat_ngram=1, ignore_eos=True)
    generation = next(iter(tiny_engine(vocab_size=9).generate([Request(prompt_ids=(2, 3), config=config)])))[1]
    for completion in generation.completions:
        assert 1 not in completion.token_ids
        assert len(set(completion.token_ids)) == 6


def test_beam_one_is_greedy() -> None:
    engine = tiny_engine(seed=5)
    for prompt in ((1,), (4, 7, 9), (2,) * 20):
        request = Request(prompt_ids=prompt, config=DecodeConfig(max_tokens=12))
        greedy = next(iter(engine.generate([request])))[1].completions[0]
        from nlpkit.core.decode.beam import BeamSearcher
        from nlpkit.core.decode.runner import GPTRunner

        searcher = BeamSearcher(GPTRunner(tiny_gpt(seed=5)), engine._tokenizer)
        ((_, generation),) = list(searcher.run([(0, request)]))
        assert generation.completions[0].token_ids == greedy.token_ids


def test_beams_cannot_be_streamed() -> None:
    engine = tiny_engine()
    with pytest.raises(ConfigError, match="streamed"):
        engine.stream(Request(prompt_ids=(1,), config=DecodeConfig(max_tokens=3, beam_size=2)))
