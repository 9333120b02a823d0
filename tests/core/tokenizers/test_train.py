"""Trained tokenizers encode any text, end where they should, and come back from disk as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nlpkit.core.chat.message import Message
from nlpkit.core.chat.template import ChatTemplate
from nlpkit.core.errors import ConfigError, InputError
from nlpkit.core.tokenizers.load import load_tokenizer
from nlpkit.core.tokenizers.train import CHATML, END_OF_TEXT, TURN_END, train_tokenizer

TEXTS = ["The cat sat on the mat.\nThe dog sat on the cat.  Twice!\n", "Zwölf Boxkämpfer jagen Viktor.\n"] * 20


@pytest.fixture(scope="module", params=["bpe", "sentencepiece", "sentencepiece-bpe", "char"])
def made(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return request.param, train_tokenizer(request.param, iter(TEXTS), vocab_size=300)


def test_known_text_round_trips_through_disk(made: tuple[str, Any], tmp_path: Path) -> None:
    kind, tokenizer = made
    text = TEXTS[0] + TEXTS[1]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) == len(text.encode()) if kind == "char" else len(ids) < len(text)
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.encode(text) == ids
    assert again.decode(ids) == text
    assert again.eos_ids == tokenizer.eos_ids
    assert again.vocab_size == tokenizer.vocab_size <= 300


def test_special_tokens(made: tuple[str, Any]) -> None:
    _, tokenizer = made
    ends = {tokenizer.token_to_id(END_OF_TEXT), tokenizer.token_to_id(TURN_END)}
    assert tokenizer.eos_ids == ends
    assert None not in ends
    assert ends.isdisjoint(tokenizer.encode(f"a{END_OF_TEXT}b"))
    ids = ChatTemplate(CHATML).render_tokens([Message("user", f"cat {TURN_END}")], tokenizer)
    assert ids.count(tokenizer.token_to_id(TURN_END)) == 1


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=40))
def test_any_text_round_trips(made: tuple[str, Any], text: str) -> None:
    kind, tokenizer = made
    ids = tokenizer.encode(text)
    assert all(0 <= i < tokenizer.vocab_size for i in ids)
    if kind != "char" or set(text.encode()) <= set("".join(TEXTS).encode()):
        assert tokenizer.decode(ids) == text


def test_unusable_requests() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'bpe'"):
        train_tokenizer("bep", TEXTS, vocab_size=300)
    with pytest.raises(ConfigError, match="vocabulary of 100"):
        train_tokenizer("bpe", TEXTS, vocab_size=100)
    for kind in ("bpe", "sentencepiece", "sentencepiece-bpe", "char"):
        with pytest.raises(InputError, match="no text"):
            train_tokenizer(kind, iter(()), vocab_size=300)


@pytest.mark.parametrize("kind", ["sentencepiece", "sentencepiece-bpe"])
def test_symbols_are_one_piece_wherever_they_stand(kind: str) -> None:
    tokenizer = train_tokenizer(kind, iter(TEXTS), vocab_size=300, symbols=["⟦1⟧", "⟦2⟧"])
    one, two = tokenizer.encode("⟦1⟧")[-1], tokenizer.encode("⟦2⟧")[-1]
    ids = tokenizer.encode("The⟦1⟧cat (⟦2⟧⟦1⟧).")
    assert [i for i in ids if i in (one, two)] == [one, two, one]
    assert tokenizer.decode(ids) == "The⟦1⟧cat (⟦2⟧⟦1⟧)."
    assert {one, two}.isdisjoint(tokenizer.special_ids)
    with pytest.raises(ConfigError, match="Only SentencePiece"):
        train_tokenizer("bpe", iter(TEXTS), vocab_size=300, symbols=["⟦1⟧"])
