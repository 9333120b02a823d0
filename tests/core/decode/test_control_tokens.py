"""Special tokens in texts: each end of a text ends it, and no other is ever written, by no way of decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from table_runner import engine_of
from tiny_models import ToyTokenizer

from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.constraint import Constraint
from nlpkit.core.decode.request import Completion, Request
from nlpkit.core.decode.special_ids import SpecialIds
from nlpkit.core.errors import ModelFileError

VOCAB, END, OTHER_END, CONTROL, BOS = 29, 0, 27, 28, 26
WAYS: dict[str, dict[str, object]] = {
    "greedy": {},
    "sampling": {"temperature": 1.5, "seed": 3, "n": 8},
    "sampling with filters": {"temperature": 1.0, "seed": 3, "n": 8, "top_k": 2, "top_p": 0.9},
    "penalties": {"repetition_penalty": 1.1, "presence_penalty": 0.1},
    "guesses": {"speculation": "prompt"},
    "sampled guesses": {"speculation": "prompt", "temperature": 1.0, "seed": 1},
    "beams": {"beam_size": 4, "n": 4},
    "diverse beams": {"beam_size": 4, "beam_groups": 2, "n": 4},
    "phrases": {"beam_size": 4, "n": 4, "must_include": ("cab", "d")},
    "contrastive": {"contrastive_alpha": 0.5, "top_k": 3},
    "minimum": {"min_tokens": 4},
    "minimum with beams": {"min_tokens": 4, "beam_size": 3, "n": 3},
}


class ChatTokenizer(ToyTokenizer):
    """Has two ends, a beginning, and a token that begins a turn."""

    def __init__(self) -> None:
        super().__init__(VOCAB)
        self.eos_ids = frozenset({END, OTHER_END})
        self.bos_id = BOS  # type: ignore[assignment]
        self.special_ids = frozenset({END, OTHER_END, CONTROL})


def run(table: Callable[[Sequence[int]], torch.Tensor], **options: object) -> list[Completion]:
    config = DecodeConfig(**{"max_tokens": 12, **options})  # type: ignore[arg-type]
    engine = engine_of(table, VOCAB, ChatTokenizer())
    ((_, generation),) = list(engine.generate([Request(prompt_ids=(1, 2, 3, 1, 2), config=config)]))
    return list(generation.completions)


def likes(*token_ids: int, among: Sequence[int] = (1, 2, 3, 4)) -> Callable[[Sequence[int]], torch.Tensor]:
    """A model that likes some tokens best, then a few letters, by a margin that depends on the last token."""

    def table(ids: Sequence[int]) -> torch.Tensor:
        logits = torch.full((VOCAB,), -8.0)
        for place, token_id in enumerate(among):
            logits[token_id] = 0.3 * ((place + ids[-1]) % len(among))
        for place, token_id in enumerate(token_ids):
            logits[token_id] = 6.0 - place
        return logits

    return table


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wanted", [CONTROL, BOS])
def test_control_tokens_are_never_written(way: str, wanted: int) -> None:
    for completion in run(likes(wanted), **WAYS[way]):
        assert not {CONTROL, BOS} & set(completion.token_ids)
        assert completion.token_ids


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", [END, OTHER_END])
def test_every_end_ends_a_text(way: str, end: int) -> None:
    for completion in run(likes(CONTROL, end), **WAYS[way]):
        assert not {END, OTHER_END} & set(completion.token_ids[:-1])
        if completion.finish_reason == "eos":
            assert completion.token_ids[-1] in (END, OTHER_END)
    best = run(likes(CONTROL, end), **WAYS[way])[0]
    assert best.finish_reason == "eos"
    assert len(best.token_ids) >= WAYS[way].get("min_tokens", 0)  # type: ignore[operator]


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 0}, {"beam_size": 3}])
def test_a_bias_lets_a_control_token_through(options: dict[str, object]) -> None:
    (completion,) = run(likes(CONTROL), logit_bias={CONTROL: 0.0}, ignore_eos=True, **options)
    assert CONTROL in completion.token_ids


@pytest.mark.parametrize("options", [{}, {"beam_size": 3}])
def test_constraints_go_on_without_control_tokens(options: dict[str, object]) -> None:
    pytest.importorskip("llguidance")
    (completion,) = run(likes(CONTROL), constraint=Constraint.choice("ab", "cd"), **options)
    assert completion.text in ("ab", "cd")


def test_reported_probabilities_are_the_models_own() -> None:
    """The ban decides what is chosen, not what the model said of it."""
    expected = torch.log_softmax(likes(CONTROL)([1, 2, 3, 1, 2]), -1)
    for options in ({}, {"beam_size": 3}):
        (completion,) = run(likes(CONTROL), ignore_eos=True, **options)
        assert completion.logprobs[0] == pytest.approx(float(expected[completion.token_ids[0]]), abs=1e-5)


@pytest.mark.parametrize("mass", [30.0, 90.0])
def test_beams_rank_by_what_is_left_after_bans(mass: float) -> None:
    """Also where nearly all of the probability was banned."""

    def table(ids: Sequence[int]) -> torch.Tensor:
        logits = torch.full((VOCAB,), -float("inf"))
        logits[CONTROL] = mass
        logits[1], logits[2] = 1.0, 0.0
        return logits

    (completion,) = run(table, beam_size=2, max_tokens=3)
    assert completion.token_ids == (1, 1, 1)
    one = float(torch.log_softmax(torch.tensor([1.0, 0.0]), -1)[0])
    assert completion.score == pytest.approx(one, abs=1e-4)


def test_an_end_that_is_not_marked_as_special_is_no_text() -> None:
    class Plain(ToyTokenizer):
        def __init__(self) -> None:
            super().__init__(VOCAB)
            self.eos_ids = frozenset({5})

    def table(ids: Sequence[int]) -> torch.Tensor:
        logits = torch.full((VOCAB,), -20.0)
        logits[(*b"\x08\x09", 5)[min(len(ids) - 1, 2)]] = 0.0
        return logits

    engine = engine_of(table, VOCAB, Plain())
    for options in ({}, {"beam_size": 2}, {"contrastive_alpha": 0.2, "top_k": 2}):
        config = DecodeConfig(max_tokens=6, **options)  # type: ignore[arg-type]
        ((_, generation),) = list(engine.generate([Request(prompt_ids=(1,), config=config)]))
        assert generation.completions[0].text == "hi"
        assert generation.completions[0].finish_reason == "eos"


def test_special_ids_of_a_tokenizer() -> None:
    assert SpecialIds.of(ChatTokenizer()) == SpecialIds(frozenset({END, OTHER_END}), frozenset({CONTROL, BOS}))
    assert SpecialIds.of(ToyTokenizer(9)).control == frozenset()


class SpelledTokenizer(ChatTokenizer):
    """Its special tokens can be spelled."""

    def token_to_id(self, text: str) -> int | None:
        return CONTROL if text == "<|turn|>" else super().token_to_id(text)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("more", [{}, {"ignore_eos": True}], ids=["plain", "ignoring ends"])
def test_a_stop_string_may_spell_a_special_token(way: str, more: dict[str, object]) -> None:
    config = DecodeConfig(**{"max_tokens": 12, "stop": ("<|turn|>",), **WAYS[way], **more})  # type: ignore[arg-type]
    engine = engine_of(likes(CONTROL), VOCAB, SpelledTokenizer())
    ((_, generation),) = list(engine.generate([Request(prompt_ids=(1, 2, 3, 1, 2), config=config)]))
    best = generation.completions[0]
    assert best.finish_reason == "stop"
    assert CONTROL not in best.token_ids[:-1]
    assert len(best.token_ids) >= WAYS[way].get("min_tokens", 0)  # type: ignore[operator]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("way", ["greedy", "beams", "contrastive"])
def test_a_model_that_computes_no_numbers_is_refused(way: str, bad: float) -> None:
    def table(ids: Sequence[int]) -> torch.Tensor:
        return torch.full((VOCAB,), bad)

    with pytest.raises(ModelFileError, match="no numbers"):
        run(table, **WAYS[way])
