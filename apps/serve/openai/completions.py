"""``/v1/completions``: what a request asks for, and its answer, whole or as a stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nlpkit.apps.serve.errors import ApiError, to_api_error
from nlpkit.apps.serve.openai.bodies import CompletionBody, Prompt
from nlpkit.apps.serve.openai.decoding import check_stream, decode_config
from nlpkit.apps.serve.openai.tokens import GrowingTokens, ShownToken, TokenPlaces, completion_logprobs
from nlpkit.apps.serve.running import Finished, complete, events_of
from nlpkit.core.decode.request import Completion, Request

if TYPE_CHECKING:
    from nlpkit.apps.serve.door.observing import Tally
    from nlpkit.apps.serve.mailbox import PostOffice
    from nlpkit.core.decode.loop import Event
    from nlpkit.core.decode.shared.engine import SharedEngine
    from nlpkit.core.language_model import LanguageModel

USUAL_MAX_TOKENS = 16


@dataclass(frozen=True)
class Asked:
    """One prompt of a request.

    Attributes:
        request: What the engine gets.
        text: The prompt's text.
        echoed: Its tokens, where they are to be returned with their log-probabilities.
    """

    request: Request
    text: str
    echoed: list[tuple[ShownToken, int]] = field(default_factory=list)


@dataclass(frozen=True)
class CompletionPlan:
    """What a request asks for.

    Attributes:
        body: The request.
        lm: The model.
        asked: Its prompts.
        n: Texts to return for each prompt.
        id: The answer's id.
        created: When it was made, in seconds since 1970.
    """

    body: CompletionBody
    lm: LanguageModel
    asked: tuple[Asked, ...]
    n: int
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def requests(self) -> list[Request]:
        """What the engine gets."""
        return [one.request for one in self.asked]

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(len(request.prompt_ids) for request in self.requests)


def plan_completion(body: CompletionBody, engine: SharedEngine, lm: LanguageModel) -> CompletionPlan:
    """Read what a request asks for, and check it. Takes as long as tokenizing does.

    Raises:
        ApiError: It asks for what cannot be.
        NlpkitError: The engine refuses it.
    """
    if body.suffix:
        raise ApiError(
            f"The model {body.model} did not learn to fill in text before a suffix. Leave suffix out.",
            param="suffix",
            code="unsupported_parameter",
        )
    check_stream(body)
    n = body.n or 1
    best_of = body.best_of or n
    if best_of < n:
        raise ApiError(f"best_of is {best_of}; it must be at least n, which is {n}.", param="best_of")
    if body.stream and best_of > n:
        raise ApiError(
            "best_of cannot be streamed: which texts are best is known only at the end. Leave one of the two out.",
            param="best_of",
        )
    max_tokens = USUAL_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    config = decode_config(body, max_tokens=max_tokens, n=best_of, logprobs=body.logprobs)
    asked = []
    for given in texts_of(body.prompt):
        ids = ids_of(given, lm)
        request = Request(prompt_ids=ids, config=config)
        engine.check(request)
        asked.append(Asked(request, given if isinstance(given, str) else lm.tokenizer.decode(ids)))
    return CompletionPlan(body, lm, tuple(asked), n)


def texts_of(given: Prompt | None) -> Sequence[str | list[int]]:
    """Return the text or the ids of each of one or several texts; an empty text for none."""
    several: Any = given
    one = several is None or isinstance(several, str) or isinstance(several[0], int)
    return [several or ""] if one else several


def ids_of(given: str | list[int], lm: LanguageModel) -> tuple[int, ...]:
    """Return the tokens of a text that was given as it is or as ids.

    Raises:
        ApiError: It is empty, and the tokenizer has no token behind which a new text begins.
    """
    return tuple((lm.encode(given) or [_start_id(lm)]) if isinstance(given, str) else given)


def _start_id(lm: LanguageModel) -> int:
    if lm.tokenizer.bos_id is not None:
        return lm.tokenizer.bos_id
    if not lm.tokenizer.eos_ids:
        raise ApiError("The prompt is empty, and this model has no token that begins a text.", param="prompt")
    return min(lm.tokenizer.eos_ids)


async def read_prompts(plan: CompletionPlan, engine: SharedEngine) -> None:
    """Find the log-probabilities of the prompts' tokens, where they are to be returned."""
    if not plan.body.echo or plan.body.logprobs is None:
        return
    futures = [engine.reader.scores(request.prompt_ids, top=plan.body.logprobs) for request in plan.requests]
    for asked, scores in zip(plan.asked, await asyncio.gather(*map(asyncio.wrap_future, futures)), strict=True):
        places = TokenPlaces(plan.lm.tokenizer)
        first, *rest = asked.request.prompt_ids
        asked.echoed.append((ShownToken(first, None), places.next(first)))
        for token_id, logprob, alternatives in zip(rest, scores.logprobs, scores.alternatives, strict=True):
            asked.echoed.append((ShownToken(token_id, logprob, alternatives), places.next(token_id)))


async def answer_completion(
    plan: CompletionPlan, engine: SharedEngine, office: PostOffice, tally: Tally
) -> dict[str, Any]:
    """Run a request to its end; return the answer's body."""
    await read_prompts(plan, engine)
    finished = await complete(engine, plan.requests, office, tally=tally)
    choices: list[dict[str, Any]] = []
    for number, (asked, done) in enumerate(zip(plan.asked, finished, strict=True)):
        for k, completion in enumerate(_best(done, plan.n)):
            choices.append(_choice(plan, asked, completion, number * plan.n + k))
    return _object(plan, choices) | {"usage": usage(plan.prompt_tokens, sum(one.n_tokens for one in finished))}


