"""Tasks over HTTP: their own fields in, the fields of ``--json`` out, and clear refusals."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

import httpx2 as httpx
import pytest
from tiny_server import running, tiny_lm, tiny_models, tiny_settings

from nlpkit.apps.serve.tasks.bodies import MOST_ROWS, TaskOptions
from nlpkit.apps.serve.tasks.routes import task_endpoints
from nlpkit.apps.tasks.table import task_names
from nlpkit.apps.toolkit import Toolkit
from nlpkit.core.decode.config import DecodeConfig

pytestmark = pytest.mark.local_server
SHORT = {"max_tokens": 8}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    settings = tiny_settings(max_body_bytes=200_000)
    with running(settings, tiny_models(settings, lambda name: tiny_lm(name, max_seq_len=512))) as address:
        yield address


ROWS = {
    "translate": {"source": "Good morning.", "target_lang": "de", "source_lang": "en"},
    "summarize": {"document": "Bees fly. They carry pollen."},
    "qa": {"question": "Who flies?", "context": "Bees fly."},
    "write": {"prompt": "the sea", "form": "poem"},
    "generate": {"prompt": "Once"},
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_gives_what_the_toolkit_gives(address: str, name: str) -> None:
    options = {**SHORT, "seed": 3}
    answer = httpx.post(f"{address}/v1/{name}", json={**ROWS[name], "options": options}, timeout=60)
    assert answer.status_code == 200, answer.text
    (expected,) = Toolkit(tiny_lm("tiny", max_seq_len=512)).run(name, [ROWS[name]], options=options)
    got, wanted = answer.json(), expected.to_dict()
    assert got.keys() == wanted.keys()
    assert got["completion"] == wanted["completion"]
    assert got["prediction"] == wanted["prediction"]


def test_rows_come_back_in_order(address: str) -> None:
    rows = [{"prompt": f"number {i}"} for i in range(5)]
    body = {"rows": rows, "options": SHORT}
    results = httpx.post(f"{address}/v1/generate", json=body, timeout=60).json()["results"]
    alone = [httpx.post(f"{address}/v1/generate", json={**row, "options": SHORT}, timeout=60).json() for row in rows]
    assert [one["prediction"] for one in results] == [one["prediction"] for one in alone]


def test_a_stream_ends_with_the_result(address: str) -> None:
    body = {**ROWS["write"], "stream": True, "options": {**SHORT, "seed": 1}}
    answer = httpx.post(f"{address}/v1/write", json=body, timeout=60)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, end = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert end == "[DONE]"
    *pieces, last = map(json.loads, events)
    assert "".join(piece["text"] for piece in pieces) == last["result"]["prediction"]
    assert last["result"]["seed"] == 1


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("translate", {"source": "x"}, "target_lang"),
        ("translate", {"source": "x", "target_lang": "klingon"}, "klingon"),
        ("translate", {"source": 3, "target_lang": "de"}, "source"),
        ("summarize", {"document": "x", "lenght": "short"}, "lenght"),
        ("write", {"prompt": "x", "form": "epic"}, "epic"),
        ("qa", {"question": "", "context": "x"}, "question"),
        ("generate", {"prompt": "x", "options": {"temperature": -1}}, "temperature"),
        ("generate", {"prompt": "x", "options": {"beam_size": 2, "temperature": 1.0}}, "beam_size"),
        ("generate", {"prompt": "x", "rows": [{"prompt": "y"}]}, "rows"),
        ("generate", {"rows": []}, "rows"),
        ("generate", {"rows": [{"prompt": "y"}] * (MOST_ROWS + 1)}, "rows"),
        ("generate", {"rows": [{"prompt": "y"}], "stream": True}, "stream"),
        ("qa", {"rows": [{"question": "x", "context": "y"}, {"question": "x"}]}, "context"),
        ("generate", {"prompt": "x" * 2000, "on_overflow": "error"}, "too long"),
    ],
)
def test_what_cannot_be_done_is_refused(address: str, name: str, body: dict[str, object], said: str) -> None:
    answer = httpx.post(f"{address}/v1/{name}", json=body, timeout=60)
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]["message"]


def test_an_unknown_model_is_not_found(address: str) -> None:
    answer = httpx.post(f"{address}/v1/generate", json={"prompt": "x", "model": "huge"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


def test_every_task_is_served_and_described(address: str) -> None:
    paths = httpx.get(f"{address}/openapi.json").json()["paths"]
    assert {f"/v1/{one.name}" for one in task_endpoints()} <= set(paths)
    assert {f"/v1/{name}" for name in task_names()} <= set(paths)


def test_options_are_those_of_decoding() -> None:
    known = {field.name for field in dataclasses.fields(DecodeConfig)}
    not_offered = {"logit_bias", "ignore_eos", "constraint", "speculation", "logprobs"}
    assert set(TaskOptions.model_fields) == known - not_offered
