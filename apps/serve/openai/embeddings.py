"""``/v1/embeddings``: the mean of a text's hidden states behind the model's last norm, of length 1."""

from __future__ import annotations

import asyncio
import base64
import math
import sys
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nlpkit.apps.serve.errors import ApiError
from nlpkit.apps.serve.openai.completions import ids_of, texts_of, usage

if TYPE_CHECKING:
    from nlpkit.apps.serve.openai.chat_bodies import EmbeddingBody
    from nlpkit.core.decode.shared.engine import SharedEngine
    from nlpkit.core.language_model import LanguageModel


def plan_embeddings(body: EmbeddingBody, engine: SharedEngine, lm: LanguageModel) -> list[tuple[int, ...]]:
    """Return the token ids of each text. All are checked before any is read: a refused request leaves no work behind.

    Raises:
        ApiError: There is nothing to read of an empty text.
        NlpkitError: A text cannot be read.
    """
    found = []
    for given in texts_of(body.input):
        ids = ids_of(given, lm)
        engine.reader.check(ids, hidden=True)
        found.append(ids)
    return found


async def answer_embeddings(
    body: EmbeddingBody, texts: Sequence[tuple[int, ...]], engine: SharedEngine
) -> dict[str, Any]:
    """Read checked texts; return the answer's body.

    Raises:
        ApiError: The vectors cannot have so many dimensions as are asked for.
        NlpkitError: The engine gave up.
    """
    futures = [engine.reader.mean_hidden(ids) for ids in texts]
    means = await asyncio.gather(*map(asyncio.wrap_future, futures))
    if body.dimensions not in (None, len(means[0])):
        raise ApiError(
            f"dimensions is {body.dimensions}; vectors of {body.model} have {len(means[0])}. Leave it out.",
            param="dimensions",
        )
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(_unit(mean), body.encoding_format)}
        for index, mean in enumerate(means)
    ]
    n_tokens = sum(map(len, texts))
    counts = {name: value for name, value in usage(n_tokens, 0).items() if name != "completion_tokens"}
    return {"object": "list", "data": data, "model": body.model, "usage": counts}


def _unit(vector: Sequence[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector] if length else list(vector)


def _encoded(vector: Sequence[float], form: str | None) -> list[float] | str:
    """Return a vector as numbers, or as the base64 of 32-bit floats, the lowest byte first."""
    if form != "base64":
        return list(vector)
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