def _best(done: Finished, n: int) -> list[Completion]:
    """Return the texts to show: of more than are wanted, those whose tokens are likeliest on average."""
    found = list(done.completions)
    if len(found) == 1:
        # At temperature 0 all are the same, and were written once.
        return found * n
    if len(found) > n:
        found = sorted(found, key=lambda one: -one.mean_logprob)[:n]
    return found


def _choice(plan: CompletionPlan, asked: Asked, completion: Completion, index: int) -> dict[str, Any]:
    grown = _Growing(plan, asked, index)
    tokens = zip(
        completion.token_ids,
        completion.logprobs,
        completion.top_logprobs or [()] * len(completion.token_ids),
        strict=True,
    )
    for token_id, logprob, alternatives in tokens:
        grown.add(ShownToken(token_id, logprob, alternatives))
    return grown.take(completion.text, ended=completion)


class _Growing:
    """One text of an answer as it grows: which tokens belong to what is shown of it."""

    def __init__(self, plan: CompletionPlan, asked: Asked, index: int) -> None:
        self._plan = plan
        self._index = index
        self._wants_logprobs = plan.body.logprobs is not None
        self._echo = asked if plan.body.echo else None
        self._tokens = GrowingTokens(
            plan.lm.tokenizer,
            asked.request.prompt_ids,
            wanted=self._wants_logprobs,
            offset=len(asked.text) if plan.body.echo else 0,
        )

    def add(self, token: ShownToken) -> None:
        """Take a token whose text may not be shown yet."""
        self._tokens.add(token)

    def take(self, text: str, *, ended: Completion | None) -> dict[str, Any]:
        """Return a choice with text that is new, and the tokens that begin in it.

        Args:
            text: The text.
            ended: The whole text, if this is its end. Then all tokens are told of, the one that ended it too, unless
                a stop string cut them off.
        """
        ready = self._tokens.take(text, everything=ended is not None and ended.finish_reason != "stop")
        if self._echo is not None:
            text = self._echo.text + text
            ready = [*self._echo.echoed, *ready]
            self._echo = None
        logprobs = completion_logprobs(self._plan.lm.tokenizer, ready) if self._wants_logprobs else None
        reason = None if ended is None else finish_reason(ended)
        return {"text": text, "index": self._index, "logprobs": logprobs, "finish_reason": reason}


async def stream_completion(
    plan: CompletionPlan, engine: SharedEngine, office: PostOffice, tally: Tally
) -> AsyncGenerator[list[str]]:
    """Run a request; yield the data of events, those that are ready together."""
    options = plan.body.stream_options
    with_usage = options is not None and bool(options.include_usage)
    more: dict[str, Any] = {"usage": None} if with_usage else {}
    copies = plan.n if plan.requests[0].config.n == 1 else 1
    growing: dict[tuple[int, int], list[_Growing]] = {}
    for number, asked in enumerate(plan.asked):
        for index in range(asked.request.config.n):
            first = number * plan.n + index
            growing[number, index] = [_Growing(plan, asked, first + copy) for copy in range(copies)]
    n_tokens = 0
    try:
        if plan.body.echo:
            await read_prompts(plan, engine)
            everyone = [one for copies_of in growing.values() for one in copies_of]
            yield [json.dumps(_object(plan, [one.take("", ended=None)]) | more) for one in everyone]
        async with contextlib.aclosing(
            events_of(engine, plan.requests, office, watch_text=True, tally=tally)
        ) as batches:
            async for batch in batches:
                ready = []
                for place, event in batch:
                    n_tokens += event.token_id is not None
                    for one in growing[place, event.index]:
                        choice = _advance(one, event)
                        if choice is not None:
                            ready.append(json.dumps(_object(plan, [choice]) | more))
                if ready:
                    yield ready
        last = [json.dumps(_object(plan, []) | {"usage": usage(plan.prompt_tokens, n_tokens)})] if with_usage else []
        yield [*last, "[DONE]"]
    except Exception as error:  # the status was sent: what went wrong is an event like any other
        yield [json.dumps(to_api_error(error).body()), "[DONE]"]


def _advance(one: _Growing, event: Event) -> dict[str, Any] | None:
    """Return the choice that an event is worth, if any."""
    if event.token_id is not None:
        one.add(ShownToken(event.token_id, event.logprob, event.alternatives))
    return one.take(event.text, ended=event.completion) if event.text or event.completion is not None else None


def finish_reason(completion: Completion) -> str:
    """Return why a text ended, in the words of the interface."""
    return "length" if completion.finish_reason == "length" else "stop"


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Return the object ``usage``."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def _object(plan: CompletionPlan, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": plan.id,
        "object": "text_completion",
        "created": plan.created,
        "model": plan.body.model,
        "system_fingerprint": fingerprint(plan.lm),
        "choices": choices,
    }


def fingerprint(lm: LanguageModel) -> str:
    """Return what changes where the same seed may give another text: the model, its number format, the tokenizer."""
    return f"fp_{lm.tokenizer.fingerprint[:8]}{lm.facts.dtype}"
