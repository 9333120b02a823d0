"""A language model without weights, for tests of evaluation runs: it writes the prompt's last line in capitals.

Run as a program it is the `nlpkit` command on that model. ``FAKE_DELAY`` slows each request down, ``FAKE_SHA`` changes
the model's hash, ``FAKE_DTYPE`` its number format; in 16 bits what it writes depends on the requests beside it, as
rounding does in a real model.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import nlpkit.core.load
from nlpkit.core.decode.request import Generation, Request
from nlpkit.core.errors import ContextOverflowError


def load_fakes() -> ModuleType:
    """Return the module ``tests/support/fakes.py``."""
    path = Path(__file__).resolve().with_name("fakes.py")
    spec = importlib.util.spec_from_file_location("nlpkit_test_fakes_for_eval", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


fakes = load_fakes()


class EvalModel(fakes.FakeModel):  # type: ignore[misc,name-defined]
    """A fake model that describes itself, and fails on prompts that ask for it."""

    def __init__(self) -> None:
        super().__init__(delay=float(os.environ.get("FAKE_DELAY", "0")))
        self.dtype = os.environ.get("FAKE_DTYPE", "fp32")
        self.sha = os.environ.get("FAKE_SHA", "abc")
        self.vary = self.dtype != "fp32"

    def describe(self) -> dict[str, Any]:
        """Return what a real model says about itself."""
        return {
            "name": self.name,
            "path": "/somewhere/model",
            "dtype": self.dtype,
            "device": "cpu",
            "threads": 1,
            "sha256": {"model": self.sha},
            "adapter": None,
            "adapter_sha256": {},
            "tokenizer": "t",
            "chat_template": None,
            "notes": [],
        }

    def generate(
        self, requests: Sequence[Request], *, batch_tokens: int | None = None
    ) -> Iterator[tuple[int, Generation]]:
        """Complete, or fail where the prompt says so."""
        for request in requests:
            text = self.decode(request.prompt_ids)
            if "OVERFLOW" in text:
                raise ContextOverflowError("The input is too long.")
            if "CRASH" in text and "SURVIVE" not in text:
                raise ZeroDivisionError("a bug in the model")
        joint = hashlib.sha256(str(sorted(request.prompt_ids for request in requests)).encode()).hexdigest()[:4]
        for place, generation in super().generate(requests, batch_tokens=batch_tokens):
            if self.vary:
                first = generation.completions[0]
                generation = replace(generation, completions=(replace(first, text=f"{first.text} {joint}"),))
            yield place, generation


def loading(model: EvalModel) -> Callable[..., EvalModel]:
    """Return a stand-in for `nlpkit.core.load.load_model` that loads `model` under any name."""
    plain = fakes.loading(model)

    def load_model(name: str = "default", **options: object) -> EvalModel:
        loaded: EvalModel = plain(name, **options)
        loaded.name = name
        return loaded

    return load_model


if __name__ == "__main__":
    nlpkit.core.load.load_model = loading(EvalModel())  # type: ignore[assignment]
    from nlpkit.cli import main

    sys.exit(main())
