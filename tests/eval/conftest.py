"""Fixtures for tests of evaluation runs."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("fake_eval.py")


@pytest.fixture(scope="session")
def fake_eval() -> ModuleType:
    """The module ``fake_eval.py``."""
    spec = importlib.util.spec_from_file_location("nlpkit_test_fake_eval", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def eval_model(fake_eval: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model without weights, which the command line loads whatever model is asked for."""
    model = fake_eval.EvalModel()
    monkeypatch.setitem(sys.modules, "nlpkit.core.language_model", fake_eval.install(model))
    return model


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[[str, Sequence[Any]], str]:
    """Write rows to a file in the test's folder and return its path."""

    def write(name: str, rows: Sequence[Any]) -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def pairs() -> list[dict[str, str]]:
    """Forty rows to translate."""
    text = "the red dog saw two old men near a green house while it was raining in town"
    words = text.split()
    rows = []
    for number in range(40):
        source = " ".join(words[(number + step) % len(words)] for step in range(3 + number % 9))
        rows.append(
            {
                "source": source,
                "target": source.upper().replace("DOG", "HUND"),
                "target_lang": "de",
                "source_lang": "en",
            }
        )
    return rows
