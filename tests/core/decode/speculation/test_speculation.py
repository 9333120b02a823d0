"""Speculation: the same texts in fewer passes, and hardly any cost where guesses fail."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from counting_runner import CountingRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import ToyTokenizer, tiny_config, tiny_engine, tiny_gpt

from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.constraint import Constraint
from nlpkit.core.decode.engine import Engine
from nlpkit.core.decode.loop import Loop
from nlpkit.core.decode.request import Completion, Request
from nlpkit.core.decode.speculation.draft_model import DraftModel
from nlpkit.core.decode.speculation.drafter import Draft, Drafter, Sought
from nlpkit.core.decode.speculation.prompt_lookup import PromptLookup
from nlpkit.core.decode.speculation.speculator import MARGIN, WIDTHS, Experience, PassCost, Speculator
from nlpkit.core.errors import ConfigError
from nlpkit.core.runners.gpt import GPTRunner

MODEL = tiny_gpt(tiny_config(max_seq_len=256))
PLAIN = tiny_engine(max_seq_len=256)


class Free(PassCost):
    """Drafts as if wider passes cost nothing."""

    def known(self, n_rows: int) -> bool:
        return True

    def ratio(self, n_rows: int, drafted: int, *, costly: bool) -> float:
        return 1.0

    def widest(self, n_rows: int, *, costly: bool) -> int:
        return WIDTHS[-1]


class Oracle:
    """Guesses from known texts, wrong now and then if so asked."""

    costly = False

    def __init__(self, texts: dict[tuple[int, ...], Sequence[int]], *, wrong: float = 0.0) -> None:
        self.texts = texts
        self.wrong = wrong
        self.rng = random.Random(0)
        self.dropped: list[tuple[int, int]] = []

    def draft(self, sought: Sequence[Sought]) -> list[Draft]:
        drafts = []
        for one in sought:
            text, start = self.texts[tuple(one.prompt_ids)], len(one.token_ids)
            right = text[start : start + one.most]
            drafts.append(Draft([(t + 1) % 29 if self.rng.random() < self.wrong else t for t in right]))
        return drafts

    def drop(self, key: tuple[int, int]) -> None:
        self.dropped.append(key)


class Clock:
    """Time that passes with the work of a runner: 1 for a plain pass, and a share of it for each further position."""

    def __init__(self, runner: CountingRunner, *, per_position: float) -> None:
        self.runner = runner
        self.per_position = per_position

    def __call__(self) -> float:
        return sum(1 + self.per_position * (max(rows) - 1) for rows in self.runner.passes)


def generate(engine: Engine, requests: Sequence[Request]) -> list[tuple[Completion, ...]]:
    results = dict(engine.generate(requests))
    return [results[i].completions for i in range(len(requests))]


def eager() -> Engine:
    """An engine that drafts at every occasion."""
    engine = tiny_engine(max_seq_len=256)
    engine.experience.cost = Free()
    return engine


def run(loop: Loop, requests: Sequence[Request]) -> dict[int, Completion]:
    tickets = {loop.submit(one): i for i, one in enumerate(requests)}
    done = {}
    while not loop.idle:
        for event in loop.step():
            if event.completion is not None:
                done[tickets[event.ticket]] = event.completion
    return done


def facts(completions: Sequence[Completion]) -> list[tuple[object, ...]]:
    return [(c.text, c.token_ids, c.finish_reason, c.index, c.seed) for c in completions]


def prompt(rng: random.Random, most: int = 40) -> tuple[int, ...]:
    """A prompt that repeats itself here and there, so that there is something to look up."""
    piece = [rng.randrange(29) for _ in range(rng.randint(1, 8))]
    return tuple([*piece, *(rng.randrange(29) for _ in range(rng.randint(0, 9))), *piece][:most])


def odd_only(generated: Sequence[int]) -> torch.Tensor:
    return torch.arange(29) % 2 == 1


def mixed(seed: int, count: int, speculation: str) -> list[Request]:
    rng = random.Random(seed)
    requests = []
    for _ in range(count):
        config = rng.choice(
            [
                DecodeConfig(max_tokens=40, ignore_eos=True),
                DecodeConfig(max_tokens=rng.randint(1, 5)),
                DecodeConfig(max_tokens=30, temperature=0.7, seed=rng.randrange(99), top_p=0.9, top_k=5),
                DecodeConfig(max_tokens=20, temperature=0.5, seed=3, n=3, ignore_eos=True),
                DecodeConfig(max_tokens=30, stop=("ab", "c", "zz"), ignore_eos=True, logprobs=2),
                DecodeConfig(max_tokens=25, frequency_penalty=0.4, presence_penalty=0.5, min_tokens=9),
                DecodeConfig(max_tokens=25, repetition_penalty=1.2, no_repeat_ngram=4, temperature=0.4, seed=1),
                DecodeConfig(max_tokens=20, logit_bias={0: -100.0, 7: 3.0}),
                DecodeConfig(max_tokens=12, beam_size=3),
            ]
        )
        token_filter = odd_only if rng.random() < 0.2 and not config.logit_bias and config.beam_size == 1 else None
        requests.append(
            Request(prompt_ids=prompt(rng), config=config.replace(speculation=speculation), token_filter=token_filter)
        )
    return requests


@pytest.mark.property
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 8))
def test_texts_are_those_of_plain_decoding(seed: int, count: int) -> None:
    expected = generate(PLAIN, mixed(seed, count, "none"))
    engine = eager()
    got = generate(engine, mixed(seed, count, "prompt"))
    assert [facts(one) for one in got] == [facts(one) for one in expected]
    for completions, plain in zip(got, expected, strict=True):
        for one, other in zip(completions, plain, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
            assert [[t for t, _ in step] for step in one.top_logprobs] == [
                [t for t, _ in step] for step in other.top_logprobs
            ]


@pytest.mark.property
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), wrong=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_right_and_wrong_guesses_change_nothing(seed: int, wrong: float) -> None:
    rng = random.Random(seed)
    prompts = list({prompt(rng) for _ in range(5)})
    config = DecodeConfig(max_tokens=30, ignore_eos=rng.random() < 0.5, temperature=rng.choice([0.0, 0.8]), seed=seed)
    requests = [Request(prompt_ids=ids, config=config.replace(max_tokens=10 + i * 4)) for i, ids in enumerate(prompts)]
    expected = generate(PLAIN, requests)
    texts = {one.prompt_ids: completions[0].token_ids for one, completions in zip(requests, expected, strict=True)}
    oracle, experience = Oracle(texts, wrong=wrong), Experience(cost=Free())
    runner = CountingRunner(MODEL)
    loop = Loop(runner, ToyTokenizer(29), speculator=Speculator({"prompt": oracle}, experience))
    hinted = [Request(prompt_ids=one.prompt_ids, config=one.config.replace(speculation="prompt")) for one in requests]
    done = run(loop, hinted)
    assert [facts([done[i]]) for i in range(len(requests))] == [facts(one) for one in expected]
    assert sorted(set(oracle.dropped)) == sorted(oracle.dropped)
    if wrong == 0.0:
        assert experience.accepted == experience.drafted
    if wrong == 1.0:
        assert experience.accepted == 0


def test_right_guesses_save_passes() -> None:
    config = DecodeConfig(max_tokens=120, ignore_eos=True)
    request = Request(prompt_ids=(3, 1, 4), config=config)
    ((plain,),) = generate(PLAIN, [request])
    runner = CountingRunner(MODEL)
    oracle = Oracle({(3, 1, 4): plain.token_ids})
    loop = Loop(runner, ToyTokenizer(29), speculator=Speculator({"prompt": oracle}, Experience(cost=Free())))
    done = run(loop, [Request(prompt_ids=(3, 1, 4), config=config.replace(speculation="prompt"))])
    assert done[0].token_ids == plain.token_ids
    # The prompt, a pass for each 16 guesses and the token after them, and what is left.
    assert len(runner.passes) <= 1 + 119 // 17 + 3


def test_a_text_that_repeats_itself_is_written_in_few_passes() -> None:
    runners: list[CountingRunner] = []

    def new_runner() -> CountingRunner:
        runners.append(CountingRunner(MODEL))
        return runners[-1]

    engine = Engine(new_runner, ToyTokenizer(29))
    engine.experience.cost = Free()
    # The bias makes one token win always: a loop of length one.
    config = DecodeConfig(max_tokens=100, logit_bias={5: 100.0}, speculation="prompt")
    ((done,),) = generate(engine, [Request(prompt_ids=(1, 2), config=config)])
    assert done.token_ids == (5,) * 100
    assert len(runners[-1].passes) < 20
    assert engine.experience.accepted > 80


@pytest.mark.parametrize("per_position", [0.02, 0.3, 1.0])
@pytest.mark.parametrize("n_rows", [1, 6])
def test_guesses_that_always_fail_cost_next_to_nothing(per_position: float, n_rows: int) -> None:
    requests = [
        Request(prompt_ids=(i + 1, 2), config=DecodeConfig(max_tokens=200, ignore_eos=True, speculation="prompt"))
        for i in range(n_rows)
    ]
    texts = {one.prompt_ids: completions[0].token_ids for one, completions in zip(requests, generate(PLAIN, [
        Request(prompt_ids=one.prompt_ids, config=one.config.replace(speculation="none")) for one in requests
    ]), strict=True)}  # fmt: skip
    runner = CountingRunner(MODEL)
    clock = Clock(runner, per_position=per_position)
    speculator = Speculator({"prompt": Oracle(texts, wrong=1.0)}, Experience(), clock=clock)
    done = run(Loop(runner, ToyTokenizer(29), speculator=speculator), requests)
    assert all(done[i].token_ids == texts[one.prompt_ids] for i, one in enumerate(requests))
    decoding = [rows for rows in runner.passes if max(rows) < 20][1:]
    lost = sum(per_position * (max(rows) - 1) for rows in decoding)
    assert lost <= 0.05 * 200


@pytest.mark.parametrize(("per_position", "gain"), [(0.02, 5.0), (0.2, 2.0)])
def test_guesses_that_come_true_are_soon_made_long(per_position: float, gain: float) -> None:
    request = Request(prompt_ids=(3, 1), config=DecodeConfig(max_tokens=200, ignore_eos=True))
    ((plain,),) = generate(PLAIN, [request])
    runner = CountingRunner(MODEL)
    clock = Clock(runner, per_position=per_position)
    speculator = Speculator({"prompt": Oracle({(3, 1): plain.token_ids})}, Experience(), clock=clock)
    hinted = Request(prompt_ids=(3, 1), config=request.config.replace(speculation="prompt"))
    done = run(Loop(runner, ToyTokenizer(29), speculator=speculator), [hinted])
    assert done[0].token_ids == plain.token_ids
    assert clock() < 200 / gain


def test_a_row_is_tried_again_after_a_while() -> None:
    experience = Experience(cost=Free())
    request = Request(prompt_ids=(3, 1), config=DecodeConfig(max_tokens=250, ignore_eos=True, speculation="prompt"))
    ((plain,),) = generate(PLAIN, [Request(prompt_ids=(3, 1), config=DecodeConfig(max_tokens=250, ignore_eos=True))])
    oracle = Oracle({(3, 1): plain.token_ids}, wrong=1.0)
    runner = CountingRunner(MODEL)
    loop = Loop(runner, ToyTokenizer(29), speculator=Speculator({"prompt": oracle}, experience))
    ticket = loop.submit(request)
    tokens = 0
    while tokens < 60:
        tokens += len(loop.step())
    assert 0 < sum(max(rows) > 1 for rows in runner.passes[1:]) < 9
    oracle.wrong = 0.0
    left = len(runner.passes)
    while not loop.idle:
        loop.step()
    assert ticket == 0
    assert len(runner.passes) - left < 190 / 3


def brute_force(tokens: Sequence[int], most: int, longest: int) -> tuple[list[int], int]:
    for n in range(min(longest, len(tokens)), 0, -1):
        for end in range(len(tokens) - 1, n - 1, -1):
            if list(tokens[end - n : end]) == list(tokens[len(tokens) - n :]):
                guess: list[int] = []
                whole = list(tokens)
                for i in range(most):
                    guess.append(whole[end + i])
                    whole.append(guess[-1])
                return guess, n
    return [], 0


@pytest.mark.property
@settings(deadline=None)
@given(
    ids=st.lists(st.integers(0, 3), min_size=2, max_size=30),
    cuts=st.lists(st.integers(1, 5), max_size=8),
    most=st.integers(1, 9),
    longest=st.integers(1, 4),
)
def test_prompt_lookup_finds_the_last_longest_match(ids: list[int], cuts: list[int], most: int, longest: int) -> None:
    drafter = PromptLookup(longest=longest)
    n_prompt = max(1, len(ids) // 2)
    ends = [n_prompt + 1]
    for cut in cuts:
        ends.append(min(len(ids), ends[-1] + cut))
    for end in ends:
        sought = Sought((0, 0), ids[:n_prompt], ids[n_prompt:end], most)
        other = Sought((1, 0), ids[:n_prompt][::-1], ids[n_prompt:end], most)
        draft, _ = drafter.draft([sought, other])
        guess, kind = brute_force(ids[:end], most, longest)
        assert (list(draft.token_ids), draft.kind) == (guess, kind)
    drafter.drop((0, 0))
    drafter.drop((5, 5))
    assert list(drafter._indices) == [(1, 0)]


def test_the_cost_of_wider_passes_is_learnt() -> None:
    cost = PassCost()
    assert not cost.known(1)
    for _ in range(5):
        cost.measured(1, 0, 0.010)
    cost.measured(1, 0, 0.5)  # the machine was busy with something else
    assert cost.known(1)
    assert not cost.known(2)
    before = cost.ratio(1, 8, costly=False)
    for _ in range(20):
        cost.measured(1, 4, 0.030, costly=False)
        cost.measured(1, 0, 0.010)
    assert cost.ratio(1, 4, costly=False) == pytest.approx(3.0, rel=0.1)
    assert cost.ratio(1, 8, costly=False) == pytest.approx(5.0, rel=0.1)
    assert cost.ratio(1, 8, costly=True) > before
    # One pass that was disturbed says little, and nothing where a wider one was quicker.
    cost.measured(1, 12, 0.200)
    assert cost.ratio(1, 12, costly=False) < 13
    cost.measured(1, 16, 0.025)
    assert cost.ratio(1, 12, costly=False) == pytest.approx(2.5)
    # What was long ago is forgotten bit by bit.
    for _ in range(700):
        cost.measured(1, 0, 0.010)
    assert cost.ratio(1, 8, costly=False) == pytest.approx(before, rel=0.01)


def draft_engine(seed: int, *, eager: bool = True) -> tuple[Engine, list[CountingRunner]]:
    runners: list[CountingRunner] = []

    def new_runner() -> CountingRunner:
        runners.append(CountingRunner(MODEL))
        return runners[-1]

    engine = Engine(new_runner, ToyTokenizer(29))
    engine.draft_with(tiny_engine(max_seq_len=256, seed=seed))
    if eager:
        engine.experience.cost = Free()
    return engine, runners


@pytest.mark.property
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 6))
def test_a_draft_model_changes_no_text(seed: int, count: int) -> None:
    expected = generate(PLAIN, mixed(seed, count, "none"))
    engine, _ = draft_engine(1)
    requests = [
        Request(
            prompt_ids=one.prompt_ids,
            config=one.config.replace(speculation=("draft", "prompt", "none")[i % 3]),
            token_filter=one.token_filter,
        )
        for i, one in enumerate(mixed(seed, count, "none"))
    ]
    assert [facts(one) for one in generate(engine, requests)] == [facts(one) for one in expected]


def test_a_draft_model_that_is_the_model_itself_is_always_right() -> None:
    engine, runners = draft_engine(0)
    prompts = [(3, 1, 4), (5,), (9, 2, 6, 5, 3)]
    config = DecodeConfig(max_tokens=60, speculation="draft")
    got = generate(engine, [Request(prompt_ids=ids, config=config) for ids in prompts])
    plain = [Request(prompt_ids=ids, config=config.replace(speculation="none")) for ids in prompts]
    assert [facts(one) for one in got] == [facts(one) for one in generate(PLAIN, plain)]
    assert engine.experience.accepted == engine.experience.drafted
    assert len(runners[-1].passes) < sum(len(one.token_ids) for (one,) in got) / 9


def test_a_bad_draft_model_is_soon_left_alone() -> None:
    asked = []
    draft = DraftModel.draft

    class Watched(DraftModel):
        def draft(self, sought: Sequence[Sought]) -> list[Draft]:
            asked.append(len(sought))
            return draft(self, sought)

    speculator = Speculator(
        {"draft": Watched(GPTRunner(tiny_gpt(tiny_config(max_seq_len=256), seed=7)), vocab_size=29)},
        Experience(),
        clock=(clock := iter(range(10**6))).__next__,
    )
    del clock
    loop = Loop(GPTRunner(MODEL), ToyTokenizer(29), speculator=speculator)
    config = DecodeConfig(max_tokens=200, ignore_eos=True, speculation="draft", temperature=1.5, seed=0)
    run(loop, [Request(prompt_ids=(3, 1), config=config)])
    assert 0 < len(asked) < 40


def test_the_draft_model_forgets_what_was_refused() -> None:
    model = tiny_gpt(tiny_config(max_seq_len=64), seed=3)
    drafter: Drafter = DraftModel(GPTRunner(model), vocab_size=29)

    def greedy(ids: list[int], count: int) -> list[int]:
        grown = list(ids)
        for _ in range(count):
            grown.append(int(model(torch.tensor([grown]))[0, -1].argmax()))
        return grown[len(ids) :]

    rng = random.Random(0)
    texts = {(i, 0): [rng.randrange(29) for _ in range(4 + i)] for i in range(4)}
    written: dict[tuple[int, int], list[int]] = {key: [1] for key in texts}
    for step in range(8):
        keys = [key for key in texts if rng.random() < 0.7]
        sought = [Sought(key, texts[key], written[key], rng.randint(1, 5)) for key in keys]
        for one, draft in zip(sought, drafter.draft(sought), strict=True):
            assert list(draft.token_ids) == greedy([*texts[one.key], *written[one.key]], one.most)
            # Some of the guess stands, then comes something else.
            written[one.key] += [*draft.token_ids[: rng.randint(0, one.most)], rng.randrange(29)]
        if step == 4:
            drafter.drop((1, 0))
            del texts[1, 0]
    # Where the draft model's context ends, it has nothing to say.
    long = Sought((9, 0), [1] * 60, [2], 5)
    assert drafter.draft([long])[0].token_ids == ()


def test_guesses_beyond_the_vocabulary_are_cut() -> None:
    model = tiny_gpt(tiny_config(max_seq_len=64), seed=3)
    whole = DraftModel(GPTRunner(model), vocab_size=29).draft([Sought((0, 0), [1, 2], [3], 8)])[0].token_ids
    limit = max(whole)
    cut = DraftModel(GPTRunner(model), vocab_size=limit).draft([Sought((0, 0), [1, 2], [3], 8)])[0].token_ids
    assert list(cut) == list(whole)[: list(whole).index(limit)]


def test_a_draft_model_must_be_there_and_fit() -> None:
    request = Request(prompt_ids=(1,), config=DecodeConfig(max_tokens=3, speculation="draft"))
    with pytest.raises(ConfigError, match="no draft model"):
        PLAIN.generate([request])
    with pytest.raises(ConfigError, match="another tokenizer"):
        tiny_engine().draft_with(tiny_engine(vocab_size=31))
    with pytest.raises(ConfigError, match="Did you mean 'prompt'"):
        DecodeConfig(speculation="promt")  # type: ignore[arg-type]


def test_a_constraint_holds_while_guesses_are_verified() -> None:
    pytest.importorskip("llguidance")
    config = DecodeConfig(max_tokens=40, constraint=Constraint.regex("(abc|abd){4,9}"))
    requests = [Request(prompt_ids=(1, 2, 3, 1, 2, 4, 1, 2), config=config.replace(seed=s)) for s in range(3)]
    hinted = [Request(prompt_ids=one.prompt_ids, config=one.config.replace(speculation="prompt")) for one in requests]
    engine = eager()
    assert [facts(one) for one in generate(engine, hinted)] == [facts(one) for one in generate(PLAIN, requests)]
    assert engine.experience.accepted > 0


def test_a_filter_is_never_asked_beyond_the_end() -> None:
    def before_the_end(generated: Sequence[int]) -> torch.Tensor:
        assert list(generated[-2:]) != [5, 6]
        assert 0 not in generated
        return torch.arange(29) == (6 if len(generated) % 8 == 7 else 5)

    prompt_ids = (5,) * 7 + (6,) + (5,) * 7 + (6, 5, 5)
    config = DecodeConfig(max_tokens=40, stop=("ef",), speculation="prompt")
    ((done,),) = generate(eager(), [Request(prompt_ids=prompt_ids, config=config, token_filter=before_the_end)])
    assert (done.finish_reason, done.text) == ("stop", "e" * 6)


def test_the_end_of_the_context_is_reached_and_not_passed() -> None:
    config = DecodeConfig(max_tokens=156, logit_bias={5: 100.0}, speculation="prompt")
    long = Request(prompt_ids=(5,) * 100, config=config)
    short = Request(prompt_ids=(5, 5), config=config.replace(max_tokens=200))
    (one,), (other,) = generate(eager(), [long, short])
    assert one.token_ids == (5,) * 156
    assert other.token_ids == (5,) * 200


def test_streams_speculate_token_by_token() -> None:
    config = DecodeConfig(max_tokens=30, logit_bias={5: 100.0}, stop=("eeeeeeeeeeeee",), speculation="prompt")
    request = Request(prompt_ids=(5, 5), config=config)
    events = list(eager().stream(request))
    assert [event.token_id for event in events] == [5] * 13
    assert events[-1].completion is not None
    assert "".join(event.text for event in events) == events[-1].completion.text == ""
    assert events[-1].completion.finish_reason == "stop"


def test_widths_and_margin_are_sane() -> None:
    assert list(WIDTHS) == sorted(WIDTHS)
    assert MARGIN > 1
