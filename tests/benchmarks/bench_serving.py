r"""Print how fast servers answer many clients at once: tokens a second, and seconds to the first token.

    python tests/benchmarks/bench_serving.py [--clients 16 --clients 64] [--chart serving.svg] \
        [--peer llama-cpp-python=http://127.0.0.1:8302/v1=default] [--peer transformers=http://127.0.0.1:8301/v1=$PWD/hf]

nlpkit's server is started by the script; others are started before it, on the same model, and named with --peer. Each
client sends streamed completions one after another; all clients begin at once; prompts differ in all but a few words.
The peers above, on a GGUF file and on what `nlpkit models convert FILE --to hf -o hf` makes of it:

    CMAKE_ARGS="-DLLAVA_BUILD=OFF" pip install --no-binary llama-cpp-python "llama-cpp-python[server]"
    python -m llama_cpp.server --model FILE --model_alias default --n_ctx 8192 --n_threads 2 \
        --interrupt_requests false --port 8302
    pip install "transformers[serving]"
    transformers serve $PWD/hf --device cpu --port 8301 [--continuous-batching]

Without `--interrupt_requests false` the first cuts a streamed answer short when the next request comes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

WORDS = [
    "the",
    "a",
    "of",
    "in",
    "old",
    "new",
    "house",
    "sea",
    "light",
    "road",
    "river",
    "city",
    "day",
    "night",
    "long",
    "short",
    "small",
    "great",
    "red",
    "blue",
]


@dataclass
class Seen:
    """What the clients saw."""

    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    tokens: int = 0
    answers: int = 0
    failed: int = 0


async def ask(base: str, model: str, prompt: str, n_tokens: int, seen: Seen, *, chat: bool) -> None:
    url = urlsplit(base)
    asked = {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
    body = json.dumps(
        {"model": model, **asked, "max_tokens": n_tokens, "temperature": 0, "stream": True,
         "stream_options": {"include_usage": True}}
    ).encode()  # fmt: skip
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    began = time.perf_counter()
    head = (f"POST {url.path}/{'chat/' * chat}completions HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n")  # fmt: skip
    writer.write(head.encode() + body)
    first, used, pieces = None, 0, 0
    try:
        while line := await reader.readline():
            if not line.startswith(b"data: {"):
                continue
            part = json.loads(line[6:])
            if any(
                choice.get("text") or (choice.get("delta") or {}).get("content") for choice in part.get("choices", ())
            ):
                pieces += 1
                first = first or time.perf_counter() - began
            if part.get("usage"):
                used = part["usage"]["completion_tokens"]
    finally:
        writer.close()
    # Some servers do not say; a piece is a token then.
    used = used or pieces
    if first is None or not used:
        seen.failed += 1
        return
    seen.first.append(first)
    seen.whole.append(time.perf_counter() - began)
    seen.tokens += used
    seen.answers += 1


async def load(
    base: str, model: str, *, clients: int, each: int, n_prompt: int, n_tokens: int, chat: bool, seed: int
) -> tuple[Seen, float]:
    # No prompt comes twice: what servers keep of prompts is measured elsewhere.
    rng = random.Random(seed)
    seen = Seen()

    async def client(prompts: list[str]) -> None:
        for prompt in prompts:
            await ask(base, model, prompt, n_tokens, seen, chat=chat)

    everyone = [[" ".join(rng.choices(WORDS, k=n_prompt)) for _ in range(each)] for _ in range(clients)]
    began = time.perf_counter()
    await asyncio.gather(*[client(prompts) for prompts in everyone])
    return seen, time.perf_counter() - began


@dataclass(frozen=True)
class Row:
    """What one server did for so many clients: of each quantity the middle, the lowest and the highest of all runs."""

    server: str
    clients: int
    rates: tuple[float, float, float]
    firsts: tuple[float, float, float]


def draw(rows: list[Row]) -> str:
    """Draw both quantities, a dot for each server and number of clients, as one SVG."""
    from nlpkit.apps.show.charts import Estimate, interval_chart

    servers = list(dict.fromkeys(row.server for row in rows))
    charts = []
    for unit, name in (("tokens a second", "rates"), ("seconds to the first token", "firsts")):
        estimates = [
            Estimate(f"{row.server}, {row.clients}", *getattr(row, name), servers.index(row.server))
            for row in sorted(rows, key=lambda row: row.clients)
        ]
        charts.append((unit, interval_chart(estimates, unit=unit)))
    parts, top = [], 0
    for unit, chart in charts:
        width, height = (int(number) for number in re.search(r'viewBox="0 0 (\d+) (\d+)"', chart).groups())  # type: ignore[union-attr]
        parts.append(f'<text class="label" x="8" y="{top + 18}">{unit}</text>')
        parts.append(chart.replace("<svg ", f'<svg y="{top + 28}" width="{width}" height="{height}" ', 1))
        top += height + 44
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}" height="{top}">'
        f'<style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


STYLE = (
    ":root { --series-0: #2f6fde; --series-1: #d9632a; --series-2: #2c9c69; --series-3: #a24bb8 }"
    " text { font: 13px system-ui, sans-serif; fill: #1c2330 } .tick { font-size: 12px; fill: #5b6577 }"
    " .value { font-weight: 650 } .grid { stroke: #d8dde6 }"
)


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
    from served import serving

    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, action="append")
    parser.add_argument("--each", type=int, default=2, help="requests of each client")
    parser.add_argument("--prompt", type=int, default=64, help="words of each prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--chat", action="store_true", help="ask for chat completions")
    parser.add_argument("--model", default="default")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--chart", type=Path, help="write a plot as SVG")
    parser.add_argument("--peer", action="append", default=[], help="NAME=BASE_URL=MODEL")
    options = parser.parse_args()
    with serving("--model", options.model, "--dtype", options.dtype) as (address, _):
        servers = [("nlpkit", f"{address}/v1", options.model), *(peer.split("=", 2) for peer in options.peer)]
        print(
            f"{'server':16} {'clients':>7} {'tokens/s':>9} {'first token, s':>15} {'95th':>6} {'answer, s':>10} "
            f"{'tokens each':>12} failed"
        )
        shape = {"each": options.each, "n_prompt": options.prompt, "n_tokens": options.tokens, "chat": options.chat}
        rows = []
        for clients in options.clients or [16, 64]:
            for name, base, model in servers:
                asyncio.run(load(base, model, clients=4, **{**shape, "each": 1, "n_tokens": 8}, seed=-1))
                runs = [
                    asyncio.run(load(base, model, clients=clients, **shape, seed=100 * clients + run))
                    for run in range(options.runs)
                ]
                rates = [seen.tokens / seconds for seen, seconds in runs]
                rate = statistics.median(rates)
                first = sorted(value for seen, _ in runs for value in seen.first) or [float("nan")]
                whole = [value for seen, _ in runs for value in seen.whole] or [float("nan")]
                answers = sum(seen.answers for seen, _ in runs)
                each = sum(seen.tokens for seen, _ in runs) / max(1, answers)
                print(f"{name:16} {clients:7} {rate:9.1f} {statistics.median(first):15.2f} "
                      f"{first[int(len(first) * 0.95)]:6.2f} {statistics.median(whole):10.2f} "
                      f"{each:12.1f} {sum(seen.failed for seen, _ in runs)}", flush=True)  # fmt: skip
                middles = [statistics.median(seen.first or [float("nan")]) for seen, _ in runs]
                spread = (statistics.median(first), min(middles), max(middles))
                rows.append(Row(name, clients, (rate, min(rates), max(rates)), spread))
        if options.chart:
            options.chart.write_text(draw(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
