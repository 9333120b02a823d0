"""Whatever the interface's own description allows, and much that it does not: no answer is the server's fault.

``NLPKIT_FUZZ_EXAMPLES`` asks for more than the usual 15 requests of each kind.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from tiny_server import running, tiny_settings

schemathesis = pytest.importorskip("schemathesis")
pytestmark = [pytest.mark.local_server, pytest.mark.property]
QUICK = settings(
    max_examples=int(os.environ.get("NLPKIT_FUZZ_EXAMPLES", "15")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    phases=[Phase.generate],
)
POSTS = ["/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/v1/translate", "/v1/write", "/v1/generate"]
POSTS += ["/translate", "/detect", "/translate_file"]
GETS = ["/v1/models", "/v1/models/{model}", "/health", "/metrics", "/languages", "/frontend/settings"]
GETS += ["/download_file/{name}"]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(tiny_settings()) as address:
        yield address


@pytest.mark.parametrize(
    ("path", "mode"), [*((path, "positive") for path in (*POSTS, *GETS)), *((path, "negative") for path in POSTS)]
)
def test_no_request_is_too_much(address: str, path: str, mode: str) -> None:
    from schemathesis.checks import not_a_server_error
    from schemathesis.generation import GenerationMode
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    method = "post" if path in POSTS else "get"
    found = [one.ok() for one in schema.get_all_operations()]
    operations = [one for one in found if (one.method.lower(), one.path) == (method, path)]
    assert len(operations) == 1
    wanted = GenerationMode.POSITIVE if mode == "positive" else GenerationMode.NEGATIVE
    strategy = operations[0].as_strategy(generation_mode=wanted)
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]

    @QUICK
    @given(case=strategy)
    def ask(case: object) -> None:
        case.validate_response(case.call(), checks=checks)  # type: ignore[attr-defined]

    ask()
