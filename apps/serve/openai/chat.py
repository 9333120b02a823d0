"""``/v1/chat/completions``: a conversation becomes a prompt, and its answer a message, whole or as a stream."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nlpkit.apps.serve.errors import ApiError, to_api_error
from nlpkit.apps.serve.openai.chat_bodies import ChatBody, MessageBody
from nlpkit.apps.serve.openai.completions import fingerprint, finish_reason, usage
from nlpkit.apps.serve.openai.decoding import check_stream, decode_config
from nlpkit.apps.serve.openai.tokens import GrowingTokens, ShownToken, chat_logprobs
from nlpkit.apps.serve.running import complete, events_of
from nlpkit.core.chat.message import Message
from nlpkit.core.decode.constraint import Constraint
from nlpkit.core.decode.request import Completion, Request

if TYPE_CHECKING:
    from nlpkit.apps.serve.door.observing import Tally
    from nlpkit.apps.serve.mailbox import PostOffice
    from nlpkit.core.decode.loop import Event
    from nlpkit.core.decode.shared.engine import SharedEngine
    from nlpkit.core.language_model import LanguageModel

ANSWER_TOKENS = 1024
"""Most tokens of an answer where the request sets no limit."""
MOST_SCHEMA_CHARS = 65_536
"""Longest JSON schema: it is compiled where everybody's texts are computed."""
ANY_OBJECT = '{"type": "object"}'


@dataclass(frozen=True)
class ChatPlan:
    """What a request asks for.

    Attributes:
        body: The request.
        lm: The model.
        request: What the engine gets.
        n: Answers to return.
        id: The answer's id.
        created: When it was made, in seconds since 1970.
    """

    body: ChatBody
    lm: LanguageModel
    request: Request
    n: int
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))


