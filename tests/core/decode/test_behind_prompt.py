"""Prompt and completion, joined, are the text of their tokens: no space is lost between them, in any way of decoding."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from spaced_tokenizers import ALL, TEXT, words
from table_runner import LogitsOf, engine_of

from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.constraint import Constraint
from nlpkit.core.decode.request import Completion, Request
from nlpkit.core.tokenizers.bpe import HFTokenizer
from nlpkit.core.tokenizers.sentencepiece import SentencePieceTokenizer

KINDS = {**ALL, "words": words}
PROMPT, REST = "the queen lays", " eggs in a day"
WAYS: dict[str, dict[str, object]] = {
    "greedy": {},
    "sampling": {"temperature": 0.1, "seed": 1},
    "guesses": {"speculation": "prompt"},
    "beams": {"beam_size": 3, "n": 2},
    "contrastive": {"contrastive_alpha": 0.2, "top_k": 2},
    "a stop behind it": {"stop": (" and",)},
    "beams and a stop": {"beam_size": 3, "stop": (" and",)},
}


def writes(ids: Sequence[int], vocab_size: int, n_prompt: int) -> LogitsOf:
    """A model that writes these tokens behind a prompt, and ends."""

    def logits_of(seen: Sequence[int]) -> torch.Tensor:
        logits, at = torch.full((vocab_size,), -20.0), len(seen) - n_prompt
        logits[ids[at] if at < len(ids) else 2] = 0.0
        return logits

    return logits_of


def completed(
    tokenizer: HFTokenizer | SentencePieceTokenizer, whole: Sequence[int], n_prompt: int, **options: object
) -> tuple[Completion, str]:
    """The best completion of the first tokens of a text by the others, and what comes of it piece by piece."""
    engine = engine_of(writes(whole[n_prompt:], tokenizer.vocab_size, n_prompt), tokenizer.vocab_size, tokenizer)
    config = DecodeConfig(**{"max_tokens": len(whole) + 5, **options})  # type: ignore[arg-type]
    request = Request(prompt_ids=tuple(whole[:n_prompt]), config=config)
    ((_, generation),) = list(engine.generate([request]))
    done = generation.completions[0]
    if config.beam_size > 1:
        return done, done.text
    return done, "".join(event.text for event in engine.stream(request))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_prompt_and_completion_are_the_text_of_their_tokens(kind: str, way: str) -> None:
    tokenizer = KINDS[kind]()
    prompt, whole = (tokenizer.encode(text, add_bos=True) for text in (PROMPT, PROMPT + REST))
    done, streamed = completed(tokenizer, whole, len(prompt), **WAYS[way])
    assert done.text == streamed == REST


@pytest.mark.parametrize("kind", KINDS)
def test_the_start_of_a_text(kind: str) -> None:
    """Behind nothing but bos, the space that the encoder put in front is taken off."""
    tokenizer = KINDS[kind]()
    whole = tokenizer.encode(TEXT, add_bos=True)
    done, streamed = completed(tokenizer, whole, 1)
    assert done.text == streamed == tokenizer.decode(whole)


@pytest.mark.parametrize("way", ["a stop behind it", "beams and a stop"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_string_that_begins_with_the_space(kind: str, way: str) -> None:
    tokenizer = KINDS[kind]()
    prompt, whole = (tokenizer.encode(text, add_bos=True) for text in (PROMPT, PROMPT + REST))
    done, streamed = completed(tokenizer, whole, len(prompt), **{**WAYS[way], "stop": (" eggs",)})
    assert (done.text, streamed, done.finish_reason) == ("", "", "stop")


@pytest.mark.parametrize("kind", ["sentencepiece", "without_prefix", "prepend", "first", "never"])
def test_a_constraint_is_the_form_of_the_text(kind: str) -> None:
    tokenizer = KINDS[kind]()
    prompt, whole = (tokenizer.encode(text, add_bos=True) for text in (PROMPT, PROMPT + " eggs"))
    done, _ = completed(tokenizer, whole, len(prompt), constraint=Constraint.choice(" eggs", "eggs"))
    assert done.text == " eggs"
    assert done.token_ids[:-1] == tuple(whole[len(prompt) :])
