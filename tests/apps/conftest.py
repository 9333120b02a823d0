"""A language model that says what a test tells it to, with the shape of the real one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

from nlpkit.core.chat.message import Message
from nlpkit.core.decode.request import Completion, Generation, Request, TokenEvent
from nlpkit.core.errors import NlpkitError

_PIECE = re.compile(r"\s?[^\W_]{1,4}|\s|.", re.DOTALL)


class FakeLM:
    """Answers each prompt with ``reply(prompt text, request)``; counts and remembers what it was asked."""

    name = "fake"
    adapter = None
    adapter_sha256: str | None = None
    learned_tasks: frozenset[str] = frozenset()
    learned_options: tuple[Mapping[str, str], ...] = ()
    vocabulary: frozenset[str] = frozenset()
    dtype = "fp32"
    adds_bos = False

    def __init__(self, reply: Callable[[str, Request], str], *, max_seq_len: int = 1000, reverse: bool = True) -> None:
        self.reply = reply
        self.max_seq_len = max_seq_len
        self.reverse = reverse
        self.prompts: list[str] = []
        self.requests: list[Request] = []
        self.calls: list[int] = []
        self._ids: dict[str, int] = {}
        self._pieces: list[str] = []

    bos_id: int | None = None

    @property
    def tokenizer(self) -> FakeLM:
        return self

    @property
    def chat(self) -> FakeLM:
        return self

    def encode(self, text: str, *, add_bos: bool = False, at_start: bool = True) -> list[int]:
        ids = []
        for piece in _PIECE.findall(text):
            if piece not in self._ids:
                self._ids[piece] = len(self._pieces)
                self._pieces.append(piece)
            ids.append(self._ids[piece])
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self._pieces[i] for i in ids)

    def render_tokens(
        self, messages: Sequence[Message], tokenizer: object, *, add_generation_prompt: bool
    ) -> list[int]:
        return self.encode("".join(f"<{message.role}>{message.content}</>" for message in messages))

    def has_token(self, text: str) -> bool:
        return text in self.vocabulary

    def count_tokens(self, text: str) -> int:
        return len(self.encode(text))

    def _complete(self, request: Request) -> tuple[Completion, ...]:
        config = request.config
        if len(request.prompt_ids) + config.max_tokens > self.max_seq_len:
            raise NlpkitError(f"too long: {len(request.prompt_ids)} + {config.max_tokens} > {self.max_seq_len}")
        prompt = self.decode(request.prompt_ids)
        self.prompts.append(prompt)
        self.requests.append(request)
        text = self.reply(prompt, request)
        completions = []
        stops = [text.index(stop) for stop in config.stop if stop in text]
        text = text[: min(stops)] if stops else text
        for index in range(config.n):
            ids = self.encode(text + "!" * index)
            kept = ids[: config.max_tokens]
            completions.append(
                Completion(
                    text=self.decode(kept),
                    token_ids=tuple(kept),
                    logprobs=tuple(-0.1 * (index + 1) for _ in kept),
                    finish_reason="length" if len(kept) < len(ids) else "stop" if stops else "eos",
                    index=index,
                    seed=config.seed if config.temperature > 0 else None,
                )
            )
        return tuple(completions)

    def generate(
        self, requests: Sequence[Request], *, batch_tokens: int | None = None
    ) -> Iterator[tuple[int, Generation]]:
        self.calls.append(len(requests))
        order = range(len(requests))
        for place in reversed(order) if self.reverse else order:
            request = requests[place]
            completions = self._complete(request)
            yield place, Generation(completions=completions, prompt_tokens=len(request.prompt_ids), seconds=0.01)

    def stream(self, request: Request) -> Iterator[TokenEvent]:
        (completion,) = self._complete(request)
        for token_id in completion.token_ids:
            yield TokenEvent(text=self._pieces[token_id], token_id=token_id)
        yield TokenEvent(text="", completion=completion)


@pytest.fixture
def fake_lm() -> type[FakeLM]:
    return FakeLM
