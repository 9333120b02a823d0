"""Routes of LibreTranslate's interface."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from nlpkit.apps.pipeline.result import TaskResult
from nlpkit.apps.serve.door.keys import bearer_key, knows_key
from nlpkit.apps.serve.errors import ApiError, to_api_error
from nlpkit.apps.serve.libretranslate.fields import (
    DETECT_FIELDS,
    FILE_FIELDS,
    MOST_ALTERNATIVES,
    TRANSLATE_FIELDS,
    Fields,
    read_fields,
)
from nlpkit.apps.serve.libretranslate.files import KeptFiles, check_kind, file_suffixes, media_type
from nlpkit.apps.serve.libretranslate.languages import (
    AUTO,
    detected,
    language_code,
    learned_pairs,
    list_languages,
    translation_task,
)
from nlpkit.apps.serve.openapi import Operation
from nlpkit.apps.serve.state import state_of
from nlpkit.apps.serve.tasks.routes import count, lend_toolkit
from nlpkit.apps.serve.visit import Visit, visiting
from nlpkit.apps.serve.working import in_thread
from nlpkit.apps.toolkit import Toolkit
from nlpkit.core.errors import NlpkitError

UNSURE = {"confidence": 0.0, "language": "en"}
"""What is said of a text whose language cannot be told: clients want an entry."""

_Handler = Callable[[Request], Awaitable[Any]]


def _in_its_words(handler: _Handler) -> _Handler:
    """Let a handler's errors be told as this interface tells them; what is a bug goes on to the log."""

    @functools.wraps(handler)
    async def answer(request: Request) -> Any:
        try:
            return await handler(request)
        except (ApiError, NlpkitError, MemoryError) as error:
            said = to_api_error(error)
            return JSONResponse({"error": said.message}, status_code=said.status, headers=said.headers)

    return answer


def _check_key(visit: Visit, fields: Fields) -> None:
    keys = visit.state.settings.api_keys
    if not keys:
        return
    given = fields.values.get("api_key")
    if not isinstance(given, str) or not given:
        given = bearer_key(visit.request.headers.get("authorization", ""))
    if not knows_key(given, keys):
        raise ApiError("Invalid API key", status=403)


@_in_its_words
async def translate(request: Request) -> Response:
    """Translate a text or several."""
    async with visiting(request) as visit:
        fields = await read_fields(visit)
        _check_key(visit, fields)
        texts, several = fields.texts()
        if fields.text("format", "text") not in ("text", "html"):
            raise ApiError("Invalid request: format must be text or html", param="format")
        source, target = _pair(fields)
        more = fields.whole("alternatives", MOST_ALTERNATIVES)
        results = await _translations(visit, texts, source, target, more)
        answer: dict[str, Any] = {"translatedText": [_text(*one) for one in zip(texts, results, strict=True)]}
        if source == AUTO:
            answer["detectedLanguage"] = [_seen(result) for result in results]
        if more:
            answer["alternatives"] = [_others(result) for result in results]
        return JSONResponse(answer if several else {name: values[0] for name, values in answer.items()})


def _pair(fields: Fields) -> tuple[str, str]:
    source, target = fields.text("source"), language_code(fields.text("target"), param="target")
    return (AUTO if source.lower() == AUTO else language_code(source, param="source")), target


async def _translations(
    visit: Visit, texts: Sequence[str], source: str, target: str, alternatives: int = 0
) -> list[TaskResult | None]:
    """Translate texts; None stands for those that there is nothing to translate in."""
    rows = [{"source": text, "source_lang": source, "target_lang": target} for text in texts if text.strip()]
    if source == target or not rows:
        return [None] * len(texts)
    toolkit: Toolkit = await lend_toolkit(visit, None)
    options = {"n": alternatives + 1} if alternatives else {}
    task = translation_task()
    results = await visit.wait(in_thread(visit.state, lambda: toolkit.run(task, rows, options=options)))
    for result in results:
        count(visit, result)
    found = iter(results)
    return [next(found) if text.strip() else None for text in texts]


def _text(text: str, result: TaskResult | None) -> str:
    return text if result is None else result.text


def _others(result: TaskResult | None) -> list[str]:
    return [] if result is None else [one.text for one in result.alternatives[1:]]


def _seen(result: TaskResult | None) -> dict[str, Any]:
    language = None if result is None else result.fields.get("source_lang")
    if result is None or language is None:
        return UNSURE
    return {"confidence": round(100 * result.fields.get("source_lang_confidence", 1.0), 1), "language": language}


