"""Print what programs that others wrote get of a server; run it with a Python that has them.

python -m venv clients && clients/bin/pip install llm litellm libretranslatepy deep-translator argos-translate-files
nlpkit serve & clients/bin/python tests/benchmarks/conformance_clients.py http://127.0.0.1:8000 default

Of litellm: completions and chat, streamed or not, at once or later. Of llm: its command. Of LibreTranslate's: its own
client, Argos Translate's and deep-translator's, and argos-translate-files, whose translation is the server's. A program
that is missing counts as failed.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ADDRESS, MODEL = sys.argv[1].rstrip("/"), sys.argv[2]
BASE = f"{ADDRESS}/v1"
PROMPT = "The capital of France is"
MESSAGES = [{"role": "user", "content": "Name a fruit."}]
SCHEMA = {
    "type": "object",
    "properties": {"fruit": {"enum": ["apple", "pear"]}},
    "required": ["fruit"],
    "additionalProperties": False,
}
KEY = {"api_base": BASE, "api_key": "none"}
# Read when litellm is imported; it would ask the internet what models cost.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
HOME = Path(tempfile.mkdtemp())


def litellm_text(**asked: Any) -> Any:
    import litellm  # type: ignore[import-not-found, unused-ignore]

    asked = {"prompt": PROMPT, "max_tokens": 6, "temperature": 0, **asked}
    return litellm.text_completion(model=f"text-completion-openai/{MODEL}", **asked, **KEY)


def litellm_chat(*, provider: str = "openai", **asked: Any) -> Any:
    import litellm

    asked = {"messages": MESSAGES, "max_tokens": 9, "temperature": 0, **asked}
    return litellm.completion(model=f"{provider}/{asked.pop('model', MODEL)}", **asked, **KEY)


def litellm_completion() -> bool:
    answer = litellm_text()
    return bool(answer.choices[0].text.strip()) and answer.usage.completion_tokens == 6


def litellm_completion_streamed() -> bool:
    parts = litellm_text(stream=True)
    return "".join(part.choices[0].text or "" for part in parts if part.choices) == litellm_text().choices[0].text


def litellm_completion_of_several() -> bool:
    answer = litellm_text(
        prompt=[PROMPT, "Hello"], n=2, best_of=3, logprobs=2, echo=True, stop=["\n"], presence_penalty=0.5,
        frequency_penalty=0.5, logit_bias={"198": -100}, temperature=1, user="me",
    )  # fmt: skip
    return len(answer.choices) == 4 and answer.choices[0].text.startswith(PROMPT)


def litellm_chat_answer() -> bool:
    answer = litellm_chat(seed=1, stop=["\n\n"], user="me")
    return bool(answer.choices[0].message.content) and answer.usage.prompt_tokens > 0


def litellm_chat_streamed() -> bool:
    parts = list(litellm_chat(stream=True, stream_options={"include_usage": True}))
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    used = [part.usage for part in parts if getattr(part, "usage", None)]
    return text == litellm_chat().choices[0].message.content and used[-1].completion_tokens == 9


def litellm_as_vllm() -> bool:
    return bool(litellm_chat(provider="hosted_vllm").choices[0].message.content)


def litellm_log_probabilities() -> bool:
    told = litellm_chat(logprobs=True, top_logprobs=3).choices[0].logprobs.content
    return len(told) == 9 and all(len(one.top_logprobs) == 3 for one in told)


def litellm_schema() -> bool:
    form = {"type": "json_schema", "json_schema": {"name": "fruit", "schema": SCHEMA}}
    answer = litellm_chat(response_format=form, max_tokens=40).choices[0].message.content
    return json.loads(answer)["fruit"] in ("apple", "pear")


def litellm_asynchronous() -> bool:
    import litellm

    async def go() -> bool:
        asked = {"model": f"openai/{MODEL}", "messages": MESSAGES, "max_tokens": 5, "temperature": 0, **KEY}
        answers = await asyncio.gather(*[litellm.acompletion(**asked) for _ in range(4)])
        parts = [part async for part in await litellm.acompletion(**asked, stream=True)]
        return len({one.choices[0].message.content for one in answers}) == 1 and len(parts) > 1

    return asyncio.run(go())


def litellm_embedding() -> bool:
    import litellm

    answer = litellm.embedding(model=f"openai/{MODEL}", input=["Hello", "Bye"], **KEY)
    return len(answer.data) == 2 and len(answer.data[0]["embedding"]) > 1


def litellm_models() -> bool:
    import litellm

    return MODEL in litellm.get_valid_models(check_provider_endpoint=True, custom_llm_provider="openai", **KEY)


def litellm_errors() -> bool:
    import litellm

    seen = []
    for wrong in ({"model": "nobody"}, {"messages": [{"role": "user", "content": "word " * 20_000}]},
                  {"temperature": 7}, {"tools": [{"type": "function", "function": {"name": "f"}}]}):  # fmt: skip
        try:
            litellm_chat(**wrong, num_retries=0)
        except litellm.exceptions.OpenAIError as error:  # type: ignore[attr-defined, unused-ignore]
            seen.append(type(error).__name__)
        except Exception as error:
            seen.append(type(error).__name__)
    return seen[0] == "NotFoundError" and set(seen[1:]) <= {"BadRequestError", "ContextWindowExceededError"}


def llm(*arguments: str) -> str:
    """Run the command llm, whose settings name the server; return what it prints."""
    (HOME / "extra-openai-models.yaml").write_text(
        f"- {{model_id: served, model_name: '{MODEL}', api_base: '{BASE}', supports_schema: true}}\n"
        f"- {{model_id: served-text, model_name: '{MODEL}', api_base: '{BASE}', completion: true}}\n"
    )
    where = {**os.environ, "LLM_USER_PATH": str(HOME)}
    done = subprocess.run(
        [sys.executable, "-m", "llm", *arguments], env=where, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    return done.stdout.strip() if done.returncode == 0 else f"error: {done.stderr.strip()}"


def options(**values: float) -> list[str]:
    return [word for name, value in values.items() for word in ("-o", name, str(value))]


def llm_answers(*arguments: str) -> bool:
    told = llm(*arguments)
    return bool(told) and not told.startswith("error:")


def llm_chat() -> bool:
    asked = ["-m", "served", "-s", "Be brief.", *options(temperature=0, max_tokens=9, seed=1), "Name a fruit."]
    return llm_answers(*asked) and llm(*asked) == llm(*asked, "--no-stream")


def llm_conversation() -> bool:
    return llm_answers("-m", "served", "-c", *options(max_tokens=9), "Another one?")


def llm_completion() -> bool:
    asked = ["-m", "served-text", *options(temperature=0, max_tokens=6), PROMPT]
    return llm_answers(*asked) and llm(*asked) == llm(*asked, "--no-stream")


def llm_schema() -> bool:
    told = llm("-m", "served", "--schema", json.dumps(SCHEMA), "Name a fruit.")
    return json.loads(told)["fruit"] in ("apple", "pear")


def llm_endpoint() -> bool:
    return llm_answers("openai", "endpoint", BASE, "-m", MODEL, *options(max_tokens=9), "Name a fruit.")


def llm_models() -> bool:
    return MODEL in llm("openai", "endpoint", BASE, "--models").splitlines()


def llm_error() -> bool:
    return "does not exist here" in llm("openai", "endpoint", BASE, "-m", "nobody", "Hello")


def libretranslatepy() -> bool:
    from libretranslatepy import LibreTranslateAPI

    api = LibreTranslateAPI(ADDRESS)
    codes = {one["code"] for one in api.languages()}
    found = api.detect("Der Hund und die Katze sind nicht im Garten.")[0]["language"]
    return bool(api.translate("Good morning.", "en", "de")) and {"en", "de"} <= codes and found == "de"


def argos_client() -> Any:
    from argostranslate.apis import LibreTranslateAPI  # type: ignore[import-not-found, unused-ignore]

    return LibreTranslateAPI(ADDRESS)


def argos_translate() -> bool:
    api = argos_client()
    codes = {one["code"] for one in api.languages()}
    found = api.detect("Der Hund und die Katze sind nicht im Garten.")[0]["language"]
    return bool(api.translate("Good morning.", "en", "de")) and {"en", "de"} <= codes and found == "de"


def deep_translator() -> bool:
    from deep_translator import LibreTranslator  # type: ignore[import-not-found, unused-ignore]

    translator = LibreTranslator(source="en", target="de", custom_url=f"{ADDRESS}/", api_key="none")
    return all(translator.translate_batch(["Good morning.", "Good evening."]))


def argos_translate_files() -> bool:
    """Documents that argos-translate-files takes apart, each sentence translated by the server."""
    import argostranslatefiles  # type: ignore[import-not-found, unused-ignore]
    from argostranslate.translate import ITranslation  # type: ignore[import-not-found, unused-ignore]

    api = argos_client()

    class Served(ITranslation):  # type: ignore[misc, unused-ignore]
        from_lang, to_lang = SimpleNamespace(code="en"), SimpleNamespace(code="de")

        def translate(self, text: str) -> str:
            return str(api.translate(text, "en", "de"))

        def hypotheses(self, text: str, num_hypotheses: int = 4) -> list[Any]:
            return [SimpleNamespace(value=self.translate(text), score=0.0)]

    text, page = HOME / "note.txt", HOME / "page.html"
    text.write_text("Good morning.\n")
    page.write_text("<html><body><p>Good <b>morning</b>.</p></body></html>")
    for path in (text, page):
        made = Path(argostranslatefiles.translate_file(Served(), str(path)))
        if not made.read_text() or made.read_text() == path.read_text():
            return False
    return True


def files_up_and_down() -> bool:
    """What pages for LibreTranslate do with a document: settings, a form with the file, the address in the answer."""
    import requests  # type: ignore[import-untyped, unused-ignore]

    kinds = requests.get(f"{ADDRESS}/frontend/settings", timeout=60).json()["supportedFilesFormat"]
    path = HOME / "note.docx"
    with zipfile.ZipFile(path, "w") as file:
        for name, content in DOCX.items():
            file.writestr(name, content)
    with path.open("rb") as file:  # type: ignore[assignment]
        told = requests.post(
            f"{ADDRESS}/translate_file", files={"file": file}, data={"source": "en", "target": "de"}, timeout=300
        ).json()
    made = HOME / "made.docx"
    made.write_bytes(requests.get(told["translatedFileUrl"], timeout=60).content)
    with zipfile.ZipFile(made) as file:
        return {".docx", ".odt", ".txt", ".html"} <= set(kinds) and b"Good morning" not in file.read(
            "word/document.xml"
        )


DOCX = {
    "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Override PartName="/word/document.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>',
    "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship '
    'Id="r" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
    'Target="word/document.xml"/></Relationships>',
    "word/document.xml": '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>'
    "<w:p><w:r><w:t>Good morning.</w:t></w:r></w:p></w:body></w:document>",
}

CASES: list[Callable[[], bool]] = [
    litellm_completion, litellm_completion_streamed, litellm_completion_of_several, litellm_chat_answer,
    litellm_chat_streamed, litellm_as_vllm, litellm_log_probabilities, litellm_schema, litellm_asynchronous,
    litellm_embedding, litellm_models, litellm_errors,
    llm_chat, llm_conversation, llm_completion, llm_schema, llm_endpoint, llm_models, llm_error,
    libretranslatepy, argos_translate, deep_translator, argos_translate_files, files_up_and_down,
]  # fmt: skip
PROGRAMS = ("litellm", "llm", "libretranslatepy", "argos-translate-lt", "deep-translator", "argos-translate-files")


def version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


if __name__ == "__main__":
    passed = 0
    for case in CASES:
        try:
            right = case()
        except Exception as error:  # whatever a client raises is what is to be seen
            print(f"{case.__name__}: {type(error).__name__}: {error}")
            continue
        passed += right
        print(f"{case.__name__}: {'ok' if right else 'WRONG'}", flush=True)
    print(f"{', '.join(f'{name} {version(name)}' for name in PROGRAMS)}: {passed} of {len(CASES)}")
    sys.exit(passed < len(CASES))
