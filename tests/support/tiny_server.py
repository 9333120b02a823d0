"""A server on a tiny random model whose tokens are bytes, in this process, on 127.0.0.1."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from tiny_models import tiny_config, tiny_gpt

from nlpkit.apps.serve.app import build_app
from nlpkit.apps.serve.models import ServedModels
from nlpkit.apps.serve.run import build_config, open_socket
from nlpkit.apps.serve.settings import ServedModel, ServeSettings
from nlpkit.core.chat.template import ChatTemplate
from nlpkit.core.language_model import LanguageModel, ModelFacts
from nlpkit.core.runners.gpt import GPTRunner

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


class ByteTokenizer:
    """A token for each byte; id 256 ends a text and has none."""

    vocab_size = 257
    bos_id = None
    adds_bos = False
    eos_ids = frozenset({256})
    special_ids = frozenset({256})
    fingerprint = hashlib.sha256(b"bytes").hexdigest()

    def encode(
        self, text: str, *, add_bos: bool = False, parse_special: bool = False, at_start: bool = True
    ) -> list[int]:
        return list(text.encode())

    def token_bytes(self, token_id: int) -> bytes:
        return b"" if token_id == 256 else bytes([token_id])

    def decode(self, token_ids: Sequence[int], *, skip_special: bool = True) -> str:
        end = "" if skip_special else "<end>"
        parts = [self.token_bytes(token_id) or end.encode() for token_id in token_ids]
        return b"".join(parts).decode("utf-8", "replace")

    def token_to_id(self, token: str) -> int | None:
        return 256 if token == "<end>" else None


def tiny_lm(name: str = "tiny", *, seed: int = 0, max_seq_len: int = 256, **changes: Any) -> LanguageModel:
    config = tiny_config(vocab_size=257, max_seq_len=max_seq_len, **changes)
    model = tiny_gpt(config, seed=seed)
    facts = ModelFacts(
        name=name, path=Path(name), format="native", family="llama", n_parameters=config.n_parameters, dtype="fp32",
        device="cpu",
    )  # fmt: skip
    return LanguageModel(facts, lambda: GPTRunner(model), ByteTokenizer(), ChatTemplate(TEMPLATE))


def tiny_settings(**changes: Any) -> ServeSettings:
    return ServeSettings(**{"models": (ServedModel(id="tiny", name="tiny"),), "port": 0, **changes})


def tiny_models(
    settings: ServeSettings, load: Callable[[str], LanguageModel] = lambda name: tiny_lm(name)
) -> ServedModels:
    size = tiny_config(vocab_size=257, max_seq_len=256).n_parameters * 4
    return ServedModels(settings, load=lambda model, adapter, mate: load(model.name), weigh=lambda model, adapter: size)


@contextlib.contextmanager
def running(settings: ServeSettings, models: ServedModels | None = None) -> Iterator[str]:
    """Serve as long as the block runs; gives the server's address."""
    models = models or tiny_models(settings)
    app = build_app(settings, models=models)
    with open_socket(settings.host, 0) as listening:
        server = uvicorn.Server(build_config(app, settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