@_in_its_words
async def detect(request: Request) -> Response:
    """Tell the language of a text."""
    async with visiting(request) as visit:
        fields = await read_fields(visit)
        _check_key(visit, fields)
        (text, *_), _ = fields.texts()
        return JSONResponse([await visit.briefly(lambda: detected(text)) or UNSURE])


@_in_its_words
async def languages(request: Request) -> Response:
    """List the languages."""
    models = state_of(request).models
    listed = await state_of(request).briefly(lambda: list_languages(learned_pairs(models)))
    return JSONResponse(listed)


@_in_its_words
async def settings(request: Request) -> Response:
    """Tell a page what it needs to know."""
    state = state_of(request)
    listed = await state.briefly(lambda: list_languages(learned_pairs(state.models)))
    english = next((one for one in listed if one["code"] == "en"), listed[0])
    other = next((code for code in english["targets"] if code != english["code"]), english["code"])
    return JSONResponse(
        {
            "apiKeys": bool(state.settings.api_keys),
            "charLimit": -1,
            "filesTranslation": True,
            "frontendTimeout": 500,
            "keyRequired": bool(state.settings.api_keys),
            "language": {
                "source": {"code": AUTO, "name": "Auto Detect"},
                "target": {"code": other, "name": next(one["name"] for one in listed if one["code"] == other)},
            },
            "suggestions": False,
            "supportedFilesFormat": file_suffixes(),
        }
    )


@_in_its_words
async def translate_file(request: Request) -> Response:
    """Translate a file; the answer says where to fetch it."""
    async with visiting(request) as visit:
        fields = await read_fields(visit)
        _check_key(visit, fields)
        if fields.file is None or not fields.file[0]:
            raise ApiError("Invalid request: missing file parameter", param="file")
        name, data = fields.file
        check_kind(name, data)
        source, target = _pair(fields)
        toolkit: Toolkit = await lend_toolkit(visit, None)

        def translated() -> bytes:
            if source == target:
                return data
            return toolkit.translate_bytes(data, target, name=name, source_lang=source).data

        done = await visit.wait(in_thread(visit.state, translated))
        kept = _files(request).keep(name, target, done, media_type(name))
        return JSONResponse({"translatedFileUrl": f"{request.base_url}download_file/{kept}"})


@_in_its_words
async def download_file(request: Request) -> Response:
    """Hand a translated file out."""
    name = request.path_params["name"]
    file = _files(request).take(name)
    shown = name.partition(".")[2]
    headers = {
        "Content-Disposition": f'attachment; filename="{shown}"',
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }
    return Response(file.data, media_type=file.media, headers=headers)


def _files(request: Request) -> KeptFiles:
    state = request.app.state
    if not hasattr(state, "translated_files"):
        state.translated_files = KeptFiles()
    files: KeptFiles = state.translated_files
    return files


ROUTES = [
    Route("/translate", translate, methods=["POST"]),
    Route("/detect", detect, methods=["POST"]),
    # Argos Translate's client sends an empty form.
    Route("/languages", languages, methods=["GET", "POST"]),
    Route("/frontend/settings", settings, methods=["GET"]),
    Route("/translate_file", translate_file, methods=["POST"]),
    Route("/download_file/{name}", download_file, methods=["GET"]),
]

_GROUP = "LibreTranslate's interface"
_PLAIN = "PlainError"
_FORMS = ("application/json", "application/x-www-form-urlencoded", "multipart/form-data")
OPERATIONS = [
    Operation(
        "/translate", "post", "Translate a text or several.", _GROUP, fields=TRANSLATE_FIELDS, forms=_FORMS,
        problem=_PLAIN,
    ),
    Operation(
        "/detect", "post", "Tell the language of a text.", _GROUP, fields=DETECT_FIELDS, forms=_FORMS, problem=_PLAIN
    ),
    Operation(
        "/translate_file", "post", "Translate a file; the answer says where to fetch it.", _GROUP, fields=FILE_FIELDS,
        forms=_FORMS[2:], problem=_PLAIN,
    ),
    Operation(
        "/download_file/{name}", "get", "Fetch a translated file.", _GROUP, media="application/octet-stream",
        problem=_PLAIN,
    ),
    Operation("/languages", "get", "List the languages.", _GROUP, problem=_PLAIN),
    Operation("/languages", "post", "List the languages; for clients that ask so.", _GROUP, problem=_PLAIN),
    Operation("/frontend/settings", "get", "Tell what a page needs to know.", _GROUP, problem=_PLAIN),
]  # fmt: skip
