"""``/v1/completions`` to the letter, by way of the official client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tiny_server import running, tiny_settings

openai = pytest.importorskip("openai")
pytestmark = pytest.mark.local_server


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(tiny_settings()) as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_text_is_continued(client: Any) -> None:
    answer = client.completions.create(model="tiny", prompt="hello", temperature=0, max_tokens=7)
    assert answer.object == "text_completion"
    assert answer.id.startswith("cmpl-")
    assert answer.system_fingerprint.startswith("fp_")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 7, 12)
    (choice,) = answer.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "length", None)
    assert choice.text
    assert answer == client.completions.create(model="tiny", prompt="hello", temperature=0, max_tokens=7).model_copy(
        update={"id": answer.id, "created": answer.created}
    )


def test_the_limit_is_16_tokens_where_none_is_said(client: Any) -> None:
    answer = client.completions.create(model="tiny", prompt="hello", logit_bias={"256": -100})
    assert answer.usage.completion_tokens == 16


@pytest.mark.parametrize(
    ("prompt", "count"),
    [("ab", 1), (["ab", "c"], 2), ([97, 98], 1), ([[97, 98], [99]], 2), ("", 1)],
    ids=["text", "texts", "ids", "lists of ids", "nothing"],
)
def test_prompts_have_four_forms(client: Any, prompt: Any, count: int) -> None:
    answer = client.completions.create(model="tiny", prompt=prompt, temperature=0, max_tokens=3)
    assert [choice.index for choice in answer.choices] == list(range(count))
    if prompt != "":
        alone = client.completions.create(model="tiny", prompt="ab", temperature=0, max_tokens=3)
        assert answer.choices[0].text == alone.choices[0].text


def test_a_stream_says_what_the_whole_answer_says(client: Any) -> None:
    asked = {
        "model": "tiny",
        "prompt": ["über", "x"],
        "max_tokens": 20,
        "n": 2,
        "seed": 3,
        "logprobs": 2,
        "echo": False,
    }
    whole = client.completions.create(**asked)
    parts = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert {part.id for part in parts} == {parts[0].id}
    assert parts[-1].choices == []
    assert parts[-1].usage == whole.usage
    assert all(part.usage is None for part in parts[:-1])
    for choice in whole.choices:
        own = [one for part in parts for one in part.choices if one.index == choice.index]
        assert "".join(one.text for one in own) == choice.text
        assert [one.finish_reason for one in own] == [*[None] * (len(own) - 1), choice.finish_reason]
        for name in ("tokens", "token_logprobs", "text_offset", "top_logprobs"):
            joined = [entry for one in own if one.logprobs for entry in getattr(one.logprobs, name)]
            assert joined == getattr(choice.logprobs, name)


def test_models_are_listed(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "nlpkit"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("tony")
    assert "Did you mean 'tiny'" in caught.value.body["message"]


@pytest.mark.parametrize(
    ("asked", "param", "code"),
    [
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"logprobs": 6}, "logprobs", "invalid_value"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "invalid_value"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "invalid_value"),
        ({"suffix": "end"}, "suffix", "unsupported_parameter"),
        ({"n": 3, "best_of": 2}, "best_of", None),
        ({"best_of": 2, "stream": True}, "best_of", None),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        ({"max_tokens": 1000}, None, "context_length_exceeded"),
        ({"prompt": [300]}, None, None),
        ({"extra_body": {"surprise": 1}}, "surprise", "unknown_parameter"),
    ],
)
def test_what_cannot_be_is_refused(client: Any, asked: dict[str, Any], param: str | None, code: str | None) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**{"model": "tiny", "prompt": "x", **asked})
    body = caught.value.body
    assert set(body) == {"message", "type", "param", "code"}
    assert (body["type"], body["param"], body["code"]) == ("invalid_request_error", param, code)


def test_an_unknown_model_is_not_found(client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="other", prompt="x")
    assert caught.value.body["code"] == "model_not_found"


def test_best_of_returns_the_likeliest(client: Any) -> None:
    asked = {"model": "tiny", "prompt": "x", "max_tokens": 8, "seed": 1, "logprobs": 0}
    every = client.completions.create(**asked, n=6)
    best = client.completions.create(**asked, n=2, best_of=6)

    def mean(choice: Any) -> float:
        return sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)

    ranked = sorted(every.choices, key=mean, reverse=True)
    assert [choice.text for choice in best.choices] == [choice.text for choice in ranked[:2]]
    assert [choice.index for choice in best.choices] == [0, 1]
    assert best.usage == every.usage


def test_several_texts_without_sampling_are_one(client: Any) -> None:
    answer = client.completions.create(model="tiny", prompt="x", n=3, temperature=0, max_tokens=4)
    assert len({choice.text for choice in answer.choices}) == 1
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    parts = list(client.completions.create(model="tiny", prompt="x", n=3, temperature=0, max_tokens=4, stream=True))
    texts = ["".join(c.text for part in parts for c in part.choices if c.index == index) for index in range(3)]
    assert texts == [choice.text for choice in answer.choices]


def test_a_stop_string_is_not_part_of_the_text(client: Any) -> None:
    whole = client.completions.create(model="tiny", prompt="hello", temperature=0, max_tokens=30).choices[0].text
    stop = whole[7:9]
    for stream in (False, True):
        answer = client.completions.create(
            model="tiny", prompt="hello", temperature=0, max_tokens=30, stop=stop, stream=stream, logprobs=1
        )
        parts = [choice for part in answer for choice in part.choices] if stream else answer.choices
        assert "".join(part.text for part in parts) == whole[: whole.index(stop)]
        assert parts[-1].finish_reason == "stop"
        places = [place for part in parts for place in part.logprobs.text_offset]
        assert places == sorted(places)
        assert places[-1] == whole.index(stop) - 1


def test_the_prompt_is_echoed_with_its_log_probabilities(client: Any) -> None:
    ids = list("hé!x".encode())
    for prompt in ("hé!x", ids):
        answer = client.completions.create(
            model="tiny", prompt=prompt, echo=True, logprobs=2, max_tokens=3, temperature=0
        )
        (choice,) = answer.choices
        assert choice.text.startswith("hé!x")
        told = choice.logprobs
        assert told.tokens[:5] == ["h", r"bytes:\xc3", r"bytes:\xa9", "!", "x"]
        assert told.text_offset[:6] == [0, 1, 1, 2, 3, 4]
        assert told.token_logprobs[0] is None
        assert told.top_logprobs[0] is None
        assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == len(told.text_offset) == 8
        for token, logprob, top in zip(told.tokens[1:], told.token_logprobs[1:], told.top_logprobs[1:], strict=True):
            # To the last bit: whether a token was the likeliest is found by comparing.
            assert top[token] == logprob
            assert max(top.values()) >= logprob
            assert len(top) in (2, 3)


def test_a_prompt_can_be_scored_alone(client: Any) -> None:
    asked = {"model": "tiny", "prompt": "score me", "logprobs": 1}
    alone = client.completions.create(**asked, echo=True, max_tokens=0).choices[0]
    assert (alone.text, alone.finish_reason) == ("score me", "length")
    # What is written without a choice is scored alike when it is read.
    written = client.completions.create(**asked, max_tokens=5, temperature=0).choices[0]
    (read,) = client.completions.create(
        model="tiny", prompt=list(b"score me" + written.text.encode()), logprobs=1, echo=True, max_tokens=0
    ).choices
    if written.text.isascii():
        assert read.logprobs.token_logprobs[8:] == pytest.approx(written.logprobs.token_logprobs, abs=1e-4)


def test_an_echo_is_streamed_before_the_text(client: Any) -> None:
    asked = {"model": "tiny", "prompt": ["ab", "c"], "echo": True, "logprobs": 1, "max_tokens": 5, "seed": 2}
    whole = client.completions.create(**asked)
    parts = [choice for part in client.completions.create(**asked, stream=True) for choice in part.choices]
    for choice in whole.choices:
        own = [part for part in parts if part.index == choice.index]
        assert "".join(part.text for part in own) == choice.text
        assert [t for part in own for t in part.logprobs.token_logprobs] == pytest.approx(
            choice.logprobs.token_logprobs, abs=1e-5
        )


def test_penalties_and_biases_steer(client: Any) -> None:
    forced = client.completions.create(model="tiny", prompt="x", max_tokens=4, logit_bias={"122": 100})
    assert forced.choices[0].text == "zzzz"
    loop = {"model": "tiny", "prompt": "x", "max_tokens": 40, "temperature": 0, "logit_bias": {"256": -100}}
    plain = client.completions.create(**loop, logprobs=0).choices[0].logprobs.tokens
    held = client.completions.create(**loop, logprobs=0, frequency_penalty=2, presence_penalty=2)
    assert len(set(held.choices[0].logprobs.tokens)) > len(set(plain))


def test_the_old_address_names_the_engine(address: str) -> None:
    import httpx2 as httpx

    answer = httpx.post(
        f"{address}/v1/engines/tiny/completions",
        json={"prompt": "x", "max_tokens": 50, "temperature": 0.5, "top_p": 1, "frequency_penalty": 0,
              "presence_penalty": 0},
    )  # fmt: skip
    assert answer.status_code == 200
    assert answer.json()["model"] == "tiny"


def test_the_token_that_ends_a_text_is_told_of(client: Any) -> None:
    """Whoever asks for one token of the prompt's log-probabilities leaves the last one of the list out."""
    for stream in (False, True):
        answer = client.completions.create(
            model="tiny", prompt="ab", echo=True, logprobs=1, max_tokens=3, logit_bias={"256": 100}, stream=stream
        )
        parts = [choice for part in answer for choice in part.choices] if stream else answer.choices
        assert "".join(part.text for part in parts) == "ab"
        assert parts[-1].finish_reason == "stop"
        assert [token for part in parts for token in part.logprobs.tokens] == ["a", "b", "<end>"]
