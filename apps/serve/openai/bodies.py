"""Bodies of requests: each field with its type, its range and its meaning; the schema of the interface comes of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nlpkit.apps.serve.body import Body, at_most

MOST_PROMPTS = 256
"""Most prompts of one request."""
MOST_BIASES = 1024
"""Most entries of a logit bias."""

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
Text = Annotated[str, Field(max_length=4_000_000)]
Prompt = (
    Text
    | TokenIds
    | Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)]
    | Annotated[list[TokenIds], Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)]
)
StopText = Annotated[str, Field(min_length=1, max_length=1000)]
Stop = StopText | Annotated[list[StopText], Field(max_length=4, fail_fast=True)]
BiasedId = Annotated[str, Field(pattern="^[0-9]{1,10}$")]
Bias = Annotated[float, Field(ge=-100, le=100)]


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
    logit_bias: Annotated[dict[BiasedId, Bias], Field(max_length=MOST_BIASES), at_most(MOST_BIASES)] | None = Field(
        None, description="Token id to what is added to its logit; -100 bans it."
    )
    seed: int | None = Field(
        None, ge=-(2**63), lt=2**63, description="The same seed gives the same text, whatever runs beside it."
    )
    user: str | None = Field(None, max_length=1000, description="Accepted, and neither used nor logged.")


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
