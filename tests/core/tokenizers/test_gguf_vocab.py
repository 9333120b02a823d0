"""Tokenizers and chat templates out of GGUF metadata, and back into it."""

from __future__ import annotations

import dataclasses
import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tokenizers
import torch

from nlpkit.core.chat.message import Message
from nlpkit.core.chat.template import ChatTemplate
from nlpkit.core.errors import ModelFileError, TokenizerError
from nlpkit.core.formats.gguf.export import write_gguf
from nlpkit.core.formats.gguf.export_vocabulary import tokenizer_metadata
from nlpkit.core.formats.gguf.source import GGUFSource, build_chat_template
from nlpkit.core.formats.gguf.weight_names import weight_shapes
from nlpkit.core.model.config import ModelConfig
from nlpkit.core.tokenizers.bpe import HFTokenizer, byte_to_char
from nlpkit.core.tokenizers.gguf_pretokenizers import PRE_TOKENIZERS
from nlpkit.core.tokenizers.gguf_vocab import adds_bos, build_tokenizer, new_bpe
from nlpkit.core.tokenizers.sentencepiece import SentencePieceTokenizer
from nlpkit.core.tokenizers.spm_model import PieceType, SpmAlgorithm, VocabularyPiece, read_spm_model, write_spm_model

CORPUS = [
    "The quick brown fox jumps over the lazy dog. It's 12 o'clock, don't be late!",
    "def add(x, y):\n    return x + y  # 1234567\n\n",
    "Größe, café, naïve; 日本語のテキスト 你好世界 🎉🎉 👩‍👩‍👧",
    "  leading and   inner    spaces\tand\ttabs \n \n new lines ",
    "price: $1,234.56 or 3½ ² and e\u0301 versus é",
    "I'LL WE'RE you'Ve camelCase HTMLParser snake_case <b>bold</b> 1 2  3   44",
]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PIECES = [*CORPUS, *"abc XYZ 019 \t\n.,'\"<>", "日", "é", "e\u0301", "😀", "\u3000", " the", "'ll", "<|im_end|>", "½"]


def texts(n: int = 300) -> list[str]:
    rng = random.Random(0)
    return [*CORPUS, ""] + ["".join(rng.choices(PIECES, k=rng.randint(1, 8))) for _ in range(n)]


def train_bpe(pre: str = "gpt-2") -> tokenizers.Tokenizer:
    """A byte-level BPE tokenizer, trained on the corpus under one of the table's rules."""
    tokenizer = new_bpe([], [], PRE_TOKENIZERS[pre], add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=list(byte_to_char()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    tokenizer.add_tokens([tokenizers.AddedToken("<think>", special=False, normalized=False)])
    return tokenizer


def bpe_tokenizer(pre: str = "gpt-2") -> HFTokenizer:
    return HFTokenizer(train_bpe(pre), bos_id=1, eos_ids=[0, 2])


def spm_bytes(**options: Any) -> bytes:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 20),
        model_writer=out,
        vocab_size=360,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
        **{"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", **options},
    )
    return out.getvalue()


def metadata_of(tokenizer: Any, *, vocab_size: int | None = None, chat: ChatTemplate | None = None) -> dict[str, Any]:
    """What a file would hold: lists of numbers come back as arrays."""
    values = tokenizer_metadata(tokenizer, vocab_size=vocab_size or tokenizer.vocab_size, chat=chat)
    for key, kind in (("token_type", np.int32), ("scores", np.float32)):
        if f"tokenizer.ggml.{key}" in values:
            values[f"tokenizer.ggml.{key}"] = np.array(values[f"tokenizer.ggml.{key}"], kind)
    if "tokenizer.ggml.precompiled_charsmap" in values:
        data = values["tokenizer.ggml.precompiled_charsmap"]
        values["tokenizer.ggml.precompiled_charsmap"] = np.frombuffer(data, np.uint8)
    return values


def build(values: dict[str, Any], vocab_size: int = 1000) -> Any:
    return build_tokenizer(values, vocab_size=vocab_size, source="x.gguf")


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2", "stablelm2", "gpt-4o", "tekken"])
def test_byte_level_round_trip(pre: str) -> None:
    original = bpe_tokenizer(pre)
    values = metadata_of(original)
    # Rules with several names come back under the first of them.
    assert PRE_TOKENIZERS[values["tokenizer.ggml.pre"]] == PRE_TOKENIZERS[pre]
    back = build(values)
    assert (back.bos_id, back.eos_ids, back.vocab_size) == (1, {0, 2}, original.vocab_size)
    for text in texts():
        ids = original.encode(text)
        assert back.encode(text) == ids
        assert back.encode(text, parse_special=True) == original.encode(text, parse_special=True)
        assert back.decode(ids) == (text if pre != "qwen2" else back.decode(ids))
    assert back.encode("<|im_start|>", parse_special=True) == [1]
    assert 1 not in back.encode("<|im_start|>")
    assert back.encode("<think>") == [original.token_to_id("<think>")]


