"""Beam search against brute force on a tiny vocabulary."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import ToyTokenizer, tiny_config, tiny_engine, tiny_gpt

from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.engine import Engine
from nlpkit.core.decode.loop import Loop
from nlpkit.core.decode.request import Completion, Request
from nlpkit.core.decode.strategies.beam import Beams
from nlpkit.core.decode.strategies.lexical import Lexicon, share_beam, spellings
from nlpkit.core.errors import ConfigError
from nlpkit.core.runners.gpt import GPTRunner
from nlpkit.core.tokenizers.bpe import HFTokenizer
from nlpkit.core.tokenizers.train import train_tokenizer

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
    # Those that ended come before those that were cut.
    best = sorted(scored, key=lambda entry: (entry[1][-1] == 0, entry), reverse=True)[:6]
    got = search(seed, beam_size=VOCAB**LENGTH, n=6, length_penalty=penalty)
    assert [completion.token_ids for completion in got] == [ids for _, ids in best]
    assert [completion.score for completion in got] == pytest.approx([score for score, _ in best], abs=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_a_wider_beam_never_finds_worse_when_exhaustive(seed: int) -> None:
    def worth(size: int) -> tuple[bool, float]:
        best = search(seed, beam_size=size)[0]
        return best.finish_reason == "eos", best.score or 0.0

    ended, score = worth(VOCAB**LENGTH)
    for size in (2, 3, 5):
        assert worth(size) <= (ended, score + 1e-5)


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


def test_beam_one_is_greedy(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tiny_engine(seed=5)
    requests = [
        Request(prompt_ids=prompt, config=DecodeConfig(max_tokens=12)) for prompt in ((1,), (4, 7, 9), (2,) * 20)
    ]
    greedy = {number: generation.completions[0] for number, generation in engine.generate(requests)}
    monkeypatch.setattr(Loop, "_strategy", lambda self, texts: Beams(texts[0]))
    for number, generation in engine.generate(requests):
        assert generation.completions[0].score is not None
        assert generation.completions[0].token_ids == greedy[number].token_ids


def test_beams_cannot_be_streamed() -> None:
    engine = tiny_engine()
    with pytest.raises(ConfigError, match="streamed"):
        engine.stream(Request(prompt_ids=(1,), config=DecodeConfig(max_tokens=3, beam_size=2)))


# Diverse beams


def reference_groups(
    seed: int, prompt: tuple[int, ...], *, size: int, groups: int, penalty: float, length_penalty: float
) -> list[list[tuple[float, tuple[int, ...]]]]:
    """Diverse beam search by its definition, one hypothesis at a time; the ended hypotheses of each group."""
    model = tiny_gpt(tiny_config(vocab_size=VOCAB), seed=seed, scale=0.5)

    @functools.cache
    def logprobs(ids: tuple[int, ...]) -> list[float]:
        values: list[float] = torch.log_softmax(model(torch.tensor([[*prompt, *ids]]))[0, -1], -1).tolist()
        return values

    k = size // groups
    live: list[list[tuple[float, tuple[int, ...]]]] = [[(0.0, ())] for _ in range(groups)]
    ended: list[list[tuple[float, tuple[int, ...]]]] = [[] for _ in range(groups)]
    for step in range(LENGTH):
        taken: list[int] = []
        for group in range(groups):
            options = sorted(
                (
                    (
                        total + logprobs(ids)[token] - penalty * taken.count(token),
                        total + logprobs(ids)[token],
                        (*ids, token),
                    )
                    for total, ids in live[group]
                    for token in range(VOCAB)
                ),
                reverse=True,
            )[: 2 * k]
            live[group] = []
            for rank, (_, total, ids) in enumerate(options):
                if len(live[group]) == k:
                    break
                if ids[-1] != 0:
                    live[group].append((total, ids))
                elif rank < k:
                    ended[group].append((total / len(ids) ** length_penalty, ids))
            taken += [ids[-1] for _, ids in live[group]]
            ended[group] = sorted(ended[group], reverse=True)[:k]
            if step + 1 == LENGTH:
                # Those that are cut come after those that ended.
                ended[group] += [(total / len(ids) ** length_penalty, ids) for total, ids in live[group]]
            elif len(ended[group]) == k and live[group]:
                best = max(total for total, _ in live[group])
                if best / LENGTH**length_penalty <= ended[group][-1][0]:
                    live[group] = []
    return [sorted(group, key=by_rank, reverse=True)[:k] for group in ended]


def by_rank(entry: tuple[float, tuple[int, ...]]) -> tuple[bool, float, tuple[int, ...]]:
    return entry[1][-1] == 0, *entry


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("size", "groups"), [(2, 2), (4, 2), (6, 3), (6, 2), (3, 1)])
@pytest.mark.parametrize("penalty", [0.3, 5.0])
def test_diverse_beams_follow_their_definition(seed: int, size: int, groups: int, penalty: float) -> None:
    expected = reference_groups(seed, (2, 3), size=size, groups=groups, penalty=penalty, length_penalty=1.0)
    got = search(seed, beam_size=size, beam_groups=groups, diversity_penalty=penalty, n=size)
    # What two groups found counts once; then others that ended take the places that are left.
    wanted = {entry[1]: entry[0] for group in expected for entry in group}
    found = {completion.token_ids: completion.score for completion in got}
    assert len(found) == len(got)
    assert {ids: found.get(ids) for ids in wanted} == pytest.approx(wanted, abs=1e-4)
    assert len(found) == len(wanted) or len(wanted) < size
    ranks = [by_rank((completion.score or 0.0, completion.token_ids))[:2] for completion in got]
    assert ranks == sorted(ranks, reverse=True)


def test_every_group_is_heard() -> None:
    """The best of each group comes before the second best of any."""
    for seed in range(5):
        expected = reference_groups(seed, (2, 3), size=6, groups=3, penalty=2.0, length_penalty=1.0)
        firsts = {group[0][1] for group in expected}
        got = search(seed, beam_size=6, beam_groups=3, diversity_penalty=2.0, n=3)
        if len(firsts) == 3:
            assert {completion.token_ids for completion in got} == firsts
        ranks = [(completion.finish_reason == "eos", completion.score or 0.0) for completion in got]
        assert ranks == sorted(ranks, reverse=True)


def test_a_penalty_makes_groups_differ_and_none_makes_them_the_same() -> None:
    options = {"beam_size": 4, "beam_groups": 4, "n": 4, "ignore_eos": True}
    apart = search(1, diversity_penalty=1000.0, **options)
    assert len({completion.token_ids[0] for completion in apart}) == 4
    same = search(1, diversity_penalty=0.0, **options)
    assert len({completion.token_ids for completion in same}) == 1


def test_a_text_of_two_groups_counts_once() -> None:
    texts = [c.token_ids for c in search(1, beam_size=6, beam_groups=2, diversity_penalty=0.0, n=3, ignore_eos=True)]
    assert len(set(texts)) == 3


def test_scores_of_diverse_beams_are_logprobs() -> None:
    for completion in search(2, beam_size=6, beam_groups=3, diversity_penalty=1.5, n=6, length_penalty=0.5):
        assert completion.score == pytest.approx(completion.logprob / len(completion.token_ids) ** 0.5, abs=1e-4)


def test_diverse_and_plain_searches_at_once_equal_each_alone() -> None:
    engine = tiny_engine(vocab_size=29, seed=3)
    configs = [
        DecodeConfig(max_tokens=6, beam_size=6, beam_groups=3, n=6, diversity_penalty=0.8),
        DecodeConfig(max_tokens=8, beam_size=3, n=2),
        DecodeConfig(max_tokens=7, beam_size=4, n=2, must_include=("ab", "c")),
        DecodeConfig(max_tokens=9, beam_size=4, beam_groups=2, n=4, must_include=("ef",)),
    ]
    requests = [Request(prompt_ids=(1 + i,) * (2 + i), config=config) for i, config in enumerate(configs)]
    together = {i: [c.token_ids for c in g.completions] for i, g in engine.generate(requests)}
    for i, request in enumerate(requests):
        ((_, alone),) = list(engine.generate([request]))
        assert together[i] == [completion.token_ids for completion in alone.completions]


# Phrases that must occur


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "phrases", [("a",), ("ab",), ("ba", "c"), ("aa", "cb"), ("abca",), ("d", "d"), ("ab", "abc", "b")]
)
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_beam_with_phrases_is_exhaustive(seed: int, phrases: tuple[str, ...], penalty: float) -> None:
    def text(ids: tuple[int, ...]) -> str:
        return ToyTokenizer(VOCAB).decode(ids)

    scored = sorted(
        (
            (total / len(ids) ** penalty, ids)
            for ids, total in all_texts(seed, (2, 3))
            if all(phrase in text(ids) for phrase in phrases)
        ),
        key=lambda entry: (entry[1][-1] == 0, entry),
        reverse=True,
    )
    got = search(seed, beam_size=VOCAB**LENGTH, n=3, length_penalty=penalty, must_include=phrases)
    got = got[: len(scored)]
    assert [completion.score for completion in got] == pytest.approx([s for s, _ in scored[:3]], abs=1e-4)
    assert [completion.token_ids for completion in got] == [ids for _, ids in scored[:3]]


words = st.text(alphabet="abcdefgh", min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 5), st.lists(words, min_size=1, max_size=4), st.integers(2, 9), st.integers(0, 6), st.booleans())
def test_phrases_always_occur(seed: int, phrases: list[str], size: int, room: int, grouped: bool) -> None:
    engine = ENGINES[seed]
    needed = Lexicon(phrases, engine._tokenizer).start.remaining
    config = DecodeConfig(
        max_tokens=needed + room,
        beam_size=2 * size if grouped else size,
        beam_groups=2 if grouped else 1,
        must_include=tuple(phrases),
    )
    ((_, generation),) = list(engine.generate([Request(prompt_ids=(1, 2), config=config)]))
    (best,) = generation.completions
    assert all(phrase in best.text for phrase in phrases)
    assert best.finish_reason in ("eos", "length")
    assert best.score == pytest.approx(best.logprob / len(best.token_ids), abs=1e-4)


ENGINES = [tiny_engine(vocab_size=12, seed=seed, scale=0.4) for seed in range(6)]
TEXT = (
    "The house of the cheese maker stands near the river. Das Haus des Käsers steht am Fluss. 日本の家は川の近くにある。 "
    "Houses and rivers, cheese and houses: a house near a river is a house with a view of the river. "
) * 4


@functools.cache
def bpe() -> HFTokenizer:
    tokenizer = train_tokenizer("bpe", [TEXT], vocab_size=420)
    assert isinstance(tokenizer, HFTokenizer)
    return tokenizer


@functools.cache
def bpe_engine(seed: int = 0) -> Engine:
    model = tiny_gpt(tiny_config(vocab_size=bpe().vocab_size, max_seq_len=256), seed=seed)
    return Engine(lambda: GPTRunner(model), bpe())


@pytest.mark.parametrize(
    "phrases",
    [
        ("house",),
        ("cheese maker", "river"),
        ("Käsers",),
        ("日本", "Haus"),
        ("hous", "houses"),
        ("unseen", "wörd"),
        ("  a  ",),
    ],
)
@pytest.mark.parametrize("size", [2, 5, 12])
def test_phrases_of_many_tokens(phrases: tuple[str, ...], size: int) -> None:
    config = DecodeConfig(max_tokens=40, beam_size=size, must_include=phrases, n=2)
    request = Request(prompt_ids=tuple(bpe().encode("Near the river")), config=config)
    ((_, generation),) = list(bpe_engine().generate([request]))
    for phrase in phrases:
        assert phrase.strip() in generation.completions[0].text
    assert "\ufffd" not in phrases[0]


def test_spellings_with_and_without_a_space() -> None:
    found = {b"".join(map(bpe().token_bytes, ids)) for ids in spellings("house", bpe())}
    assert found == {b"house", b" house"}
    assert spellings("日本", bpe())
    with pytest.raises(ConfigError, match="cannot spell"):
        spellings("é", ToyTokenizer(VOCAB))


def test_a_phrase_may_be_spelled_in_any_way() -> None:
    """What counts is the text: here no spelling that the search proposes itself is ever taken."""
    lexicon = Lexicon(("house",), bpe())
    progress = lexicon.start
    for byte in b" house":
        (token_id,) = bpe().encode(chr(byte))
        progress = lexicon.advance(progress, token_id)
    assert progress.remaining == 0
    assert not lexicon.next_tokens(progress)


def test_an_interrupted_phrase_starts_again() -> None:
    tokenizer = ToyTokenizer(9)
    lexicon = Lexicon(("aab", "c"), tokenizer)
    left = []
    progress = lexicon.start
    for token_id in tokenizer.encode("abaaabc"):
        progress = lexicon.advance(progress, token_id)
        left.append(progress.remaining)
    assert lexicon.start.remaining == 4
    assert left == [3, 4, 3, 2, 2, 1, 0]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40), st.lists(st.integers(0, 30), min_size=1, max_size=9))
def test_places_are_shared_among_banks(k: int, sizes: list[int]) -> None:
    places = share_beam(k, sizes)
    assert sum(places) == min(k, sum(sizes))
    assert all(0 <= got <= size for got, size in zip(places, sizes, strict=True))
    if all(size >= k for size in sizes):
        assert min(places[:-1], default=k) >= k // len(sizes)


def test_phrases_and_stop_strings() -> None:
    config = DecodeConfig(max_tokens=12, beam_size=6, must_include=("abc",), stop=("d", "e"), ignore_eos=True)
    for engine in ENGINES:
        ((_, generation),) = list(engine.generate([Request(prompt_ids=(1, 2), config=config)]))
        (best,) = generation.completions
        assert "abc" in best.text
        assert not set("de") & set(best.text)


def test_phrases_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="takes 5 tokens, one phrase after another; max_tokens is 4"):
        search(0, beam_size=3, must_include=("abcda",))
    with pytest.raises(ConfigError, match="in which a stop string"):
        DecodeConfig(beam_size=2, must_include=("a b",), stop=(" ",))
    with pytest.raises(ConfigError, match="needs beam search"):
        DecodeConfig(must_include=("a",))
    with pytest.raises(ConfigError, match="not blank"):
        DecodeConfig(beam_size=2, must_include=(" ",))
    with pytest.raises(ConfigError, match="cannot be parted"):
        DecodeConfig(beam_size=4, beam_groups=3)
    with pytest.raises(ConfigError, match="what is left of the vocabulary"):
        search(0, beam_size=2, must_include=("ab",), logit_bias={1: -100.0, 2: -100.0, 3: -100.0, 4: -100.0})


def test_a_banned_phrase_is_missed_but_not_in_silence() -> None:
    """A ban wins over a phrase; the text then runs to its limit."""
    (best,) = search(0, beam_size=3, must_include=("a",), logit_bias={1: -100.0})
    assert "a" not in best.text
    assert best.finish_reason == "length"
