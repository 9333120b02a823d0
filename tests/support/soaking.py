"""Many requests of all kinds at once, of which a third hang up at some moment."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from urllib.parse import urlsplit

_KINDS = ("text", "stream", "chat", "chat stream", "scores", "vector", "several", "wrong")


async def soak(
    address: str, model: str, *, count: int, clients: int = 48, seed: int = 0, scale: int = 1
) -> Counter[str]:
    """Send requests; return how they ended, by kind.

    Args:
        address: The server's.
        model: Id of its model.
        count: How many requests.
        clients: How many at once.
        seed: Of what is asked and who hangs up when.
        scale: How much longer texts are than a few tokens.
    """
    rng = random.Random(seed)
    plans = [(rng.choice(_KINDS), rng.random() < 1 / 3, rng.random(), rng.randrange(10**6)) for _ in range(count)]
    ended: Counter[str] = Counter()

    async def work() -> None:
        while plans:
            kind, hangs_up, moment, number = plans.pop()
            ended[await _ask(address, model, kind, hangs_up, moment, number, scale)] += 1

    await asyncio.gather(*[work() for _ in range(clients)])
    return ended


async def _ask(address: str, model: str, kind: str, hangs_up: bool, moment: float, number: int, scale: int) -> str:
    url = urlsplit(address)
    path, body = _body(kind, model, number, scale)
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    try:
        if hangs_up and moment < 0.2:
            # In the middle of what it sends.
            writer.write(data[: len(data) // 2])
            await writer.drain()
            return "hung up early"
        writer.write(data)
        await writer.drain()
        if hangs_up:
            await asyncio.wait_for(reader.readline(), 30 if moment > 0.6 else 0.2 * moment)
            return "hung up"
        answer = await asyncio.wait_for(reader.read(), 120)
        return f"{kind}: {answer.split(b' ', 2)[1].decode()}"
    except TimeoutError:
        return "hung up" if hangs_up else f"{kind}: no answer"
    finally:
        # No goodbye: the connection is reset.
        writer.transport.abort()


def _body(kind: str, model: str, number: int, scale: int) -> tuple[str, dict[str, object]]:
    rng = random.Random(number)
    words = " ".join(rng.choice(["one", "two", "tree", "house", "sea"]) for _ in range(rng.randint(1, 6 * scale)))
    length = rng.randint(1, 12 * scale)
    if kind.startswith("chat"):
        messages = [{"role": "user", "content": words}]
        body: dict[str, object] = {"model": model, "messages": messages, "max_tokens": length, "stream": "str" in kind}
        if number % 5 == 0:
            body["response_format"] = {"type": "json_object"}
        return "/v1/chat/completions", body
    if kind == "vector":
        return "/v1/embeddings", {"model": model, "input": [words, words[:9]]}
    body = {"model": model, "prompt": words, "max_tokens": length, "stream": kind == "stream"}
    if kind == "several":
        body |= {"n": rng.randint(2, 3), "prompt": [words, words[:5]], "best_of": 3}
    if kind == "scores":
        body |= {"echo": True, "logprobs": 1, "max_tokens": 1}
    if kind == "wrong":
        body |= rng.choice([{"max_tokens": 10**6}, {"model": "none"}, {"logit_bias": {"5": 1000}}, {"prompt": [10**8]}])
    return "/v1/completions", body
