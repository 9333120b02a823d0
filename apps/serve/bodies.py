"""Bodies of requests: each field with its type, its range and its meaning; the schema of the interface comes of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from nlpkit.apps.serve.errors import ApiError

MOST_PROMPTS = 256
"""Most prompts of one request."""
MOST_BIASES = 1024
"""Most entries of a logit bias."""

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Text = Annotated[str, Field(max_length=4_000_000)]
Prompt = (
    Text
    | Annotated[list[TokenId], Field(min_length=1)]
    | Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS)]
    | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1, max_length=MOST_PROMPTS)]
)
StopText = Annotated[str, Field(min_length=1, max_length=1000)]
Stop = StopText | Annotated[list[StopText], Field(max_length=4)]
Bias = Annotated[float, Field(ge=-100, le=100)]


class Body(BaseModel):
    """A JSON object; a field that is not known, or of another type, is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class StreamOptions(Body):
    """Options of a stream."""

    include_usage: bool | None = Field(None, description="Send the number of tokens in a last chunk of its own.")
    include_obfuscation: bool | None = Field(
        None, description="Accepted; nothing is padded: streams of a local server need no cover."
    )


class SamplingBody(Body):
    """What completions and chat completions have in common. A field that is null is as if it were left out."""

    temperature: float | None = Field(None, ge=0, le=2, description="0 takes the likeliest token; 1 by default.")
    top_p: float | None = Field(None, ge=0, le=1, description="Sample from the likeliest tokens of this total; 1.")
    n: int | None = Field(None, ge=1, le=128, description="Texts for each prompt; 1.")
    stream: bool | None = Field(None, description="Send events as the text is written.")
    stream_options: StreamOptions | None = Field(None, description="Only with `stream`.")
    stop: Stop | None = Field(None, description="Up to four strings; the text ends before the first of them.")
    presence_penalty: float | None = Field(None, ge=-2, le=2, description="Once for tokens that were written; 0.")
    frequency_penalty: float | None = Field(None, ge=-2, le=2, description="For each time that a token was written; 0.")
    logit_bias: dict[str, Bias] | None = Field(
        None, max_length=MOST_BIASES, description="Token id to what is added to its logit; -100 bans it."
    )
    seed: int | None = Field(
        None, ge=-(2**63), lt=2**63, description="The same seed gives the same text, whatever runs beside it."
    )
    user: str | None = Field(None, max_length=1000, description="Accepted, and neither used nor logged.")

    @field_validator("logit_bias")
    @classmethod
    def _check_bias(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        for key in value or ():
            if not (key.isascii() and key.isdecimal() and len(key) <= 10):
                raise ValueError(f"{key[:40]!r} is no token id; it must be a whole number, as in {{'50256': -100}}")
        return value


class CompletionBody(SamplingBody):
    """A request to continue texts."""

    model: str = Field(max_length=500, description="Id of a model; GET /v1/models lists them.")
    prompt: Prompt | None = Field(
        None,
        description="A text, token ids, or a list of one of the two; left out, a new text is begun.",
    )
    max_tokens: int | None = Field(None, ge=0, description="Most tokens to write for each text; 16.")
    best_of: int | None = Field(
        None, ge=0, le=20, description="Write so many texts, and return the `n` whose tokens are likeliest on average."
    )
    logprobs: int | None = Field(
        None, ge=0, le=5, description="Tell each token's log-probability, and so many likelier ones at its place."
    )
    echo: bool | None = Field(None, description="Return the prompt before the text.")
    suffix: str | None = Field(None, max_length=1_000_000, description="Refused: no model here learned to fill in.")


class TextPart(Body):
    """A part of a message."""

    type: Literal["text"]
    text: Text


class MessageBody(Body):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart] | None = Field(None, description="A text, or parts of one.")
    name: str | None = Field(None, max_length=64, description="Accepted and not used.")
    refusal: None = None
    annotations: list[Any] | None = Field(None, max_length=0)
    audio: None = None
    function_call: None = None
    tool_calls: None = None


_B = TypeVar("_B", bound=BaseModel)


def read_body(kind: type[_B], data: bytes, **known: object) -> _B:
    """Read a request's body.

    Args:
        kind: What it should be.
        data: JSON.
        known: Fields that the address says, where the body leaves them out.

    Raises:
        ApiError: It is something else; the message names the field.
    """
    try:
        if known:
            values = _Any.model_validate_json(data).model_dump()
            for name, value in known.items():
                values.setdefault(name, value)
            return kind.model_validate(values)
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise _refusal(error) from None
    except RecursionError:
        raise ApiError("The body is nested too deeply.") from None


class _Any(BaseModel):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)


def _refusal(error: ValidationError) -> ApiError:
    # Of the forms that a field may have, the last is told of as much as the first: the longest path is the closest.
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    first = max(problems, key=lambda one: (one["loc"][:1] == problems[0]["loc"][:1], len(one["loc"])))
    path = [str(part) for part in first["loc"]]
    if not path:
        return ApiError(f"The body cannot be read: {first['msg']}. It must be a JSON object.")
    field = path[0]
    if first["type"] == "extra_forbidden":
        where = ".".join(path)
        return ApiError(
            f"Unrecognized request argument supplied: {where}. Leave it out; /docs lists what there is.",
            param=where,
            code="unknown_parameter",
        )
    if first["type"] == "missing":
        return ApiError(
            f"You must provide a {'.'.join(path)} parameter.", param=".".join(path), code="missing_parameter"
        )
    forms = {one["msg"] for one in problems if one["loc"][:1] == (field,)}
    message = "; or ".join(sorted(forms)[:6]) if len(forms) > 1 else first["msg"]
    return ApiError(
        f"Invalid value for {field}: {message.removeprefix('Value error, ')}.", param=field, code="invalid_value"
    )
