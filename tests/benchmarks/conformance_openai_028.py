"""Print what the client of before version 1 (openai 0.28) gets of a server; run it with a Python that has that one.

python -m venv old && old/bin/pip install "openai==0.28.1" numpy
nlpkit serve & old/bin/python tests/benchmarks/conformance_openai_028.py http://127.0.0.1:8000/v1 default
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import openai  # type: ignore[import-not-found, unused-ignore]

openai.api_base, ENGINE = sys.argv[1], sys.argv[2]
openai.api_key = "none"
PROMPT = "The capital of France is"


def seed_code() -> bool:
    answer = openai.Completion.create(
        engine=ENGINE, prompt=PROMPT, max_tokens=50, temperature=0.5, top_p=1, frequency_penalty=0, presence_penalty=0
    )
    return bool(answer.choices[0].text.strip()) and answer["usage"]["prompt_tokens"] > 0


def by_model() -> bool:
    return bool(openai.Completion.create(model=ENGINE, prompt=PROMPT).choices[0].text)


def streamed() -> bool:
    asked = {"engine": ENGINE, "prompt": PROMPT, "temperature": 0, "max_tokens": 9}
    whole = openai.Completion.create(**asked).choices[0].text
    return "".join(part.choices[0].text for part in openai.Completion.create(**asked, stream=True)) == whole


def several() -> bool:
    answer = openai.Completion.create(
        engine=ENGINE, prompt=[PROMPT, "Hello"], n=2, best_of=3, logprobs=2, echo=True, stop=["\n"], user="me",
        logit_bias={"198": -100}, max_tokens=5,
    )  # fmt: skip
    return [choice.index for choice in answer.choices] == [0, 1, 2, 3] and answer.choices[0].text.startswith(PROMPT)


def chat() -> bool:
    messages = [{"role": "user", "content": "Hello"}]
    return bool(openai.ChatCompletion.create(model=ENGINE, messages=messages, max_tokens=9).choices[0].message.content)


def chat_streamed() -> bool:
    messages = [{"role": "user", "content": "Hello"}]
    parts = openai.ChatCompletion.create(model=ENGINE, messages=messages, max_tokens=9, stream=True)
    return bool("".join(part.choices[0].delta.get("content", "") for part in parts))


def asynchronous() -> bool:
    async def go() -> bool:
        asked = {"engine": ENGINE, "prompt": PROMPT, "max_tokens": 5}
        answers = await asyncio.gather(*[openai.Completion.acreate(**asked) for _ in range(4)])
        parts = [part async for part in await openai.Completion.acreate(**asked, stream=True)]
        return len(answers) == 4 and bool(parts)

    return asyncio.run(go())


def embedding() -> bool:
    return len(openai.Embedding.create(model=ENGINE, input="Hello")["data"][0]["embedding"]) > 1


def models() -> bool:
    return ENGINE in [model.id for model in openai.Model.list().data]


def refused() -> bool:
    try:
        openai.Completion.create(engine=ENGINE, prompt=PROMPT, temperature=7)
    except openai.error.InvalidRequestError as error:
        return error.param == "temperature"
    return False


def unknown_model() -> bool:
    try:
        openai.Completion.create(engine="nobody", prompt=PROMPT)
    except openai.error.InvalidRequestError as error:
        return error.http_status == 404
    return False


CASES: list[Callable[[], bool]] = [
    seed_code, by_model, streamed, several, chat, chat_streamed, asynchronous, embedding, models, refused, unknown_model,
]  # fmt: skip

if __name__ == "__main__":
    passed = 0
    for case in CASES:
        try:
            right = case()
        except Exception as error:  # whatever the client raises is what is to be seen
            print(f"{case.__name__}: {type(error).__name__}: {error}")
            continue
        passed += right
        print(f"{case.__name__}: {'ok' if right else 'WRONG'}")
    print(f"openai {openai.version.VERSION}: {passed} of {len(CASES)}")
    sys.exit(passed < len(CASES))
