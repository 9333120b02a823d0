"""The whole way of a shipped translation model: a tiny one, written as a quantized GGUF file, behind the command."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from shipped import LEARNED, PAIRS
from tiny_models import tiny_config, tiny_gpt

import nlpkit
from nlpkit.apps.models import adapters
from nlpkit.core.errors import ModelFileError
from nlpkit.core.formats.export import convert_model
from nlpkit.core.formats.learned_tasks import FILE_NAME
from nlpkit.core.tokenizers.sentencepiece import SentencePieceTokenizer
from nlpkit.core.train.checkpoints.output import write_model

Cli = Callable[..., Any]
FAST = ("--threads", "1")
SYMBOLS = ["\n", *(f"⟦{number}⟧" for number in range(1, 9))]


def vocabulary() -> SentencePieceTokenizer:
    out = io.BytesIO()
    lines = [f"The dog {word} is black, der Hund {word} ist schwarz {n}." for n in range(30) for word in ("x", "über")]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, vocab_size=310, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False,
        split_digits=True, user_defined_symbols=SYMBOLS, eos_piece="<|endoftext|>", bos_id=-1, pad_id=-1, unk_id=0,
        eos_id=1, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    return SentencePieceTokenizer(out.getvalue())


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model as a GGUF file that says what it learned."""
    folder, tokenizer = tmp_path_factory.mktemp("model"), vocabulary()
    config = tiny_config(
        family="qwen3", vocab_size=tokenizer.vocab_size, d_model=64, n_heads=2, n_kv_heads=1, head_dim=32, d_ff=64,
        qk_norm="head", tied_head=True, max_seq_len=256,
    )  # fmt: skip
    write_model(
        folder / "native", tiny_gpt(config, scale=0.1), {}, tokenizer=tokenizer, chat=None, dtype=torch.float32,
        learned_tasks=["translation"], learned=LEARNED,
    )  # fmt: skip
    return convert_model(folder / "native", "gguf-q8_0", folder / "model.gguf")


@pytest.fixture
def shipped(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as it is shipped, where the default model must not be asked for."""
    (tmp_path / "translation").mkdir()
    path = tmp_path / "translation" / adapters.MODEL
    path.write_bytes(file.read_bytes())
    monkeypatch.setattr(adapters, "MODELS", tmp_path)

    def refuse(name: Any, **_: Any) -> Path:
        assert Path(name) == path
        return path

    monkeypatch.setattr("nlpkit.core.fetch.resolve.resolve_model", refuse)
    return path


def test_it_needs_neither_a_second_file_nor_the_default_model(cli: Cli, shipped: Path) -> None:
    (own,) = adapters.shipped_models()
    assert own.tuned.languages == tuple(PAIRS)
    result = cli("translate", "The dog is black. - 12 -\n\n  {name} x\n", "--to", "de", "--json", *FAST)
    assert result.code == 0
    record = json.loads(result.out)
    assert (record["model"], record["adapter"]) == ("translation", None)
    assert record["prediction"].count("\n") == 2
    assert "{name}" in record["prediction"]
    assert all(0 <= one["confidence"] <= 1 for one in record["sentences"])
    (shipped.parent / FILE_NAME).write_text(own.tuned.to_json())
    assert adapters.shipped_models()[0].tuned == own.tuned
    assert cli("translate", "The dog is black.", "--to", "ja").code == 2


def test_it_is_shipped_from_a_training(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nlpkit.apps.weights import ship

    monkeypatch.setattr(ship, "MODELS", tmp_path)
    monkeypatch.setattr(adapters, "MODELS", tmp_path)
    for _ in range(2):  # the second takes the place of the first
        ship.ship_model(file.parent / "native", "translation", "q8_0")
    (own,) = adapters.shipped_models()
    assert sorted(path.name for path in own.path.iterdir()) == ["model.gguf", FILE_NAME]
    assert own.tuned.languages == tuple(PAIRS)
    assert (own.path / adapters.MODEL).read_bytes() == file.read_bytes()
    with pytest.raises(ModelFileError, match="does not say that it learned qa"):
        ship.ship_model(file.parent / "native", "qa", "q8_0")


def test_what_a_random_model_says_is_not_trusted(cli: Cli, shipped: Path) -> None:
    command = ("translate", "The dog is black.", "--to", "fr", *FAST)
    result = cli(*command)
    assert result.code == 0
    assert "this translation is not to be trusted" in result.err
    strict = cli(*command, "--strict")
    assert (strict.code, strict.out) == (3, result.out)
    assert "--strict makes that exit code 3" in strict.err
    assert cli(*command, "--strict", "-q").err == ""


def test_alternatives_differ(cli: Cli, shipped: Path) -> None:
    result = cli("translate", "The dog is black. The dog is x.", "--to", "fr", "--n-best", "3", "--json", *FAST)
    texts = [other["text"] for other in json.loads(result.out)["alternatives"]]
    assert len(set(texts)) == len(texts)


def test_from_python(shipped: Path) -> None:
    toolkit = nlpkit.load(threads=1)
    results = toolkit.translate(["The dog is black.", "Der Hund ist schwarz und nicht weiß."], target_lang="de")
    assert results[1].text == "Der Hund ist schwarz und nicht weiß."
    assert results[1].fields["kept"] == 1
    assert results[0].model == "translation"


def test_a_gguf_file_with_model_knows_its_languages(file: Path) -> None:
    result = nlpkit.load(str(file), threads=1).translate("Der Hund ist schwarz und nicht weiß.", target_lang="fr")
    assert result.fields["via"] == "en"
