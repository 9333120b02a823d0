"""The routes of OpenAI's interface."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from nlpkit.apps.serve.openai.bodies import CompletionBody
from nlpkit.apps.serve.openai.chat import answer_chat, plan_chat, stream_chat
from nlpkit.apps.serve.openai.chat_bodies import ChatBody, EmbeddingBody
from nlpkit.apps.serve.openai.completions import answer_completion, plan_completion, stream_completion
from nlpkit.apps.serve.openai.embeddings import answer_embeddings, plan_embeddings
from nlpkit.apps.serve.openapi import Operation
from nlpkit.apps.serve.state import state_of
from nlpkit.apps.serve.visit import visiting


async def create_completion(request: Request) -> Any:
    """Continue texts."""
    engine_name = request.path_params.get("engine")
    async with visiting(request) as visit:
        body = await visit.read(CompletionBody, **({} if engine_name is None else {"model": engine_name}))
        loaded = await visit.lend(body.model)
        plan = await visit.briefly(lambda: plan_completion(body, loaded.engine, loaded.lm))
        visit.tally.prompt_tokens = plan.prompt_tokens
        if body.stream:
            return visit.stream(stream_completion(plan, loaded.engine, visit.state.office, visit.tally))
        return JSONResponse(await visit.wait(answer_completion(plan, loaded.engine, visit.state.office, visit.tally)))


async def create_chat_completion(request: Request) -> Any:
    """Answer a conversation."""
    async with visiting(request) as visit:
        body = await visit.read(ChatBody)
        loaded = await visit.lend(body.model)
        plan = await visit.briefly(lambda: plan_chat(body, loaded.engine, loaded.lm))
        visit.tally.prompt_tokens = len(plan.request.prompt_ids)
        if body.stream:
            return visit.stream(stream_chat(plan, loaded.engine, visit.state.office, visit.tally))
        return JSONResponse(await visit.wait(answer_chat(plan, loaded.engine, visit.state.office, visit.tally)))


async def create_embeddings(request: Request) -> Any:
    """Turn texts into vectors."""
    async with visiting(request) as visit:
        body = await visit.read(EmbeddingBody)
        loaded = await visit.lend(body.model)
        texts = await visit.briefly(lambda: plan_embeddings(body, loaded.engine, loaded.lm))
        visit.tally.prompt_tokens = sum(map(len, texts))
        return JSONResponse(await visit.wait(answer_embeddings(body, texts, loaded.engine)))


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

_GROUP = "OpenAI's interface"
_EVENTS = ("text/event-stream",)
OPERATIONS = [
    Operation("/v1/completions", "post", "Continue texts.", _GROUP, CompletionBody, also=_EVENTS),
    Operation("/v1/chat/completions", "post", "Answer a conversation.", _GROUP, ChatBody, also=_EVENTS),
    Operation("/v1/embeddings", "post", "Turn texts into vectors.", _GROUP, EmbeddingBody),
    Operation("/v1/models", "get", "List the models.", _GROUP),
    Operation("/v1/models/{model}", "get", "Tell of one model.", _GROUP),
]
