"""``/v1/chat/completions`` and ``/v1/embeddings``, by way of the official client."""

from __future__ import annotations

import base64
import json
import math
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
from tiny_server import running, tiny_lm, tiny_models, tiny_settings

from nlpkit.apps.serve.openai.chat import plan_chat
from nlpkit.apps.serve.openai.chat_bodies import ChatBody

openai = pytest.importorskip("openai")
pytestmark = pytest.mark.local_server
ASKED: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 9}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(tiny_settings()) as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_conversation_is_answered(client: Any) -> None:
    answer = client.chat.completions.create(**ASKED, temperature=0)
    assert answer.object == "chat.completion"
    (choice,) = answer.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "length", None)
    assert (choice.message.role, choice.message.refusal) == ("assistant", None)
    assert answer.usage.prompt_tokens == len("<user>hi\n<assistant>")
    # It is what the prompt's own text is continued with.
    raw = client.completions.create(model="tiny", prompt="<user>hi\n<assistant>", max_tokens=9, temperature=0)
    assert choice.message.content == raw.choices[0].text


def test_roles_and_parts_become_messages(client: Any) -> None:
    messages = [
        {"role": "developer", "content": "be"},
        {"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "b", "name": "me"},
    ]
    answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=1)
    assert answer.usage.prompt_tokens == len("<system>be\n<user>hi\n<assistant>a\n<user>b\n<assistant>")


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("temperature", [0, 1])
def test_a_stream_says_what_the_whole_answer_says(client: Any, n: int, temperature: float) -> None:
    asked = {**ASKED, "n": n, "seed": 4, "temperature": temperature, "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert {(chunk.id, chunk.created, chunk.object) for chunk in chunks} == {
        (chunks[0].id, chunks[0].created, "chat.completion.chunk")
    }
    assert chunks[-1].choices == []
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    for choice in whole.choices:
        own = [one for chunk in chunks for one in chunk.choices if one.index == choice.index]
        assert own[0].delta.role == "assistant"
        assert own[0].delta.content == ""
        assert own[-1].delta.content is None
        assert [one.finish_reason for one in own] == [*[None] * (len(own) - 1), choice.finish_reason]
        assert "".join(one.delta.content or "" for one in own) == choice.message.content
        told = [entry for one in own if one.logprobs for entry in one.logprobs.content]
        assert [entry.token for entry in told] == [entry.token for entry in choice.logprobs.content]
        assert all(len(entry.top_logprobs) == 2 for entry in told)
        assert all(entry.bytes for entry in told)


def test_the_answer_fills_what_is_left_of_the_context(client: Any) -> None:
    answer = client.chat.completions.create(model="tiny", messages=ASKED["messages"], logit_bias={"256": -100})
    assert answer.usage.total_tokens == 256


def test_an_answer_without_a_limit_keeps_others_no_room() -> None:
    settings = tiny_settings(batch_tokens=400)
    models = tiny_models(settings, lambda name: tiny_lm(name, max_seq_len=4096))
    asked = {"model": "tiny", "messages": ASKED["messages"], "logit_bias": {"256": -100, "97": 100}}
    with running(settings, models) as address:
        answer = httpx.post(f"{address}/v1/chat/completions", json={**asked, "n": 5}, timeout=60).json()
        assert answer["usage"]["completion_tokens"] == 5 * (400 // 5 - 20)
        assert [choice["finish_reason"] for choice in answer["choices"]] == ["length"] * 5
    settings = tiny_settings()
    models = tiny_models(settings, lambda name: tiny_lm(name, max_seq_len=4096))
    with models.lend("tiny") as loaded:
        body = ChatBody.model_validate(asked)
        assert plan_chat(body, loaded.engine, loaded.lm).request.config.max_tokens == 1024
        long = body.model_copy(update={"max_tokens": 3000})
        assert plan_chat(long, loaded.engine, loaded.lm).request.config.max_tokens == 3000
    models.close()


def test_answers_can_be_json(client: Any) -> None:
    pytest.importorskip("llguidance")
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "number", "schema": schema, "strict": True}}
    for temperature in (0, 1):
        answer = client.chat.completions.create(
            **{**ASKED, "max_completion_tokens": 100}, temperature=temperature, response_format=wanted, seed=1
        )
        if answer.choices[0].finish_reason == "stop":
            assert isinstance(json.loads(answer.choices[0].message.content)["n"], int)
    answer = client.chat.completions.create(**ASKED, response_format={"type": "json_object"})
    assert answer.choices[0].message.content.lstrip().startswith("{")


@pytest.mark.parametrize(
    ("asked", "param", "code"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "unsupported_parameter"),
        ({"top_logprobs": 2}, "top_logprobs", None),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages", "invalid_value"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", "invalid_value"),
        ({"response_format": {"type": "xml"}}, "response_format", "invalid_value"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "no"}}}},
            None,
            None,
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {
                        "name": "a",
                        "schema": {"type": "string", "pattern": "^((a{1000}){1000}){10}$"},
                    },
                }
            },
            None,
            None,
        ),
        ({"max_completion_tokens": 1000}, None, "context_length_exceeded"),
    ],
)
def test_what_cannot_be_is_refused(client: Any, asked: dict[str, Any], param: str | None, code: str | None) -> None:
    began = time.process_time()
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{**ASKED, **asked})
    assert time.process_time() - began < 2
    assert (caught.value.body["param"], caught.value.body["code"]) == (param, code)


def test_embeddings_are_means_of_length_one(client: Any) -> None:
    texts = ["hello", "hello there", "x"]
    answer = client.embeddings.create(model="tiny", input=texts, encoding_format="float")
    assert [one.index for one in answer.data] == [0, 1, 2]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(map(len, texts))
    for one in answer.data:
        assert len(one.embedding) == 32
        assert math.isclose(sum(value * value for value in one.embedding), 1, abs_tol=1e-6)
    # The client asks for base64 where nothing is said, and reads it.
    usual = client.embeddings.create(model="tiny", input=list(b"hello"))
    assert usual.data[0].embedding == pytest.approx(answer.data[0].embedding, abs=1e-6)
    coded = client.embeddings.with_raw_response.create(model="tiny", input="hello", encoding_format="base64")
    numbers = struct.unpack("<32f", base64.b64decode(json.loads(coded.text)["data"][0]["embedding"]))
    assert numbers == pytest.approx(answer.data[0].embedding, abs=1e-6)
    with pytest.raises(openai.BadRequestError, match="have 32"):
        client.embeddings.create(model="tiny", input="x", dimensions=8)


def test_refused_embeddings_leave_no_work_behind() -> None:
    settings = tiny_settings()
    models = tiny_models(settings)
    with running(settings, models) as address, models.lend("tiny") as loaded:
        wait = threading.Event()
        models.thread.call(lambda: wait.wait(20))
        answer = httpx.post(f"{address}/v1/embeddings", json={"model": "tiny", "input": [[1] * 256] * 9 + [[999]]})
        wait.set()
        assert answer.status_code == 400
        models.thread.call(lambda: None).result(20)
        assert not loaded.engine.reader.busy
