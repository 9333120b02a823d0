"""Bodies of requests for chat completions and embeddings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from nlpkit.apps.serve.body import Body, at_most
from nlpkit.apps.serve.openai.bodies import Prompt, SamplingBody, Text

MOST_MESSAGES = 1000
"""Most messages of a conversation."""


class TextPart(Body):
    """A part of a message."""

    type: Literal["text"]
    text: Text


class MessageBody(Body):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(max_length=MOST_MESSAGES, fail_fast=True)] | None = Field(
        None, description="A text, or parts of one."
    )
    name: Annotated[str, Field(max_length=64)] | None = Field(None, description="Accepted and not used.")
    refusal: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None


class SchemaBody(Body):
    """A JSON schema and what it is called."""

    name: str = Field(min_length=1, max_length=64, pattern="^[A-Za-z0-9_-]+$")
    description: Annotated[str, Field(max_length=10_000)] | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema", description="Draft 2020-12.")
    strict: bool | None = Field(None, description="Accepted: a schema is always kept.")


class TextFormat(Body):
    """Any text."""

    type: Literal["text"]


class ObjectFormat(Body):
    """A JSON object of any shape."""

    type: Literal["json_object"]


class SchemaFormat(Body):
    """JSON that is valid under a schema."""

    type: Literal["json_schema"]
    json_schema: SchemaBody


ResponseFormat = Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")]


class ChatBody(SamplingBody):
    """A request to answer a conversation."""

    model: str = Field(max_length=500, description="Id of a model; GET /v1/models lists them.")
    messages: list[MessageBody] = Field(
        min_length=1, max_length=MOST_MESSAGES, fail_fast=True, description="Oldest first."
    )
    max_completion_tokens: int | None = Field(
        None, ge=1, description="Most tokens to write; by default 1024, or what there is room for."
    )
    max_tokens: int | None = Field(None, ge=1, description="The old name of max_completion_tokens, which wins.")
    logprobs: bool | None = Field(None, description="Tell the log-probability of each token.")
    top_logprobs: int | None = Field(None, ge=0, le=20, description="Tell so many likely tokens at its place.")
    response_format: ResponseFormat | None = Field(None, description="The form that the answer must have.")
    tools: Annotated[list[Any], Field(max_length=128)] | None = Field(None, description="Refused unless empty.")
    functions: Annotated[list[Any], Field(max_length=128)] | None = Field(None, description="Refused unless empty.")
    tool_choice: Literal["none", "auto"] | None = Field(None, description="Without tools both are the same.")
    function_call: Literal["none", "auto"] | None = Field(None, description="Without functions both are the same.")
    parallel_tool_calls: bool | None = Field(None, description="Without tools it means nothing.")
    store: Literal[False] | None = Field(None, description="Nothing is stored.")
    metadata: Annotated[dict[str, str], Field(max_length=16), at_most(16)] | None = Field(
        None, description="Accepted, and neither used nor kept."
    )
    service_tier: Literal["auto", "default"] | None = Field(None, description="There is one.")


class EmbeddingBody(Body):
    """A request to turn texts into vectors."""

    model: str = Field(max_length=500, description="Id of a model; GET /v1/models lists them.")
    input: Prompt = Field(description="A text, token ids, or a list of one of the two.")
    encoding_format: Literal["float", "base64"] | None = Field(None, description="float by default.")
    dimensions: int | None = Field(None, ge=1, description="Only the model's own number.")
    user: Annotated[str, Field(max_length=1000)] | None = Field(None, description="Accepted, and not used.")
