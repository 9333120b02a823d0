"""Bodies that are refused: of thousands of mistakes few are told, for each costs memory."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from nlpkit.apps.serve.body import read_body
from nlpkit.apps.serve.errors import ApiError
from nlpkit.apps.serve.openai.bodies import CompletionBody
from nlpkit.apps.serve.openai.chat_bodies import ChatBody
from nlpkit.apps.serve.tasks.routes import task_endpoints

MANY = 20_000
NAMES = "{" + ",".join(f'"x{number}":1' for number in range(MANY)) + "}"


def listed(value: str) -> str:
    return "[" + ",".join([value] * MANY) + "]"


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (CompletionBody, "prompt", listed("-1")),
        (CompletionBody, "prompt", listed("0.5")),
        (CompletionBody, "prompt", listed('""')),
        (CompletionBody, "prompt", listed("{}")),
        (CompletionBody, "prompt", listed("[]")),
        (CompletionBody, "prompt", f"[{listed('-1')}]"),
        (CompletionBody, "stop", listed("1")),
        (CompletionBody, "logit_bias", NAMES),
        (ChatBody, "messages", listed("{}")),
        (ChatBody, "messages", '[{"role": "user", "content": ' + listed("{}") + "}]"),
        (ChatBody, "metadata", NAMES),
        ("translate", "rows", listed("{}")),
        ("translate", "glossary", NAMES),
        ("write", "keywords", listed("1")),
        ("write", "options", '{"stop": ' + listed("1") + "}"),
        ("write", "options", '{"must_include": ' + listed("1") + "}"),
    ],
)
def test_of_many_mistakes_few_are_told(kind: Any, field: str, value: str) -> None:
    body: type[BaseModel] = kind
    if isinstance(kind, str):
        body = next(one.body for one in task_endpoints() if one.name == kind)
    with pytest.raises(ValidationError) as caught:
        body.model_validate_json(f'{{"model": "x", "{field}": {value}}}')
    assert caught.value.error_count() < 10


def test_many_names_that_are_not_known_are_counted() -> None:
    with pytest.raises(ApiError, match="20,001 mistakes"):
        read_body(CompletionBody, NAMES.encode())
    with pytest.raises(ApiError, match="supplied: x0"):
        read_body(CompletionBody, b'{"model": "x", "x0": 1, "x1": 2}')
