"""The routes of OpenAI's interface."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from nlpkit.apps.serve.body import read_body
from nlpkit.apps.serve.connection import EventStream, read_bytes, while_connected
from nlpkit.apps.serve.openai.bodies import CompletionBody
from nlpkit.apps.serve.openai.chat import answer_chat, plan_chat, stream_chat
from nlpkit.apps.serve.openai.chat_bodies import ChatBody, EmbeddingBody
from nlpkit.apps.serve.openai.completions import answer_completion, plan_completion, stream_completion
from nlpkit.apps.serve.openai.embeddings import answer_embeddings, plan_embeddings
from nlpkit.apps.serve.state import state_of


async def create_completion(request: Request) -> Any:
    """Continue texts."""
    state = state_of(request)
    engine_name = request.path_params.get("engine")
    async with AsyncExitStack() as stack:
        stack.enter_context(state.gate.enter())
        data = await read_bytes(request, state.settings.max_body_bytes)
        known = {} if engine_name is None else {"model": engine_name}
        body = await state.briefly(lambda: read_body(CompletionBody, data, **known))
        loaded = await stack.enter_async_context(state.borrowed(state.models.lend(body.model)))
        plan = await state.briefly(lambda: plan_completion(body, loaded.engine, loaded.lm))
        if body.stream:
            return EventStream(stream_completion(plan, loaded.engine, state.office), stack.pop_all())
        answer = await while_connected(request.receive, answer_completion(plan, loaded.engine, state.office))
        return JSONResponse(answer)


async def create_chat_completion(request: Request) -> Any:
    """Answer a conversation."""
    state = state_of(request)
    async with AsyncExitStack() as stack:
        stack.enter_context(state.gate.enter())
        data = await read_bytes(request, state.settings.max_body_bytes)
        body = await state.briefly(lambda: read_body(ChatBody, data))
        loaded = await stack.enter_async_context(state.borrowed(state.models.lend(body.model)))
        plan = await state.briefly(lambda: plan_chat(body, loaded.engine, loaded.lm))
        if body.stream:
            return EventStream(stream_chat(plan, loaded.engine, state.office), stack.pop_all())
        return JSONResponse(await while_connected(request.receive, answer_chat(plan, loaded.engine, state.office)))


async def create_embeddings(request: Request) -> Any:
    """Turn texts into vectors."""
    state = state_of(request)
    async with AsyncExitStack() as stack:
        stack.enter_context(state.gate.enter())
        data = await read_bytes(request, state.settings.max_body_bytes)
        body = await state.briefly(lambda: read_body(EmbeddingBody, data))
        loaded = await stack.enter_async_context(state.borrowed(state.models.lend(body.model)))
        texts = await state.briefly(lambda: plan_embeddings(body, loaded.lm))
        return JSONResponse(await while_connected(request.receive, answer_embeddings(body, texts, loaded.engine)))


async def list_models(request: Request) -> Response:
    """List what requests may ask for."""
    models = state_of(request).models
    return JSONResponse({"object": "list", "data": [_model(name, models.created) for name in models.ids]})


async def show_model(request: Request) -> Response:
    """Tell of one model."""
    models = state_of(request).models
    name = request.path_params["model"]
    models.find(name)
    return JSONResponse(_model(name, models.created))


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "nlpkit"}


ROUTES = [
    Route("/v1/completions", create_completion, methods=["POST"]),
    Route("/v1/engines/{engine:path}/completions", create_completion, methods=["POST"]),
    Route("/v1/chat/completions", create_chat_completion, methods=["POST"]),
    Route("/v1/embeddings", create_embeddings, methods=["POST"]),
    Route("/v1/models", list_models, methods=["GET"]),
    Route("/v1/models/{model:path}", show_model, methods=["GET"]),
]
