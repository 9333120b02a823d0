"""How the adapter for lm-evaluation-harness cuts pairs, without the harness."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nlpkit.core.errors import InputError
from nlpkit.core.load import load_model

ADAPTER = "nlpkit.eval.lm_eval"


@pytest.fixture
def model(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The adapter over a tiny model; the harness is made of empty modules."""
    names = ("lm_eval", "lm_eval.api", "lm_eval.api.model", "lm_eval.api.registry")
    modules: dict[str, Any] = {name: types.ModuleType(name) for name in names}
    hook = types.SimpleNamespace(add_partial=lambda *_: None)
    modules["lm_eval.api.model"].LM = type("LM", (), {"__init__": lambda self: setattr(self, "cache_hook", hook)})
    modules["lm_eval.api.registry"].register_model = lambda *_: lambda cls: cls
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, ADAPTER, raising=False)
    adapter = importlib.import_module(ADAPTER)
    yield adapter.NlpkitLM(load_model(str(tiny_model), dtype="fp32", device="cpu"))
    sys.modules.pop(ADAPTER, None)


def scored(model: Any, *pairs: tuple[str, str]) -> list[tuple[float, bool]]:
    found: list[tuple[float, bool]] = model.loglikelihood([types.SimpleNamespace(args=pair) for pair in pairs])
    return found


def test_continuations_that_merge_with_their_context_are_scored_apart(model: Any) -> None:
    words = ["the", "cat", "sat", "on", "mat", "and", "looked", "at", "dog", "saw", "ran", "the cat", "a dog ran"]
    cuts = [(word[:at], word[at:]) for word in words for at in range(1, len(word)) if word[at - 1] != " "]
    merging = [pair for pair in cuts if len(model.encode("".join(pair))) <= len(model.encode(pair[0]))]
    assert merging
    for pair, (logprob, _) in zip(merging, scored(model, *merging), strict=True):
        assert -1000 < logprob < 0
        context, continuation = model.encode_pair(*pair)
        assert context == model.encode(pair[0])
        assert continuation == model.lm.tokenizer.encode(pair[1], at_start=False)


def test_what_has_no_tokens_is_refused(model: Any) -> None:
    for context in ("a", ""):
        with pytest.raises(InputError, match="no tokens"):
            scored(model, (context, ""))