@pytest.mark.parametrize("pre", sorted(PRE_TOKENIZERS))
def test_every_pre_tokenizer_keeps_the_text(pre: str) -> None:
    values = metadata_of(bpe_tokenizer()) | {"tokenizer.ggml.pre": pre}
    tokenizer = build(values)
    for text in texts(40):
        expected = tokenizer._tokenizer.normalizer.normalize_str(text) if PRE_TOKENIZERS[pre].nfc else text
        assert tokenizer.decode(tokenizer.encode(text)) == expected


def words(pre: str, text: str) -> list[str]:
    spans = new_bpe([], [], PRE_TOKENIZERS[pre], add_prefix_space=False).pre_tokenizer.pre_tokenize_str(text)
    return [text[start:end] for _, (start, end) in spans]


@pytest.mark.parametrize(
    ("pre", "text", "expected"),
    [
        ("gpt-2", "It's  1234 ok", ["It", "'s", " ", " 1234", " ok"]),
        ("smollm", "It's  12 ok", ["It", "'s", "  ", "1", "2", " ok"]),
        ("llama-bpe", "IT'S 12345\n\n x", ["IT", "'S", " ", "123", "45", "\n\n", " x"]),
        ("qwen2", "It's 12\n x", ["It", "'s", " ", "1", "2", "\n", " x"]),
        ("gpt-4o", "camelCase don't 1234", ["camel", "Case", " don't", " ", "123", "4"]),
        ("tekken", "camelCase 12", ["camel", "Case", " ", "1", "2"]),
        ("deepseek-coder", "a  b12\n你好", ["a", " ", " b", "1", "2", "\n", "你好"]),
        ("deepseek-v3", "x 1234 日本.abc", ["x", " ", "123", "4", " ", "日本", ".abc"]),
    ],
)
def test_pre_tokenizers_cut_as_their_models_do(pre: str, text: str, expected: list[str]) -> None:
    assert words(pre, text) == expected


@pytest.mark.parametrize("options", [{}, {"add_dummy_prefix": False}, {"user_defined_symbols": ["<sep>", "▁▁"]}])
def test_sentencepiece_round_trip(options: dict[str, Any]) -> None:
    model = spm_bytes(remove_extra_whitespaces=False, **options)
    reference = sentencepiece.SentencePieceProcessor(model_proto=model)
    original = SentencePieceTokenizer(model, bos_id=1, eos_ids=[2])
    values = metadata_of(original)
    assert values["tokenizer.ggml.model"] == "llama"
    if "user_defined_symbols" in options:
        # As llama.cpp's converter spells it.
        tokens = values["tokenizer.ggml.tokens"]
        tokens[tokens.index("▁▁")] = "  "
    back = build(values)
    assert (back.bos_id, back.eos_ids, back.vocab_size) == (1, {2}, original.vocab_size)
    for text in texts():
        assert back.encode(text) == reference.encode(text)
        assert back.decode(back.encode(text)) == reference.decode(reference.encode(text))


def test_unknown_token_that_is_marked_as_control() -> None:
    original = SentencePieceTokenizer(spm_bytes())
    values = metadata_of(original)
    values["tokenizer.ggml.token_type"][0] = PieceType.CONTROL
    values["tokenizer.ggml.unknown_token_id"] = 0
    assert build(values).encode("the cat") == original.encode("the cat")


def test_unigram_round_trip() -> None:
    model = spm_bytes(model_type="unigram", normalization_rule_name="nmt_nfkc")
    reference = sentencepiece.SentencePieceProcessor(model_proto=model)
    values = metadata_of(SentencePieceTokenizer(model))
    assert values["tokenizer.ggml.model"] == "t5"
    back = build(values)
    for text in texts():
        assert back.encode(text) == reference.encode(text)


def test_spm_model_written_is_the_one_read() -> None:
    model = read_spm_model(spm_bytes(remove_extra_whitespaces=False))
    assert model.pieces[0] == VocabularyPiece("<unk>", 0.0, PieceType.UNKNOWN)
    assert model.algorithm == SpmAlgorithm.BPE
    again = write_spm_model(
        model.pieces,
        algorithm=SpmAlgorithm.BPE,
        add_dummy_prefix=True,
        remove_extra_whitespaces=False,
        bos_id=1,
        eos_id=2,
    )
    assert read_spm_model(again) == model
    loaded = sentencepiece.SentencePieceProcessor(model_proto=again)
    assert (loaded.unk_id(), loaded.bos_id(), loaded.eos_id(), loaded.pad_id()) == (0, 1, 2, -1)
    with pytest.raises(TokenizerError, match="cut short or damaged"):
        read_spm_model(again[:-3])


