"""A language model without weights, for tests of everything around the model. Imports no torch.

Run as a program it is the `nlpkit` command on that model, so that pipes, signals and full disks can be tried for real
in a second. Tokens are characters; the completion is the last line of the prompt in capitals, one token at a time.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import nlpkit.core.load
from nlpkit.core.chat.message import Message
from nlpkit.core.decode.request import Completion, Generation, Request, TokenEvent
from nlpkit.core.errors import ConfigError


class FakeModel:
    """Completes a prompt with `reply` of its last line."""

    def __init__(self, *, reply: Callable[[str], str] = str.upper, max_seq_len: int = 4096, delay: float = 0.0) -> None:
        self.reply = reply
        self.max_seq_len = max_seq_len
        self.delay = delay
        self.name = "fake"
        self.adapter: str | None = None
        self.adapter_sha256: str | None = None
        self.learned_tasks: frozenset[str] = frozenset()
        self.learned_options: tuple[Mapping[str, str], ...] = ()
        self.notes: tuple[str, ...] = ()
        self.requests: list[Request] = []
        self.loaded_with: dict[str, object] = {}

    adds_bos = False
    bos_id: int | None = None

    @property
    def tokenizer(self) -> FakeModel:
        return self

    @property
    def chat(self) -> FakeModel:
        return self

    def encode(self, text: str, *, add_bos: bool = False, at_start: bool = True) -> list[int]:
        return [ord(character) for character in text]

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(map(chr, token_ids))

    def has_token(self, text: str) -> bool:
        return False

    def count_tokens(self, text: str) -> int:
        return len(text)

    def render_tokens(
        self, messages: Sequence[Message], tokenizer: object, *, add_generation_prompt: bool
    ) -> list[int]:
        return self.encode("\n".join(message.content for message in messages))

    def _complete(self, request: Request, index: int = 0) -> Completion:
        self.requests.append(request)
        text = self.reply(self.decode(request.prompt_ids).removesuffix("\n").split("\n")[-1])
        limit = request.config.max_tokens
        ids = self.encode(text[:limit])
        return Completion(
            text=text[:limit] if index == 0 else f"{text[:limit]} {index + 1}",
            token_ids=tuple(ids),
            logprobs=tuple(-0.5 for _ in ids),
            finish_reason="eos" if len(text) <= limit else "length",
            index=index,
            seed=request.config.seed if request.config.temperature > 0 else None,
        )

    def generate(
        self, requests: Sequence[Request], *, batch_tokens: int | None = None
    ) -> Iterator[tuple[int, Generation]]:
        # Shortest first, as a real engine would: whoever needs an order must restore it.
        for place in sorted(range(len(requests)), key=lambda i: len(requests[i].prompt_ids)):
            request = requests[place]
            time.sleep(self.delay)
            completions = tuple(self._complete(request, index) for index in range(request.config.n))
            yield place, Generation(completions=completions, prompt_tokens=len(request.prompt_ids))

    def stream(self, request: Request) -> Iterator[TokenEvent]:
        completion = self._complete(request)
        for character in completion.text:
            time.sleep(self.delay)
            yield TokenEvent(text=character, token_id=ord(character))
        yield TokenEvent(text="", completion=completion)


def loading(model: FakeModel) -> Callable[..., FakeModel]:
    """Return a stand-in for `nlpkit.core.load.load_model` that loads `model`."""

    def load_model(name: str = "default", **options: object) -> FakeModel:
        if name == "no-such-model":
            raise ConfigError("There is no model 'no-such-model'. Did you mean 'default'?")
        model.loaded_with = {"name": name, **options}
        return model

    return load_model


if __name__ == "__main__":
    nlpkit.core.load.load_model = loading(FakeModel(delay=float(os.environ.get("FAKE_DELAY", "0"))))  # type: ignore[assignment]
    from nlpkit.cli import main

    sys.exit(main())
