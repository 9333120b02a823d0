"""What requests of this interface hold: JSON or a form, both with the same fields."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from pydantic_core import from_json
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

from nlpkit.apps.serve.connection import read_bytes
from nlpkit.apps.serve.errors import ApiError
from nlpkit.apps.serve.visit import Visit
from nlpkit.core.errors import shown

MOST_FIELDS = 1000
MOST_TEXTS = 256
MOST_ALTERNATIVES = 10

_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": MOST_TEXTS}
_KEY = {"api_key": {**_TEXT, "description": "A key, where the server demands one."}}
_PAIR = {
    "source": {**_TEXT, "description": "Code of the text's language, or auto."},
    "target": {**_TEXT, "description": "Code of the language to translate into."},
}
TRANSLATE_FIELDS: dict[str, Any] = {
    "type": "object",
    "required": ["q", "source", "target"],
    "properties": {
        "q": {"anyOf": [_TEXT, _TEXTS], "description": "A text, or a list of texts."},
        **_PAIR,
        "format": {"enum": ["text", "html"], "description": "Both are treated alike."},
        "alternatives": {
            "type": "integer",
            "minimum": 0,
            "maximum": MOST_ALTERNATIVES,
            "description": "So many more translations of each; 0.",
        },
        **_KEY,
    },
}
DETECT_FIELDS: dict[str, Any] = {
    "type": "object",
    "required": ["q"],
    "properties": {"q": {"anyOf": [_TEXT, _TEXTS], "description": "A text; of a list the first is read."}, **_KEY},
}
FILE_FIELDS: dict[str, Any] = {
    "type": "object",
    "required": ["file", "source", "target"],
    "properties": {
        "file": {**_TEXT, "format": "binary", "description": "The file, with its name."},
        **_PAIR,
        **_KEY,
    },
}
"""Fields of the requests, as JSON schemas."""


@dataclass(frozen=True)
class Fields:
    """Fields of a request, from a body of JSON or a form, or from the address.

    Attributes:
        values: By name; texts, or of JSON whatever was sent.
        file: Name and content of the file that came with a form; None where there is none.
    """

    values: Mapping[str, Any]
    file: tuple[str, bytes] | None = None

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text.

        Raises:
            ApiError: It is missing or no text.
        """
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if value is None or value == "":
            raise ApiError(f"Invalid request: missing {name} parameter", param=name)
        if not isinstance(value, str):
            raise ApiError(f"Invalid request: {name} is {shown(value, 80)}; it must be a text", param=name)
        return value

    def texts(self) -> tuple[list[str], bool]:
        """Return the texts of ``q``, and whether it is a list.

        Raises:
            ApiError: It is missing, of another type, or too long a list.
        """
        value = self.values.get("q")
        if isinstance(value, list):
            if not value or not all(isinstance(one, str) for one in value):
                raise ApiError("Invalid request: q must be a text, or a list of at least one text", param="q")
            if len(value) > MOST_TEXTS:
                raise ApiError(
                    f"Invalid request: q has {len(value)} texts; at most {MOST_TEXTS} are taken at once", param="q"
                )
            return value, True
        return [self.text("q")], False

    def whole(self, name: str, most: int) -> int:
        """Return a whole number from 0, which is what is taken where it is missing.

        Raises:
            ApiError: It is none, or too large.
        """
        value = self.values.get(name)
        if value is None or value == "":
            return 0
        text = str(value)
        plain = not isinstance(value, bool) and text.isascii() and text.isdecimal() and len(text) < 10
        if not plain or int(text) > most:
            raise ApiError(
                f"Invalid request: {name} is {shown(value, 80)}; it must be a whole number from 0 to {most}", param=name
            )
        return int(text)


async def read_fields(visit: Visit) -> Fields:
    """Read a request's fields.

    Raises:
        ApiError: The body is too long, or is not what its header says.
    """
    request = visit.request
    given: dict[str, Any] = dict(request.query_params)
    data = await read_bytes(request, visit.state.settings.max_body_bytes)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _read_multipart(request, data, given)
    if kind == "application/x-www-form-urlencoded":
        return Fields({**given, **_read_form(data)})
    if not data:
        return Fields(given)
    return Fields({**given, **await visit.briefly(lambda: _read_json(data))})


def _read_json(data: bytes) -> dict[str, Any]:
    try:
        # Unlike Python's own reader it refuses halves of surrogate pairs, which are no text.
        values = from_json(data, allow_inf_nan=False)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ApiError("Invalid request: the body is neither a JSON object nor a form that its Content-Type names")
    return values


def _read_form(data: bytes) -> dict[str, Any]:
    try:
        pairs = parse_qsl(data.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise ApiError("Invalid request: the form cannot be read") from None
    return _gathered(pairs)


def _gathered(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Return values by name; of a name that occurs several times, a list."""
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            before = values[name]
            values[name] = [*before, value] if isinstance(before, list) else [before, value]
        else:
            values[name] = value
    return values


async def _read_multipart(request: Request, data: bytes, given: dict[str, Any]) -> Fields:
    async def receive() -> Message:
        return {"type": "http.request", "body": data, "more_body": False}

    # Whatever a part holds is in memory already, and within the limit.
    copy = Request(request.scope, receive)
    try:
        form = await copy.form(max_files=1, max_fields=MOST_FIELDS, max_part_size=max(1, len(data)))
    except HTTPException as error:
        raise ApiError(f"Invalid request: the form cannot be read: {error.detail}") from None
    except UnicodeError:
        raise ApiError("Invalid request: the form cannot be read in the charset that it names") from None
    try:
        file = None
        pairs: list[tuple[str, str]] = []
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                file = (value.filename or "", await value.read())
            else:
                pairs.append((name, value))
        # Some of the charsets that a form may name make halves of surrogate pairs, which are no text.
        "".join([*itertools.chain(*pairs), file[0] if file else ""]).encode()
    except UnicodeEncodeError:
        raise ApiError("Invalid request: the form cannot be read in the charset that it names") from None
    finally:
        await form.close()
    return Fields({**given, **_gathered(pairs)}, file)