def test_holes_in_the_vocabulary_are_filled_and_unused() -> None:
    tokenizer = bpe_tokenizer()
    size = tokenizer.vocab_size + 5
    values = metadata_of(tokenizer, vocab_size=size)
    assert len(values["tokenizer.ggml.tokens"]) == size
    assert values["tokenizer.ggml.token_type"][-1] == PieceType.UNUSED
    assert build(values).encode("hello") == tokenizer.encode("hello")
    with pytest.raises(ModelFileError, match="largest id"):
        metadata_of(tokenizer, vocab_size=10)


def test_end_ids_of_chat_files() -> None:
    values = metadata_of(bpe_tokenizer())
    for key in ("eos", "eot", "eom"):
        values.pop(f"tokenizer.ggml.{key}_token_id", None)
    # <|im_end|> is a control token that ends a turn although no key says so.
    # So is <|endoftext|>.
    assert build(values).eos_ids == {0, 2}
    values |= {
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.eot_token_id": 5,
        "tokenizer.ggml.bos_token_id": 2**32 - 1,
    }
    assert build(values).eos_ids == {0, 2, 5}
    assert build(values).bos_id is None
    # Files that type it as text mean the same.
    values["tokenizer.ggml.token_type"][2] = PieceType.NORMAL
    assert build(values).eos_ids == {0, 2, 5}


def test_adds_bos() -> None:
    values = metadata_of(bpe_tokenizer())
    assert not build(values).adds_bos
    values["tokenizer.ggml.add_bos_token"] = True
    assert build(values).adds_bos
    assert metadata_of(build(values))["tokenizer.ggml.add_bos_token"] is True
    del values["tokenizer.ggml.bos_token_id"]
    assert not build(values).adds_bos
    assert build(metadata_of(SentencePieceTokenizer(spm_bytes()))).adds_bos
    assert adds_bos({"tokenizer.ggml.model": "llama"})
    assert not adds_bos({"tokenizer.ggml.model": "gpt2"})
    assert adds_bos({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe"})
    assert not adds_bos({"tokenizer.ggml.model": "llama", "tokenizer.ggml.add_bos_token": False})


BPE_DAMAGE: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"model": None}, "carries no tokenizer"),
    "kind": ({"model": "wordpiece"}, "kind 'wordpiece'"),
    "near kind": ({"model": "gpt"}, "Did you mean 'gpt2'"),
    "pre": ({"pre": "qwen9"}, "pre-tokenizer 'qwen9' is not known. Did you mean 'qwen2'"),
    "pre no text": ({"pre": 3}, "pre-tokenizer '3'"),
    "no tokens": ({"tokens": None}, "tokens is missing"),
    "tokens of numbers": ({"tokens": np.arange(3)}, "tokens is missing or no list"),
    "empty": ({"tokens": []}, "0 tokens"),
    "more than the embedding": ({"tokens": [str(i) for i in range(1001)]}, "1,001 tokens for an embedding of 1,000"),
    "types short": ({"token_type": np.ones(3, np.int32)}, "one whole number for each token"),
    "types of floats": ({"token_type": np.ones(405, np.float32)}, "one whole number"),
    "types unknown": ({"token_type": "+90"}, "unknown type"),
    "bos": ({"bos_token_id": 5000}, "bos_token_id is 5000"),
    "eos": ({"eos_token_id": "two"}, "eos_token_id is 'two'"),
    "no merges": ({"merges": None}, "merges is missing"),
    "merge of one": ({"merges": ["abc"]}, "'abc' is no pair"),
    "merge of nothing": ({"merges": ["a "]}, "no pair"),
    "merge of strangers": ({"merges": ["zzz yyy"]}, "cannot be used"),
    "prefix": ({"add_space_prefix": 1}, "not true or false"),
}


@pytest.mark.parametrize("name", BPE_DAMAGE)
def test_damaged_vocabularies_are_refused(name: str) -> None:
    changes, what = BPE_DAMAGE[name]
    values = metadata_of(bpe_tokenizer())
    for key, value in changes.items():
        value = values["tokenizer.ggml.token_type"] + 90 if isinstance(value, str) and value == "+90" else value
        if value is None:
            values.pop(f"tokenizer.ggml.{key}")
        else:
            values[f"tokenizer.ggml.{key}"] = value
    with pytest.raises(TokenizerError, match=what):
        build(values)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda v: v.pop("tokenizer.ggml.scores"), "scores does not give"),
        (lambda v: v["tokenizer.ggml.scores"].__setitem__(3, np.nan), "not finite"),
        (
            lambda v: (v["tokenizer.ggml.token_type"].__setitem__(0, 1), v.pop("tokenizer.ggml.unknown_token_id")),
            "exactly one token of type unknown",
        ),
        (lambda v: v["tokenizer.ggml.token_type"].__setitem__(1, 2), "exactly one token of type unknown"),
        (lambda v: v["tokenizer.ggml.tokens"].__setitem__(9, "<unk>"), "appears twice"),
        (lambda v: v.update({"tokenizer.ggml.precompiled_charsmap": "abc"}), "no list of bytes"),
    ],
)
def test_damaged_sentencepiece_is_refused(change: Any, what: str) -> None:
    values = metadata_of(SentencePieceTokenizer(spm_bytes()))
    change(values)
    with pytest.raises(TokenizerError, match=what):
        build(values)


