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
