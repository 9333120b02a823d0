"""Tokenizers that put a space in front of a text, in the ways that models' files have it, and some that do not."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from nlpkit.core.tokenizers.bpe import HFTokenizer
from nlpkit.core.tokenizers.sentencepiece import SentencePieceTokenizer

TEXT = "the queen lays eggs in a day and the hive is warm and full of honey"


def spm_model(**options: Any) -> bytes:
    """A SentencePiece model as Llama 2 has it: BPE, bytes for the rest, a space put in front."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT] * 3), model_writer=out, vocab_size=300, model_type="bpe", byte_fallback=True,
        hard_vocab_limit=False, normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
        unk_id=0, bos_id=1, eos_id=2, num_threads=1, **options,
    )  # fmt: skip
    return out.getvalue()


def spm(**options: Any) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(spm_model(**options))


def hf(scheme: str) -> HFTokenizer:
    """Llama's tokenizer in the ways that tokenizer.json files have it."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3}
    for char in sorted({*TEXT, "\n", "x"} - {" "}):
        vocab[char] = len(vocab)
    vocab |= {"▁e": len(vocab), "Ġ": len(vocab) + 1, "Ċ": len(vocab) + 2}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, [("▁", "e")], unk_token="<unk>"))
    if scheme == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif scheme == "byte_level":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    if scheme == "byte_level":
        tokenizer.decoder = decoders.ByteLevel()
    else:
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return HFTokenizer(tokenizer, bos_id=1, eos_ids=[2])


def words() -> HFTokenizer:
    """Whole words; what stands between them is only known of the whole text, not of one token."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for word in TEXT.split():
        vocab.setdefault(word, len(vocab))
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return HFTokenizer(tokenizer, bos_id=1, eos_ids=[2])


ALL: dict[str, Callable[[], HFTokenizer | SentencePieceTokenizer]] = {
    "sentencepiece": spm,
    "without_prefix": lambda: spm(add_dummy_prefix=False),
    **{scheme: (lambda scheme=scheme: hf(scheme)) for scheme in ("prepend", "always", "first", "never", "byte_level")},
}
