"""What happens around each request: the door, the queue, limits, counts, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2 as httpx
import pytest
from starlette.routing import Route
from tiny_server import running, tiny_lm, tiny_models, tiny_settings

from nlpkit.apps.serve.app import build_app
from nlpkit.apps.serve.models import ServedModels
from nlpkit.apps.serve.settings import ServedModel
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.request import Request

pytestmark = pytest.mark.local_server
LONG = {"model": "tiny", "prompt": "x", "max_tokens": 250, "logit_bias": {"256": -100}}


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something is true."""
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never became true")


def settle(models: ServedModels) -> None:
    """Wait until nothing runs; fail where something does for long."""
    for _ in range(1000):
        if all(not one.users and not one.engine.busy and not one.engine.n_slots for one in models.loaded.values()):
            return
        time.sleep(0.01)
    raise AssertionError({name: (one.users, one.engine.n_slots) for name, one in models.loaded.items()})


class Slow:
    """Slows a tiny model down, so that there is time for things to happen."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, name: str) -> Any:
        lm = tiny_lm(name)
        lm.engine.prefixes = None
        make = lm.engine._new_runner

        def new_runner() -> Any:
            runner = make()
            extend = runner.extend

            def slow(*arguments: Any, **options: Any) -> Any:
                time.sleep(self.seconds)
                return extend(*arguments, **options)

            runner.extend = slow  # type: ignore[method-assign]
            return runner

        lm.engine._new_runner = new_runner
        return lm


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(tiny_settings(allowed_hosts=("models.example",), max_body_bytes=100_000)) as address:
        yield address


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:80", 200),
        ("LOCALHOST:8000", 200),
        ("[::1]:8000", 200),
        ("models.example", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("10.0.0.1", 421),
        ("", 421),
    ],
)
def test_only_its_own_names_are_answered(address: str, host: str, status: int) -> None:
    answer = httpx.get(f"{address}/health", headers={"Host": host})
    assert answer.status_code == status
    if status == 421:
        assert answer.json()["error"]["code"] == "wrong_host"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:PORT", 200),
        ("http://localhost:PORT", 200),
        ("http://[::1]:PORT", 200),
        ("http://models.example:PORT", 200),
        ("https://models.example", 200),
        ("http://127.0.0.1", 403),
        ("http://localhost:3000", 403),
        ("http://[::1]:3000", 403),
        ("moz-extension://5b1c", 200),
        ("https://evil.example", 403),
        ("http://localhost.evil.example", 403),
        ("null", 403),
    ],
)
def test_other_pages_cannot_send(address: str, origin: str, status: int) -> None:
    body = json.dumps({"model": "tiny", "prompt": "x", "max_tokens": 1})
    headers = {"Origin": origin.replace("PORT", address.rpartition(":")[2]), "Content-Type": "text/plain"}
    assert httpx.post(f"{address}/v1/completions", content=body, headers=headers).status_code == status


@pytest.mark.parametrize(("origin", "status"), [("http://localhost", 200), ("http://localhost:8000", 403)])
def test_a_host_without_a_port_has_the_usual_one(address: str, origin: str, status: int) -> None:
    headers = {"Origin": origin, "Host": "localhost"}
    assert httpx.post(f"{address}/detect", json={"q": "x"}, headers=headers).status_code == status


def test_other_pages_get_no_leave_to_read(address: str) -> None:
    for method in ("OPTIONS", "GET"):
        answer = httpx.request(method, f"{address}/v1/models", headers={"Origin": "http://evil.example"})
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_keys_open_the_door() -> None:
    keys = frozenset({hashlib.sha256(b"secret").digest(), hashlib.sha256(b"other").digest()})
    with running(tiny_settings(api_keys=keys)) as address:
        for key in ("secret", "other"):
            assert httpx.get(f"{address}/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
            answer = httpx.get(f"{address}/v1/models", headers=header)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert httpx.get(f"{address}/metrics", headers=header).status_code == 401
        assert httpx.get(f"{address}/health").status_code == 200


def test_long_bodies_are_refused(address: str) -> None:
    body = json.dumps({"model": "tiny", "prompt": "x" * 200_000})
    assert httpx.post(f"{address}/v1/completions", content=body).status_code == 413

    def pieces() -> Iterator[bytes]:
        for _ in range(30):
            yield b"x" * 10_000

    answer = httpx.post(f"{address}/v1/completions", content=pieces())
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'"x"', b"{", b"\xff\xfe", b'{"model": NaN}', b"[" * 100_000, b'{"a":' * 5000]
)
def test_what_is_no_object_is_refused(address: str, body: bytes) -> None:
    answer = httpx.post(f"{address}/v1/completions", content=body)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_endless_headers_are_cut_off(address: str) -> None:
    with contextlib.suppress(httpx.TransportError):
        answer = httpx.get(f"{address}/health", headers={"X-Long": "x" * 200_000})
        assert answer.status_code == 400
    assert httpx.get(f"{address}/health").status_code == 200


def test_unknown_addresses_and_methods_are_refused(address: str) -> None:
    assert httpx.get(f"{address}/v2/models").status_code == 404
    answer = httpx.get(f"{address}/v1/completions")
    assert answer.status_code == 405
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_the_interface_describes_itself(address: str) -> None:
    document = httpx.get(f"{address}/openapi.json").json()
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    # The page, what describes the interface, and another address of the same.
    others = {"/", "/favicon.ico", "/page/{name}", "/docs", "/openapi.json", "/v1/engines/{engine:path}/completions"}
    models = tiny_models(tiny_settings())
    models.close()
    app = build_app(tiny_settings(), models=models)
    served = {
        (method, route.path.replace(":path", ""))
        for route in app.routes
        if isinstance(route, Route) and route.path not in others
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert described == served
    page = httpx.get(f"{address}/docs").text
    assert "presence_penalty" in page
    assert "http://" not in page.replace("http://127", "")
    assert "https://" not in page
    assert "<script" not in page


def test_requests_are_counted_by_route(address: str) -> None:
    httpx.post(f"{address}/v1/completions", json={"model": "tiny", "prompt": "abc", "max_tokens": 4})
    httpx.get(f"{address}/secret/path")
    wait_for(lambda: 'route="unknown",status="404"' in httpx.get(f"{address}/metrics").text)
    text = httpx.get(f"{address}/metrics").text
    assert 'nlpkit_requests_total{route="/v1/completions",status="200"}' in text
    assert 'route="unknown",status="404"' in text
    assert "secret" not in text
    assert 'nlpkit_tokens_total{kind="completion"}' in text
    assert 'nlpkit_slots{model="tiny"} 0.0' in text
    assert "nlpkit_first_token_seconds_count" in text


def test_the_log_holds_no_texts(address: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="nlpkit.serve"):
        httpx.post(f"{address}/v1/completions", json={"model": "tiny", "prompt": "hush", "max_tokens": 4, "user": "me"})
        # The answer is there before the line.
        wait_for(lambda: [record for record in caplog.records if record.name == "nlpkit.serve"])
    (line,) = [json.loads(record.message) for record in caplog.records if record.name == "nlpkit.serve"]
    assert (line["route"], line["status"], line["model"]) == ("/v1/completions", 200, "tiny")
    assert line["prompt_tokens"] == 4
    assert "hush" not in json.dumps(line)


def test_more_than_the_house_holds_are_sent_away() -> None:
    settings = tiny_settings(queue=3)
    with running(settings, tiny_models(settings, Slow(0.01))) as address:
        answers: list[httpx.Response] = []

        def ask() -> None:
            answers.append(httpx.post(f"{address}/v1/completions", json={**LONG, "max_tokens": 60}, timeout=60))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(refused) == 5
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
        assert {answer.status_code for answer in answers} == {200, 429}
        assert httpx.post(f"{address}/v1/completions", json={**LONG, "max_tokens": 2}).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_whoever_hangs_up_frees_the_slot(stream: bool) -> None:
    settings = tiny_settings()
    models = tiny_models(settings, Slow(0.01))
    with running(settings, models) as address:
        with httpx.Client() as client, pytest.raises(httpx.TimeoutException):
            # The answer takes more than two seconds.
            client.post(f"{address}/v1/completions", json=LONG, timeout=0.3)
        if stream:
            with httpx.stream("POST", f"{address}/v1/completions", json={**LONG, "stream": True}) as answer:
                next(answer.iter_lines())
        began = time.monotonic()
        settle(models)
        assert time.monotonic() - began < 1.5


def test_a_request_that_takes_too_long_is_given_up() -> None:
    settings = tiny_settings(timeout=0.3)
    models = tiny_models(settings, Slow(0.02))
    with running(settings, models) as address:
        answer = httpx.post(f"{address}/v1/completions", json=LONG)
        assert answer.status_code == 504
        assert answer.json()["error"]["code"] == "timeout"
        streamed = httpx.post(f"{address}/v1/completions", json={**LONG, "stream": True})
        *_, last, end = [line for line in streamed.text.splitlines() if line]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "timeout"
        assert end == "data: [DONE]"
        settle(models)


def test_streams_are_ended_with_a_word() -> None:
    settings = tiny_settings()
    models = tiny_models(settings, Slow(0.02))
    with running(settings, models) as address:
        with httpx.stream("POST", f"{address}/v1/completions", json={**LONG, "stream": True}) as answer:
            lines = answer.iter_lines()
            next(lines)
            models.end()
            *_, last, end = [line for line in lines if line]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "shutting_down"
        assert end == "data: [DONE]"
        assert httpx.get(f"{address}/ready").status_code == 503
        refused = httpx.post(f"{address}/v1/completions", json=LONG)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "shutting_down"


def test_64_streams_at_once_are_what_each_is_alone() -> None:
    settings = tiny_settings()
    models = tiny_models(settings)

    def asked(number: int) -> tuple[str, int]:
        return f"number {number}", 6 + number % 9

    async def ask(client: httpx.AsyncClient, number: int) -> str:
        prompt, length = asked(number)
        body = {"model": "tiny", "prompt": prompt, "max_tokens": length, "temperature": 0, "stream": True}
        answer = await client.post("/v1/completions", json=body, timeout=60)
        parts = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        return "".join(part["choices"][0]["text"] for part in parts)

    async def go(address: str) -> None:
        async with httpx.AsyncClient(base_url=address, limits=httpx.Limits(max_connections=64)) as client:
            together = await asyncio.gather(*[ask(client, number) for number in range(64)])
        lm = tiny_lm()
        for number in range(64):
            prompt, length = asked(number)
            request = Request(prompt_ids=tuple(prompt.encode()), config=DecodeConfig(max_tokens=length))
            ((_, alone),) = lm.generate([request])
            assert together[number] == alone.completions[0].text

    with running(settings, models) as address:
        asyncio.run(go(address))
        settle(models)


def test_models_are_loaded_when_asked_for_and_go_when_memory_is_short() -> None:
    size = int(tiny_lm().facts.n_parameters * 4)
    served = tuple(ServedModel(id=name, name=name) for name in ("a", "b", "c"))
    settings = tiny_settings(models=served, memory_bytes=2 * size)
    loaded: list[str] = []

    def load(name: str) -> Any:
        loaded.append(name)
        return tiny_lm(name, seed=ord(name))

    models = tiny_models(settings, load)
    with running(settings, models) as address:

        def ask(name: str) -> str:
            body = {"model": name, "prompt": "x", "temperature": 0, "max_tokens": 8}
            return str(httpx.post(f"{address}/v1/completions", json=body).json()["choices"][0]["text"])

        texts = {name: ask(name) for name in "ab"}
        assert list(models.loaded) == ["a", "b"]
        with models.lend("a"):
            texts["c"] = ask("c")
            # b was used later than a, but a is at work.
            assert list(models.loaded) == ["a", "c"]
            assert ask("b") == texts["b"]
            assert list(models.loaded) == ["a", "b"]
        assert [ask(name) for name in "abc"] == list(texts.values())
        assert loaded == ["a", "b", "c", "b", "c"]
        assert len(set(texts.values())) == 3
