"""From the fields of a request to the options of decoding."""

from __future__ import annotations

from nlpkit.apps.serve.errors import ApiError
from nlpkit.apps.serve.openai.bodies import SamplingBody
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.constraint import Constraint


def check_stream(body: SamplingBody) -> None:
    """Refuse options of a stream where there is none.

    Raises:
        ApiError: There are such.
    """
    if body.stream_options is not None and not body.stream:
        raise ApiError(
            "stream_options is only for streams: set stream to true, or leave it out.", param="stream_options"
        )


def decode_config(
    body: SamplingBody,
    *,
    max_tokens: int,
    n: int,
    logprobs: int | None,
    constraint: Constraint | None = None,
) -> DecodeConfig:
    """Return the options of decoding that a request asks for.

    Args:
        body: The request.
        max_tokens: Most tokens of each text.
        n: Texts for each prompt.
        logprobs: How many likelier tokens to tell; None tells nothing.
        constraint: A form that the text must have.

    Raises:
        ConfigError: They contradict each other.
    """
    temperature = 1.0 if body.temperature is None else body.temperature
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return DecodeConfig(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        # All texts of a request that does not sample are the same: one is enough.
        n=n if temperature > 0 else 1,
        stop=stop,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        logit_bias={int(token_id): bias for token_id, bias in (body.logit_bias or {}).items()},
        # Seeds of the engine are not negative.
        seed=None if body.seed is None else body.seed % 2**63,
        logprobs=logprobs,
        constraint=constraint,
    )
