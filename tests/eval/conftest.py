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

TINY_TEXT = (
    "the cat sat on the mat and looked at the dog . a dog saw the cat , and the cat ran . "
    "two men are riding horses in the park while a small girl watches them from the red bench . "
)
PROGRAM = Path(__file__).resolve().parents[1] / "support" / "fake_eval.py"


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
def eval_model(fake_eval: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model without weights and adapters, which the command line loads whatever model is asked for."""
    monkeypatch.setattr("nlpkit.apps.models.adapters.FOLDER", tmp_path_factory.mktemp("no-adapters"))
    model = fake_eval.EvalModel()
    monkeypatch.setattr("nlpkit.core.load.load_model", fake_eval.loading(model))
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


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model with a tokenizer, as a Hugging Face directory."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    path = tmp_path_factory.mktemp("tiny")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [TINY_TEXT],
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(path)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        initializer_range=0.6,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    return path
