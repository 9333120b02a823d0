"""The tokenizer seam: text to token ids and back, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Tokenizer(Protocol):
    """What the core needs of a tokenizer. No tensors, no padding, no truncation.

    Attributes:
        vocab_size: One more than the largest id that `encode` can return.
        bos_id: Beginning-of-sequence id, or None.
        eos_ids: Ids that end a completion; may be empty.
        adds_bos: Whether the model expects `bos_id` in front of a raw prompt.
        fingerprint: Hex sha256 over everything that decides how text is tokenized.
    """

    adds_bos: bool

    @property
    def vocab_size(self) -> int:
        """One more than the largest id that `encode` can return."""
        ...

    @property
    def bos_id(self) -> int | None:
        """Beginning-of-sequence id, or None."""
        ...

    @property
    def eos_ids(self) -> frozenset[int]:
        """Ids that end a completion; may be empty."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hex sha256 over everything that decides how text is tokenized."""
        ...

    def encode(
        self, text: str, *, add_bos: bool = False, parse_special: bool = False, at_start: bool = True
    ) -> list[int]:
        """Tokenize `text`.

        Args:
            text: Any string.
            add_bos: Put `bos_id` in front; an error if the tokenizer has none.
            parse_special: Read spellings such as ``<|im_end|>`` as special tokens. Off for anything a user typed:
                then they are ordinary text.
            at_start: Whether it begins a text. Off for what continues one: then it does not get the space that some
                tokenizers put in front of a text.
        """
        ...

    def decode(self, token_ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Turn ids back into text; bytes that are no valid UTF-8 become U+FFFD."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that one token adds to the text (empty for special tokens)."""
        ...

    def token_to_id(self, token: str) -> int | None:
        """Return the id of one exact vocabulary entry, or None."""
        ...


def begins_anew(tokenizer: Tokenizer, prompt_ids: Sequence[int]) -> bool:
    """Tell whether what stands behind a prompt is tokenized like the start of a text.

    Only there do some tokenizers (SentencePiece, as Llama 2 has it) put a space in front when they encode, and take one
    off again when they decode.

    Args:
        tokenizer: The tokenizer.
        prompt_ids: The prompt; may be empty.
    """
    special: frozenset[int] = getattr(tokenizer, "special_ids", frozenset())
    if all(token_id == tokenizer.bos_id for token_id in prompt_ids):
        return True
    return prompt_ids[-1] in special and bool(getattr(tokenizer, "prefixes_sections", False))


def encode_behind(tokenizer: Tokenizer, prompt_ids: Sequence[int], text: str) -> list[int]:
    """Tokenize a text that continues a prompt, as it is tokenized where both are one text.

    Training, asking and scoring all come here for what stands behind a prompt.

    Args:
        tokenizer: The tokenizer.
        prompt_ids: The prompt.
        text: What follows it.

    Returns:
        The text's token ids.
    """
    return tokenizer.encode(text) if begins_anew(tokenizer, prompt_ids) else tokenizer.encode(text, at_start=False)


def drops_space(tokenizer: Tokenizer, token_id: int) -> bool:
    """Tell whether decoding takes a space off the front of a text that begins with this token."""
    return tokenizer.token_bytes(token_id).startswith(b" ") and not tokenizer.decode([token_id]).startswith(" ")
