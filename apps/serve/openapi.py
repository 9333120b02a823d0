"""The description of the interface, for programs and for people: OpenAPI, and a page that needs nothing else."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

VERSION = "3.1.0"
_REF = "#/components/schemas/{model}"


@dataclass(frozen=True)
class Operation:
    """What an address does.

    Attributes:
        path: The address, as OpenAPI writes it.
        method: ``get`` or ``post``.
        summary: What it does.
        group: What it belongs to.
        body: Its body, or None.
        fields: Instead of a body the fields of one that may be a form, as a JSON schema.
        forms: Types of bodies with such fields.
        answer: What it answers when all goes well.
        media: Type of the answer.
        also: Types of answers besides, such as a stream.
        problem: What its errors look like, by the schema's name.
        unready: What it says with status 503, where that is no error.
    """

    path: str
    method: str
    summary: str
    group: str
    body: type[BaseModel] | None = None
    fields: dict[str, Any] | None = None
    forms: Sequence[str] = ()
    answer: str = "The answer."
    media: str = "application/json"
    also: Sequence[str] = ()
    problem: str = "Error"
    unready: str | None = None


ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
PLAIN_ERROR = {
    "type": "object",
    "required": ["error"],
    # What is refused at the door is told in the other way.
    "properties": {"error": {"anyOf": [{"type": "string"}, ERROR["properties"]["error"]]}},
}
PROBLEMS = {
    "400": "The request cannot be understood, or asks for what cannot be.",
    "401": "The API key is missing or wrong.",
    "403": "A page of another origin sent it.",
    "404": "There is no such model.",
    "408": "The body did not arrive in time.",
    "413": "The body is too long.",
    "421": "The server is not called by this name.",
    "429": "Too many requests are in the house; Retry-After says when to try again.",
    "503": "The server cannot answer now.",
    "504": "The request took too long.",
}


def build_openapi(operations: Sequence[Operation], *, version: str, models: Sequence[str]) -> dict[str, Any]:
    """Describe the interface.

    Args:
        operations: What there is.
        version: Of this program.
        models: Ids of the models that requests may name.

    Returns:
        An OpenAPI document.
    """
    bodies = list(dict.fromkeys(one.body for one in operations if one.body is not None))
    _, schemas = models_json_schema([(body, "validation") for body in bodies], ref_template=_REF)
    for schema in schemas.get("$defs", {}).values():
        if "model" in schema.get("properties", {}):
            schema["properties"]["model"]["enum"] = list(models)
    paths: dict[str, Any] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method] = _operation(one)
    return {
        "openapi": VERSION,
        "info": {"title": "nlpkit", "version": version, "description": "Language tasks on one shared GPT core."},
        "paths": paths,
        "components": {
            "schemas": {**schemas.get("$defs", {}), "Error": ERROR, "PlainError": PLAIN_ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _operation(one: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {media: {} for media in (one.media, *one.also)}
    problem = {"application/json": {"schema": {"$ref": _REF.format(model=one.problem)}}}
    problems = (
        PROBLEMS if one.body or one.fields else {key: PROBLEMS[key] for key in ("401", "403", "404", "421", "503")}
    )
    found: dict[str, Any] = {
        "summary": one.summary,
        "tags": [one.group],
        "operationId": f"{one.method}{one.path}".replace("/", "_").replace("{", "").replace("}", ""),
        "responses": {
            "200": {"description": one.answer, "content": content},
            **{status: {"description": text, "content": problem} for status, text in problems.items()},
        },
    }
    if one.unready is not None:
        found["responses"]["503"] = {"description": one.unready, "content": content}
    if one.body is not None:
        schema = {"$ref": _REF.format(model=one.body.__name__)}
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if one.fields is not None:
        found["requestBody"] = {"required": True, "content": {form: {"schema": one.fields} for form in one.forms}}
    names = [part[1:-1] for part in one.path.split("/") if part.startswith("{")]
    if names:
        found["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    return found


def render_docs(document: dict[str, Any]) -> str:
    """Write the description as a page without scripts, styles or fonts from elsewhere.

    Args:
        document: What `build_openapi` returns.
    """
    schemas = document["components"]["schemas"]
    parts = []
    for path, methods in document["paths"].items():
        for method, one in methods.items():
            title = f"<code>{method.upper()} {html.escape(path)}</code>"
            what = f"<p>{html.escape(one['summary'])}</p>{_body(one, schemas)}"
            parts.append(f"<section><h2>{title}</h2>{what}</section>")
    return _PAGE.format(version=html.escape(document["info"]["version"]), body="\n".join(parts))


def _body(one: dict[str, Any], schemas: dict[str, Any]) -> str:
    content = one.get("requestBody", {}).get("content", {})
    for media, described in content.items():
        schema = described["schema"]
        if "$ref" in schema:
            schema = schemas[schema["$ref"].rsplit("/", 1)[-1]]
        needed = set(schema.get("required", ()))
        rows = "".join(
            f"<tr><td><code>{html.escape(name)}</code>{' *' if name in needed else ''}</td>"
            f"<td>{html.escape(_kind(field, schemas))}</td><td>{html.escape(field.get('description', ''))}</td></tr>"
            for name, field in schema.get("properties", {}).items()
        )
        return f"<table><caption>{html.escape(media)}; * is required</caption>{rows}</table>"
    return ""


def _kind(field: dict[str, Any], schemas: dict[str, Any]) -> str:
    """Say in words what a field may be."""
    if "$ref" in field:
        return _kind(schemas[field["$ref"].rsplit("/", 1)[-1]], schemas)
    several = field.get("anyOf") or field.get("oneOf")
    if several:
        kinds = dict.fromkeys(_kind(one, schemas) for one in several)
        return " or ".join(kind for kind in kinds if kind != "null")
    if "enum" in field or "const" in field:
        return ", ".join(json.dumps(value) for value in field.get("enum", [field.get("const")]))
    kind = str(field.get("type", "anything"))
    if kind == "array":
        return f"list of {_kind(field.get('items', {}), schemas)}"
    low, high = field.get("minimum", field.get("exclusiveMinimum")), field.get("maximum", field.get("exclusiveMaximum"))
    if kind in ("integer", "number") and low is not None and high is not None and abs(high) < 2**53:
        return f"{kind}, {low:g} to {high:g}"
    return kind


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>nlpkit: the interface</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
section {{ border-top: 1px solid #8886; padding: .5rem 0 1rem }}
h2 {{ font-size: 1.1rem }}
table {{ border-collapse: collapse; width: 100% }}
caption {{ text-align: left; opacity: .8 }}
td {{ border-top: 1px solid #8884; padding: .25rem .75rem .25rem 0; vertical-align: top }}
</style></head><body>
<h1>nlpkit {version}</h1>
<p>The same for programs: <a href="/openapi.json">openapi.json</a>.</p>
{body}
</body></html>
"""
