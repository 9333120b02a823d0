"""Where tokens stand in what is shown of a text, whatever the tokenizer puts in front of one."""

from __future__ import annotations

import httpx2 as httpx
import pytest
from spaced_tokenizers import ALL, TEXT
from tiny_models import tiny_config, tiny_gpt
from tiny_server import TEMPLATE, running, tiny_lm, tiny_models, tiny_settings

from nlpkit.apps.serve.openai.tokens import GrowingTokens, ShownToken, TokenPlaces, token_text
from nlpkit.core.chat.template import ChatTemplate
from nlpkit.core.language_model import LanguageModel
from nlpkit.core.runners.gpt import GPTRunner
from nlpkit.core.tokenizers.stream import decode_behind

TOKENIZERS = pytest.mark.parametrize("name", ALL)


@TOKENIZERS
def test_each_token_stands_where_it_is_said_to(name: str) -> None:
    tokenizer = ALL[name]()
    ids = tokenizer.encode(TEXT)
    for cut in range(1, len(ids)):
        prompt_ids, rest = ids[:cut], ids[cut:]
        text = decode_behind(tokenizer, prompt_ids, rest)
        places = TokenPlaces(tokenizer, prompt_ids=prompt_ids, offset=7)
        begins = [places.next(token_id) - 7 for token_id in rest]
        pieces = [text[begin:end] for begin, end in zip(begins, [*begins[1:], None], strict=True)]
        assert pieces == [token_text(tokenizer, token_id) for token_id in rest]


@TOKENIZERS
def test_a_stop_string_cuts_off_the_tokens_behind_it(name: str) -> None:
    tokenizer = ALL[name]()
    ids = tokenizer.encode(TEXT)
    prompt_ids, rest = ids[:4], ids[4:]
    for kept in range(1, len(rest)):
        growing = GrowingTokens(tokenizer, prompt_ids, wanted=True)
        for token_id in rest:
            growing.add(ShownToken(token_id, -1.0))
        shown = growing.take(decode_behind(tokenizer, prompt_ids, rest[:kept]))
        assert [token.token_id for token, _ in shown] == rest[:kept]


@pytest.mark.local_server
def test_answers_say_so() -> None:
    tokenizer = ALL["sentencepiece"]()
    word = next(i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) == b" the")
    base = tiny_lm()
    model = tiny_gpt(tiny_config(vocab_size=tokenizer.vocab_size, max_seq_len=256))
    settings = tiny_settings()
    models = tiny_models(
        settings, lambda name: LanguageModel(base.facts, lambda: GPTRunner(model), tokenizer, ChatTemplate(TEMPLATE))
    )
    asked = {"model": "tiny", "logit_bias": {str(word): 100}, "max_tokens": 6}
    with running(settings, models) as address:
        for echo in (False, True):
            body = {**asked, "prompt": "a day", "logprobs": 0, "echo": echo}
            (choice,) = httpx.post(f"{address}/v1/completions", json=body).json()["choices"]
            told = choice["logprobs"]
            assert choice["text"] == "a day" * echo + " the" * 6
            for token, place in list(zip(told["tokens"], told["text_offset"], strict=True))[-6:]:
                assert choice["text"][place : place + 4] == token == " the"
        body = {**asked, "messages": [{"role": "user", "content": "hive"}], "logprobs": True, "stop": "the the"}
        (choice,) = httpx.post(f"{address}/v1/chat/completions", json=body).json()["choices"]
        # The space belongs to the token whose other characters the stop string cut off.
        assert choice["message"]["content"] == " "
        assert [one["token"] for one in choice["logprobs"]["content"]] == [" the"]
