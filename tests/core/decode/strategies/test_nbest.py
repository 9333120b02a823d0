"""What a search gives: its order, how texts differ, where they stop, and how sure the model was."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from table_runner import engine_of, says
from tiny_models import ToyTokenizer, tiny_engine

from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.request import Completion, Generation, Request
from nlpkit.core.decode.stops import StopState, StopStates
from nlpkit.core.decode.strategies.ranking import best_tokens
from nlpkit.core.tokenizers.bpe import HFTokenizer
from nlpkit.core.tokenizers.stream import StopMatcher, StreamDecoder
from nlpkit.core.tokenizers.train import train_tokenizer

VOCAB = 29


class SpaceTokenizer(ToyTokenizer):
    """Tokens 20 to 25 are spelled as tokens 1 to 6 are; token 26 is a space."""

    def token_bytes(self, token_id: int) -> bytes:
        return b" " if token_id == 26 else super().token_bytes(token_id - 19 if 20 <= token_id <= 25 else token_id)


def run(
    table: Callable[[Sequence[int]], torch.Tensor], *, tokenizer: ToyTokenizer | None = None, **options: object
) -> list[Completion]:
    config = DecodeConfig(**options)  # type: ignore[arg-type]
    engine = engine_of(table, VOCAB, tokenizer or ToyTokenizer(VOCAB))
    ((_, generation),) = list(engine.generate([Request(prompt_ids=(1,), config=config)]))
    return list(generation.completions)


def test_ended_texts_come_before_those_that_were_cut() -> None:
    """Though the cut one scores better."""

    def table(ids: Sequence[int]) -> torch.Tensor:
        probs = torch.full((VOCAB,), 1e-9)
        probs[1] = 0.6 if len(ids) == 1 else 0.95
        probs[0] = 1 - float(probs[1])
        return probs.log()

    completions = run(table, beam_size=2, n=2, max_tokens=5)
    assert [completion.finish_reason for completion in completions] == ["eos", "eos"]
    first, second = (completion.score or 0.0 for completion in completions)
    assert first >= second
    assert run(table, beam_size=2, max_tokens=5)[0].finish_reason == "eos"


def ambiguous(ids: Sequence[int]) -> torch.Tensor:
    """Spells the likeliest text in four ways, each likelier than any other text; all end after two tokens."""
    logits = torch.full((VOCAB,), -20.0)
    if len(ids) == 3:
        logits[0] = 0.0
        return logits
    logits[1], logits[20], logits[2], logits[21], logits[3] = 2.0, 1.9, 0.0, -0.1, -1.0
    return logits


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [4, 6])
def test_alternatives_are_different_texts(size: int, n: int) -> None:
    tokenizer = SpaceTokenizer(VOCAB)
    completions = run(ambiguous, tokenizer=tokenizer, beam_size=size, n=n, max_tokens=6)
    texts = [completion.text for completion in completions]
    assert texts[0] == "aa"
    assert len(set(texts)) == len(texts)
    assert [completion.index for completion in completions] == list(range(len(texts)))
    scores = [completion.score or 0.0 for completion in completions]
    assert scores == sorted(scores, reverse=True)
    # The best one does not depend on how many are wanted.
    assert completions[0] == run(ambiguous, tokenizer=tokenizer, beam_size=size, max_tokens=6)[0]


def test_texts_that_differ_in_white_space_around_them_are_the_same() -> None:
    def table(ids: Sequence[int]) -> torch.Tensor:
        logits = torch.full((VOCAB,), -20.0)
        if len(ids) > 1 and ids[-1] == 26:
            logits[0] = 0.0
        elif len(ids) > 1:
            logits[0], logits[26] = 0.0, -0.2
        else:
            logits[1], logits[2] = 0.0, -2.0
        return logits

    texts = [c.text for c in run(table, tokenizer=SpaceTokenizer(VOCAB), beam_size=3, n=2, max_tokens=5)]
    assert [text.strip() for text in texts] == ["a", "b"]


def test_nothing_is_asked_for_and_as_often_given() -> None:
    completions = run(ambiguous, beam_size=3, n=3, max_tokens=0)
    assert [(one.index, one.text, one.finish_reason) for one in completions] == [(i, "", "length") for i in range(3)]


@pytest.mark.parametrize("options", [{}, {"beam_size": 3}, {"beam_size": 4, "beam_groups": 2}])
@pytest.mark.parametrize(
    ("stops", "minimum", "text", "n_tokens"),
    [
        (("bc",), 0, "a", 3),
        (("bc",), 5, "abcdefghij", 11),  # over before token 5
        (("ef",), 5, "abcd", 6),  # complete with token 6
        (("cdef", "de"), 0, "abc", 5),  # the one that ends first
        (("de", "cde"), 0, "ab", 5),  # the longer of two that end together
        (("bcb", "cd"), 3, "ab", 4),
        (("j",), 0, "abcdefghi", 10),
        (("ij",), 11, "abcdefghij", 11),
    ],
)
def test_stop_strings(
    options: dict[str, object], stops: tuple[str, ...], minimum: int, text: str, n_tokens: int
) -> None:
    """All ways of decoding have one rule."""
    best = run(says("abcdefghij", n_prompt=1), max_tokens=14, min_tokens=minimum, stop=stops, **options)[0]
    if minimum == 11:
        assert best.text.startswith(text)
    else:
        assert (best.text, len(best.token_ids)) == (text, n_tokens)
        assert best.finish_reason == ("eos" if n_tokens == 11 else "stop")


TEXT = "The house of the cheese maker stands near the river. Über den Käse sagt man: 日本の家は川の近くにある。\n" * 5


def test_stop_states_find_what_the_text_holds() -> None:
    tokenizer = train_tokenizer("bpe", [TEXT], vocab_size=400)
    assert isinstance(tokenizer, HFTokenizer)
    generator = torch.Generator().manual_seed(0)
    for stops in (("se", "Käse"), ("\n",), (" ",), ("日本", "の家"), ("aab", "ab"), ("é", "r\n")):
        for _ in range(40):
            ids = torch.randint(tokenizer.vocab_size, (25,), generator=generator).tolist()
            if int(torch.randint(2, (1,), generator=generator)):
                ids = tokenizer.encode(TEXT[:60])[:25]
            states, state, at = StopStates(stops, tokenizer), None, None
            decoder, matcher, expected = StreamDecoder(tokenizer), StopMatcher(stops), None
            known: StopState | None = state
            for place, token_id in enumerate(ids):
                known, found = states.after(known, token_id)
                at = place if found and at is None else at
                if matcher.feed(decoder.feed(token_id))[1] and expected is None:
                    expected = place
            # A broken character is known as such only with the next token; stop strings have none.
            assert at == expected


@pytest.mark.parametrize("options", [{}, {"beam_size": 4, "n": 3}, {"temperature": 1.0, "seed": 2}])
def test_how_sure_the_model_was(options: dict[str, object]) -> None:
    engine = tiny_engine()
    request = Request(prompt_ids=(3, 4, 5), config=DecodeConfig(max_tokens=9, **options))  # type: ignore[arg-type]
    ((_, generation),) = list(engine.generate([request]))
    for completion in generation.completions:
        (score,) = engine.score([(request.prompt_ids, completion.token_ids)])
        assert completion.n_tokens == len(completion.token_ids) == len(completion.logprobs)
        assert completion.logprob == pytest.approx(score.logprob, abs=1e-3)
        assert completion.mean_logprob == pytest.approx(score.logprob / completion.n_tokens, abs=1e-4)
        assert completion.min_logprob == pytest.approx(min(score.token_logprobs), abs=1e-4)
    empty = Completion(text="", token_ids=(), logprobs=(), finish_reason="length")
    assert (empty.mean_logprob, empty.min_logprob, empty.n_tokens) == (0.0, 0.0, 0)


def test_beams_report_alternatives() -> None:
    engine = tiny_engine()

    def generated(**options: object) -> Generation:
        config = DecodeConfig(max_tokens=5, logprobs=3, **options)  # type: ignore[arg-type]
        ((_, generation),) = list(engine.generate([Request(prompt_ids=(3, 4), config=config)]))
        return generation

    for completion in generated(beam_size=3, n=3).completions:
        assert [len(step) for step in completion.top_logprobs] == [3] * len(completion.token_ids)
        for token_id, logprob, best in zip(
            completion.token_ids, completion.logprobs, completion.top_logprobs, strict=True
        ):
            assert best[0][1] >= logprob - 1e-5
            assert dict(best).get(token_id, logprob) == pytest.approx(logprob, abs=1e-5)
    greedy = generated().completions[0]
    first = generated(beam_size=2).completions[0].top_logprobs[0]
    assert dict(first) == pytest.approx(dict(greedy.top_logprobs[0]), abs=1e-5)


@pytest.mark.parametrize("n", [5, 4096, 4100, 8192])
@pytest.mark.parametrize("k", [1, 4, 16])
def test_best_tokens(n: int, k: int) -> None:
    values = torch.randn(7, n, generator=torch.Generator().manual_seed(n + k))
    values[2, 3:] = -torch.inf
    found, places = best_tokens(values, k)
    assert torch.equal(found, values.topk(min(k, n)).values)
    assert torch.equal(values.gather(1, places), found)
    assert all(len(set(row)) == len(row) for row in places.tolist())