def test_what_gguf_has_no_name_for_is_refused() -> None:
    odd = train_bpe()
    odd.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.Punctuation(), tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    with pytest.raises(ModelFileError, match="cuts text in a way that GGUF has no name for"):
        metadata_of(HFTokenizer(odd, bos_id=None, eos_ids=[]))
    plain = train_bpe()
    plain.decoder = tokenizers.decoders.Metaspace()
    with pytest.raises(ModelFileError, match="only byte-level BPE"):
        metadata_of(HFTokenizer(plain, bos_id=None, eos_ids=[]))


TEMPLATE = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"


def test_chat_template() -> None:
    tokenizer = bpe_tokenizer()
    chat = ChatTemplate(TEMPLATE, bos_token="<|im_start|>", eos_token="<|im_end|>")
    values = metadata_of(tokenizer, chat=chat)
    assert values["tokenizer.ggml.eos_token_id"] == 2
    back = build_chat_template(values)
    assert back is not None
    messages = [Message("user", "hi")]
    assert back.render(messages) == chat.render(messages) == "<|im_start|>[user]hi<|im_end|>"
    assert build(values).eos_ids == tokenizer.eos_ids
    assert build_chat_template({}) is None
    broken = build_chat_template({"tokenizer.chat_template": "{% for %}"})
    assert broken is not None
    assert "cannot be compiled" in str(broken.problem)
    with pytest.raises(ModelFileError, match="is no text"):
        build_chat_template({"tokenizer.chat_template": 3})


CONFIG = ModelConfig(
    family="llama",
    vocab_size=448,
    d_model=16,
    n_layers=1,
    n_heads=2,
    n_kv_heads=2,
    head_dim=8,
    d_ff=16,
    max_seq_len=32,
)


def write_with(tokenizer: Any, path: Path, chat: ChatTemplate | None = None) -> GGUFSource:
    weights = {name: torch.zeros(shape) for name, shape in weight_shapes(CONFIG)}
    write_gguf(CONFIG, weights, path, tokenizer=tokenizer, chat=chat)
    return GGUFSource(path)


def test_through_a_file(tmp_path: Path) -> None:
    bpe = bpe_tokenizer("smollm")
    spm = SentencePieceTokenizer(spm_bytes(remove_extra_whitespaces=False))
    chat = ChatTemplate(TEMPLATE, bos_token="<|im_start|>", eos_token="<|im_end|>")
    for tokenizer in (bpe, spm):
        source = write_with(tokenizer, tmp_path / "m.gguf", chat if tokenizer is bpe else None)
        back = source.tokenizer()
        assert [back.encode(text) for text in texts(50)] == [tokenizer.encode(text) for text in texts(50)]
        assert back.eos_ids == tokenizer.eos_ids
        rebuilt = source.chat_template()
        assert (rebuilt is None) == (tokenizer is spm)
    config = dataclasses.replace(CONFIG, vocab_size=100)
    weights = {name: torch.zeros(shape) for name, shape in weight_shapes(config)}
    with pytest.raises(ModelFileError, match="largest id"):
        write_gguf(config, weights, tmp_path / "n.gguf", tokenizer=bpe)


@pytest.mark.parity
@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "qwen2", "gpt-4o", "tekken"])
def test_transformers_tokenizes_the_same_file_alike(pre: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    ours = write_with(bpe_tokenizer(pre), tmp_path / "m.gguf").tokenizer()
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    # What a file says about whole words, transformers does not know.
    if PRE_TOKENIZERS[pre].whole_words:
        theirs.backend_tokenizer.model.ignore_merges = True
    for text in texts():
        expected = theirs.encode(text.replace("<|im_end|>", ""), add_special_tokens=False)
        got = ours.encode(text.replace("<|im_end|>", ""))
        if PRE_TOKENIZERS[pre].nfc:
            theirs.backend_tokenizer.normalizer = tokenizers.normalizers.NFC()
            expected = theirs.encode(text.replace("<|im_end|>", ""), add_special_tokens=False)
        assert got == expected
