"""Picks the tokenizer that a model directory holds."""

from __future__ import annotations

from pathlib import Path

from nlpkit.core.errors import TokenizerError
from nlpkit.core.tokenizers.bpe import HFTokenizer
from nlpkit.core.tokenizers.sentencepiece import SentencePieceTokenizer
from nlpkit.core.tokenizers.tokenizer import Tokenizer


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """Load the tokenizer of a directory in the HF layout.

    Args:
        directory: Holds ``tokenizer.json`` (preferred), ``tokenizer.model`` (SentencePiece), or ``vocab.json`` with
            ``merges.txt`` (GPT-2).

    Raises:
        TokenizerError: There is none, or it cannot be used.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise TokenizerError(f"{directory} is no directory; a tokenizer is loaded from the directory of its model.")
    if not (directory / "tokenizer.json").exists() and (directory / "tokenizer.model").exists():
        return SentencePieceTokenizer.from_files(directory)
    if (directory / "tokenizer.json").exists() or (directory / "vocab.json").exists():
        return HFTokenizer.from_files(directory)
    raise TokenizerError(
        f"{directory} has no tokenizer: none of tokenizer.json, tokenizer.model and vocab.json with merges.txt is "
        "there. Put the model's tokenizer files beside its weights."
    )
