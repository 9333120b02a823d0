"""A tokenizer as GGUF metadata: the inverse of `nlpkit.core.tokenizers.gguf_vocab`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from nlpkit.core.chat.template import ChatTemplate
from nlpkit.core.errors import ModelFileError, TokenizerError
from nlpkit.core.tokenizers.bpe import HFTokenizer
from nlpkit.core.tokenizers.gguf_pretokenizers import PRE_TOKENIZERS
from nlpkit.core.tokenizers.gguf_vocab import ENDS, new_bpe
from nlpkit.core.tokenizers.sentencepiece import SentencePieceTokenizer
from nlpkit.core.tokenizers.special_tokens import read_special_tokens
from nlpkit.core.tokenizers.spm_model import PieceType, SpmAlgorithm, read_spm_model
from nlpkit.core.tokenizers.tokenizer import Tokenizer


def tokenizer_metadata(tokenizer: Tokenizer, *, vocab_size: int, chat: ChatTemplate | None) -> dict[str, Any]:
    """Describe a tokenizer in GGUF's keys.

    Args:
        tokenizer: Byte-level BPE or SentencePiece.
        vocab_size: Rows of the embedding; ids without a token are filled up.
        chat: The chat template, or None.

    Returns:
        Values by key; lists of strings, of whole numbers or of floats.

    Raises:
        ModelFileError: GGUF has no way to say what this tokenizer does.
    """
    with tempfile.TemporaryDirectory(prefix="nlpkit-") as directory:
        # `save` is the one public way to see all of a tokenizer.
        if isinstance(tokenizer, HFTokenizer):
            tokenizer.save(directory)
            values = _byte_level(json.loads((Path(directory) / "tokenizer.json").read_text("utf-8")), vocab_size)
        elif isinstance(tokenizer, SentencePieceTokenizer):
            tokenizer.save(directory)
            values = _sentencepiece(Path(directory), vocab_size)
        else:
            raise ModelFileError(
                f"A tokenizer of the kind {type(tokenizer).__name__} cannot be stored in a GGUF file. Convert to "
                "the native or the Hugging Face format instead."
            )
    adds_bos = tokenizer.adds_bos and tokenizer.bos_id is not None
    values["tokenizer.ggml.add_bos_token"] = adds_bos
    values["tokenizer.ggml.add_eos_token"] = False
    if tokenizer.bos_id is not None:
        values["tokenizer.ggml.bos_token_id"] = tokenizer.bos_id
    if tokenizer.eos_ids:
        ends = _ends(tokenizer, chat)
        for key, index in zip(("eos", "eot", "eom"), ends, strict=False):
            values[f"tokenizer.ggml.{key}_token_id"] = index
    if chat is not None:
        values["tokenizer.chat_template"] = chat.source
    return values


def _ends(tokenizer: HFTokenizer | SentencePieceTokenizer, chat: ChatTemplate | None) -> list[int]:
    """Return the ends of a text as a file should name them, the end of a sequence first.

    Raises:
        ModelFileError: There are more than there are names for.
    """
    # The file holds ids, not spellings; a template may name an end that is not the smallest id.
    named = tokenizer.token_to_id(chat.eos_token) if chat is not None and chat.eos_token else None
    first = next((end for end in (named, tokenizer.eos_id) if end in tokenizer.eos_ids), None)
    first = min(tokenizer.eos_ids) if first is None else first
    others = sorted(tokenizer.eos_ids - {first})
    # These end a text without being named.
    known = [index for index in others if tokenizer.id_to_token(index) in ENDS]
    needed = [index for index in others if index not in known]
    if len(needed) > 2:
        raise ModelFileError(f"GGUF files can name three ends of a text, this tokenizer has {len(needed) + 1}.")
    return [first, *(others if len(others) <= 2 else needed)]


def _filled(tokens: dict[int, str], types: dict[int, PieceType], vocab_size: int) -> tuple[list[str], list[int]]:
    if tokens and max(tokens) >= vocab_size:
        raise ModelFileError(f"The tokenizer's largest id is {max(tokens)}, the embedding has {vocab_size} rows.")
    spellings = [tokens.get(index, f"[PAD{index}]") for index in range(vocab_size)]
    return spellings, [int(types.get(index, PieceType.UNUSED)) for index in range(vocab_size)]


def _byte_level(state: dict[str, Any], vocab_size: int) -> dict[str, Any]:
    model = state["model"]
    decoder = (state.get("decoder") or {}).get("type")
    if model.get("type") != "BPE" or decoder != "ByteLevel" or model.get("byte_fallback"):
        raise ModelFileError(
            "Of the tokenizers in tokenizer.json files, only byte-level BPE can be stored in a GGUF file. Convert "
            "to the native or the Hugging Face format instead."
        )
    name, prefix = _name_of(state)
    tokens = {index: token for token, index in model["vocab"].items()}
    types = dict.fromkeys(tokens, PieceType.NORMAL)
    for added in state.get("added_tokens", []):
        tokens[added["id"]] = added["content"]
        types[added["id"]] = PieceType.CONTROL if added["special"] else PieceType.USER_DEFINED
    spellings, kinds = _filled(tokens, types, vocab_size)
    merges = [rule if isinstance(rule, str) else " ".join(rule) for rule in model["merges"]]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": name,
        "tokenizer.ggml.tokens": spellings,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.add_space_prefix": prefix,
    }


def _steps(state: dict[str, Any]) -> tuple[str, bool]:
    """What a tokenizer does before merging, in a comparable spelling, and whether it adds a space in front."""
    normalizer = state.get("normalizer")
    if normalizer and normalizer.get("type") == "Sequence" and not normalizer.get("normalizers"):
        normalizer = None
    before = state.get("pre_tokenizer") or {}
    steps = before.get("pretokenizers", []) if before.get("type") == "Sequence" else [before]
    prefix = any(step.get("add_prefix_space") for step in steps)
    # Trimming concerns offsets only.
    ignored = ("trim_offsets", "add_prefix_space")
    plain = [{key: value for key, value in step.items() if key not in ignored} for step in steps]
    whole_words = bool(state["model"].get("ignore_merges"))
    return json.dumps([normalizer, plain, whole_words], sort_keys=True), prefix


def _name_of(state: dict[str, Any]) -> tuple[str, bool]:
    wanted, prefix = _steps(state)
    for name, rules in PRE_TOKENIZERS.items():
        known = json.loads(new_bpe([], [], rules, add_prefix_space=False).to_str())
        if _steps(known)[0] == wanted:
            return name, prefix
    raise ModelFileError(
        "The tokenizer cuts text in a way that GGUF has no name for, so a GGUF file would tokenize differently. "
        "Convert to the native or the Hugging Face format instead."
    )


def _sentencepiece(directory: Path, vocab_size: int) -> dict[str, Any]:
    model = read_spm_model((directory / "tokenizer.model").read_bytes())
    if model.algorithm not in (SpmAlgorithm.BPE, SpmAlgorithm.UNIGRAM):
        raise ModelFileError("A SentencePiece model of whole words or characters cannot be stored in a GGUF file.")
    tokens = {index: piece.text for index, piece in enumerate(model.pieces)}
    types = {index: piece.type for index, piece in enumerate(model.pieces)}
    scores = {index: piece.score for index, piece in enumerate(model.pieces)}
    try:
        added = read_special_tokens(directory).added
    except TokenizerError as error:
        raise ModelFileError(f"The tokenizer's added tokens cannot be read back: {error}") from error
    for spec in added:
        if spec.id is not None:
            tokens[spec.id] = spec.content
            types[spec.id] = PieceType.CONTROL if spec.special else PieceType.USER_DEFINED
    spellings, kinds = _filled(tokens, types, vocab_size)
    values: dict[str, Any] = {
        "tokenizer.ggml.model": "llama" if model.algorithm == SpmAlgorithm.BPE else "t5",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": spellings,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.scores": [float(scores.get(index, -1000.0)) for index in range(vocab_size)],
        "tokenizer.ggml.add_space_prefix": model.add_dummy_prefix,
        "tokenizer.ggml.remove_extra_whitespaces": model.remove_extra_whitespaces,
    }
    unknown = next((index for index, kind in types.items() if kind is PieceType.UNKNOWN), None)
    if unknown is not None:
        values["tokenizer.ggml.unknown_token_id"] = unknown
    if model.charsmap:
        values["tokenizer.ggml.precompiled_charsmap"] = model.charsmap
    return values
