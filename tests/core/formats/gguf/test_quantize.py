"""Quantized GGUF files: blocks as other programs read them, and a whole model there and back."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import sentencepiece
import torch
from tiny_models import tiny_config, tiny_gpt

from nlpkit.core.errors import ModelFileError
from nlpkit.core.formats.export import convert_model
from nlpkit.core.formats.gguf.dequantize import dequantize
from nlpkit.core.formats.gguf.export import write_gguf
from nlpkit.core.formats.gguf.quantize import FORMATS, fitting_type, quantize, stored_bytes
from nlpkit.core.formats.gguf.source import GGUFSource
from nlpkit.core.formats.gguf.types import GGMLType as Kind
from nlpkit.core.formats.learned_tasks import FILE_NAME, GGUF_KEY, LearnedTasks, parse_learned_tasks, read_learned_tasks
from nlpkit.core.tokenizers.sentencepiece import SentencePieceTokenizer
from nlpkit.core.train.checkpoints.output import write_model

PAIRS = (("en", "de"), ("de", "en"))
LEARNED = tuple({"source_lang": source, "target_lang": target} for source, target in PAIRS)
TEXTS = [
    "German: Hello, world! 1234\n",
    "a\n\nb\tc  dé 漢字 🙂 ⟦1⟧x",
    " lead and trail ",
    "<|endoftext|> 2024-01-31",
]


def bpe_tokenizer() -> SentencePieceTokenizer:
    """The kind of vocabulary that translation learns: BPE, no dummy prefix, line ends and masks as pieces."""
    lines = [f"The {a} is {b} {n}." for n in range(40) for a in ("dog", "Straße", "où") for b in ("here", "not there")]
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, vocab_size=320, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False,
        split_digits=True, user_defined_symbols=["\n", "⟦1⟧"], eos_piece="<|endoftext|>", bos_id=-1, pad_id=-1,
        unk_id=0, eos_id=1, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    return SentencePieceTokenizer(out.getvalue())


def random(rows: int, columns: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "error"), [(Kind.Q8_0, 0.006), (Kind.Q6_K, 0.018), (Kind.Q5_1, 0.04), (Kind.Q4_1, 0.08)]
)
def test_blocks_are_what_others_read(kind: Kind, error: float) -> None:
    values = random(600, 512)
    values[7] = 0.0
    values[8, 256:] = 0.0
    values[9] *= 1e-6
    data = quantize(values, kind)
    assert data.nbytes == stored_bytes(values.shape, kind)
    theirs = gguf.quants.dequantize(data, kind)
    ours = dequantize(data.reshape(-1).view(np.uint8), kind, values.shape, torch.float32).numpy()
    assert np.allclose(theirs, ours, rtol=1e-6, atol=1e-9)
    assert np.abs(theirs[7]).max() == 0
    assert np.sqrt(((theirs - values) ** 2).mean() / (values**2).mean()) < error


def test_rows_that_fill_no_block_get_a_finer_type() -> None:
    assert fitting_type(Kind.Q6_K, 512) is Kind.Q6_K
    assert fitting_type(Kind.Q6_K, 96) is Kind.Q8_0
    assert fitting_type(Kind.Q6_K, 48) is Kind.F16
    assert fitting_type(Kind.Q4_1, 8) is Kind.F16


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("native") / "model"
    tokenizer = bpe_tokenizer()
    config = tiny_config(
        family="qwen3", vocab_size=tokenizer.vocab_size, d_model=256, n_heads=4, n_kv_heads=2, head_dim=64, d_ff=256,
        qk_norm="head", tied_head=True, norm_eps=1e-6,
    )  # fmt: skip
    write_model(
        folder, tiny_gpt(config, scale=0.05), {}, tokenizer=tokenizer, chat=None, dtype=torch.float32,
        learned_tasks=["translation"], learned=LEARNED,
    )  # fmt: skip
    return folder


@pytest.mark.parametrize(
    ("name", "error"), [("f32", 1e-6), ("f16", 0.01), ("q8_0", 0.03), ("q6_k", 0.06), ("q5_1", 0.1), ("q4_1", 0.2)]
)
def test_a_model_there_and_back(native: Path, tmp_path: Path, name: str, error: float) -> None:
    from nlpkit.core.load import load_model

    path = convert_model(native, f"gguf-{name}", tmp_path / "model.gguf")
    before, after = load_model(str(native), dtype="fp32"), load_model(str(path), dtype="fp32")
    for text in TEXTS:
        assert after.encode(text) == before.encode(text)
        assert after.tokenizer.decode(after.encode(text)) == text
    assert after.tokenizer.eos_ids == before.tokenizer.eos_ids
    assert after.tokenizer.adds_bos is False
    assert after.learned_tasks == before.learned_tasks == {"translation"}
    assert after.learned_options == before.learned_options == LEARNED
    prompt = before.encode(TEXTS[0])
    left, right = (torch.tensor(lm.score([(prompt, prompt)])[0].token_logprobs) for lm in (before, after))
    assert float((left - right).pow(2).mean().sqrt()) < error * float(left.std() + 1)
    metadata = GGUFSource(path).file.metadata
    assert metadata["general.file_type"] == FORMATS[name].number
    assert metadata["tokenizer.ggml.add_space_prefix"] is False
    assert metadata["tokenizer.ggml.add_bos_token"] is False
    assert metadata["tokenizer.ggml.eos_token_id"] == 1
    assert metadata["tokenizer.ggml.unknown_token_id"] == 0
    assert metadata["qwen3.rope.freq_base"] > 0
    kinds = {one.name: one.tensor_type for one in gguf.GGUFReader(path).tensors}
    assert kinds["token_embd.weight"] == FORMATS[name].table
    assert kinds["blk.0.ffn_down.weight"] == FORMATS[name].matrix
    assert kinds["blk.0.attn_q_norm.weight"] == Kind.F32


def test_other_formats_keep_what_was_learned(native: Path, tmp_path: Path) -> None:
    convert_model(native, "gguf-q8_0", tmp_path / "m.gguf")
    for to in ("native", "hf"):
        written = convert_model(tmp_path / "m.gguf", to, tmp_path / to)
        assert read_learned_tasks(written).languages == PAIRS
        assert (written / FILE_NAME).is_file()


@pytest.mark.parametrize("text", ["{", 3, "[]", "null", '{"format_version": 2, "brief_prompts": []}', "[" * 5000])
def test_damaged_facts_are_refused(text: Any) -> None:
    with pytest.raises(ModelFileError, match="here cannot be used"):
        parse_learned_tasks(text, where="here")


def test_facts_there_and_back() -> None:
    tuned = LearnedTasks(names=frozenset({"a", "b"}), learned=(*LEARNED, {"form": "haiku"}))
    assert parse_learned_tasks(tuned.to_json(), where="x") == tuned
    assert GGUF_KEY.startswith("nlpkit.")


def test_unknown_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="q6_k"):
        write_gguf(tiny_config(), {}, tmp_path / "m.gguf", dtype="q3_k")


def test_files_from_before_are_read() -> None:
    text = '{"format_version": 1, "brief_prompts": ["a"], "languages": [["en", "de"]], "forms": ["haiku"]}'
    tuned = parse_learned_tasks(text, where="here")
    assert tuned.languages == (("en", "de"),)
    assert tuned.values("form") == ("haiku",)
    assert parse_learned_tasks(tuned.to_json(), where="here") == tuned
    assert "languages" not in tuned.to_json()