def plan_chat(body: ChatBody, engine: SharedEngine, lm: LanguageModel) -> ChatPlan:
    """Read what a request asks for, and check it. Takes as long as rendering and tokenizing do.

    Raises:
        ApiError: It asks for what cannot be.
        NlpkitError: The engine refuses it.
    """
    check_stream(body)
    if body.tools or body.functions:
        name = "tools" if body.tools else "functions"
        raise ApiError(
            f"The models here do not call tools. Leave {name} out, or ask for JSON with response_format.",
            param=name,
            code="unsupported_parameter",
        )
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError("top_logprobs needs logprobs: set it to true, or leave both out.", param="top_logprobs")
    if lm.chat is None:
        raise ApiError(
            f"The model {body.model} has no chat template: it continues texts. Use /v1/completions.", param="model"
        )
    messages = [Message(_role(message), _text(message)) for message in body.messages]
    ids = lm.chat.render_tokens(messages, lm.tokenizer, add_generation_prompt=True)
    limit = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    config = decode_config(
        body,
        # Texts are kept room for up to their limit: one that nobody set must not keep others out.
        max_tokens=1 if limit is None else limit,
        n=body.n or 1,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        constraint=_constraint(body),
    )
    if limit is None:
        room = min(engine.max_seq_len, engine.batch_tokens // config.n) - len(ids)
        config = config.replace(max_tokens=max(1, min(ANSWER_TOKENS, room)))
    request = Request(prompt_ids=tuple(ids), config=config)
    engine.check(request)
    return ChatPlan(body, lm, request, body.n or 1)


def _role(message: MessageBody) -> str:
    return "system" if message.role == "developer" else message.role


def _text(message: MessageBody) -> str:
    content = message.content
    if content is None:
        return ""
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _constraint(body: ChatBody) -> Constraint | None:
    wanted = body.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return Constraint.json_schema(ANY_OBJECT)
    schema = wanted.json_schema.schema_
    constraint = Constraint.json_schema(ANY_OBJECT if schema is None else schema)
    if len(constraint.text) > MOST_SCHEMA_CHARS:
        raise ApiError(
            f"The JSON schema has {len(constraint.text):,} characters; it may have {MOST_SCHEMA_CHARS:,}.",
            param="response_format",
        )
    return constraint


async def answer_chat(plan: ChatPlan, engine: SharedEngine, office: PostOffice, tally: Tally) -> dict[str, Any]:
    """Run a request to its end; return the answer's body."""
    (finished,) = await complete(engine, [plan.request], office, tally=tally)
    found = finished.completions
    texts: Sequence[Completion] = found * plan.n if len(found) == 1 else found
    choices = []
    for index, completion in enumerate(texts):
        tokens = _Tokens(plan)
        alternatives = completion.top_logprobs or [()] * len(completion.token_ids)
        for entry in zip(completion.token_ids, completion.logprobs, alternatives, strict=True):
            tokens.add(ShownToken(*entry))
        choices.append(
            {
                "index": index,
                "message": {"role": "assistant", "content": completion.text, "refusal": None, "annotations": []},
                "logprobs": tokens.take(completion.text),
                "finish_reason": finish_reason(completion),
            }
        )
    counts = usage(len(plan.request.prompt_ids), finished.n_tokens)
    return _object(plan, choices, "chat.completion") | {"usage": counts}


class _Tokens:
    """The tokens of one answer as it grows; the one that ends it is not told of."""

    def __init__(self, plan: ChatPlan) -> None:
        self._tokenizer = plan.lm.tokenizer
        self._wanted = bool(plan.body.logprobs)
        self._tokens = GrowingTokens(self._tokenizer, plan.request.prompt_ids, wanted=self._wanted)

    def add(self, token: ShownToken) -> None:
        """Take a token whose text may not be shown yet."""
        if token.token_id not in self._tokenizer.eos_ids:
            self._tokens.add(token)

    def take(self, text: str) -> dict[str, Any] | None:
        """Return what is told of the tokens that begin in text that is new."""
        ready = self._tokens.take(text)
        return chat_logprobs(self._tokenizer, [token for token, _ in ready]) if self._wanted else None


async def stream_chat(
    plan: ChatPlan, engine: SharedEngine, office: PostOffice, tally: Tally
) -> AsyncGenerator[list[str]]:
    """Run a request; yield the data of events, those that are ready together."""
    options = plan.body.stream_options
    with_usage = options is not None and bool(options.include_usage)
    more: dict[str, Any] = {"usage": None} if with_usage else {}
    copies = plan.n if plan.request.config.n == 1 else 1
    tokens = [_Tokens(plan) for _ in range(plan.n)]
    n_tokens = 0

    def chunk(index: int, delta: dict[str, Any], *, logprobs: Any = None, reason: str | None = None) -> str:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return json.dumps(_object(plan, [choice], "chat.completion.chunk") | more)

    def told(event: Event, index: int) -> list[str]:
        """Return the chunks that an event is worth."""
        if event.token_id is not None:
            token = ShownToken(event.token_id, event.logprob, event.alternatives)
            tokens[index].add(token)
        chunks = []
        if event.text:
            chunks.append(chunk(index, {"content": event.text}, logprobs=tokens[index].take(event.text)))
        if event.completion is not None:
            chunks.append(chunk(index, {}, reason=finish_reason(event.completion)))
        return chunks

    try:
        yield [chunk(index, {"role": "assistant", "content": "", "refusal": None}) for index in range(plan.n)]
        async with contextlib.aclosing(
            events_of(engine, [plan.request], office, watch_text=True, tally=tally)
        ) as batches:
            async for batch in batches:
                ready: list[str] = []
                for _, event in batch:
                    n_tokens += event.token_id is not None
                    for copy in range(copies):
                        ready += told(event, event.index + copy)
                if ready:
                    yield ready
        last = _object(plan, [], "chat.completion.chunk") | {"usage": usage(len(plan.request.prompt_ids), n_tokens)}
        yield [*([json.dumps(last)] if with_usage else []), "[DONE]"]
    except Exception as error:  # the status was sent: what went wrong is an event like any other
        yield [json.dumps(to_api_error(error).body()), "[DONE]"]


def _object(plan: ChatPlan, choices: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return {
        "id": plan.id,
        "object": kind,
        "created": plan.created,
        "model": plan.body.model,
        "system_fingerprint": fingerprint(plan.lm),
        "choices": choices,
    }
