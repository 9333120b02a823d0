"""Tiny random models and a toy tokenizer for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from nlpkit.core.decode.engine import Engine
from nlpkit.core.model.config import ModelConfig
from nlpkit.core.model.gpt import GPT
from nlpkit.core.runners.gpt import GPTRunner


class ToyTokenizer:
    """One token per byte of a small alphabet; id 0 is EOS and decodes to nothing."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.bos_id = None
        self.adds_bos = False
        self.eos_ids = frozenset({0})
        self.fingerprint = hashlib.sha256(str(vocab_size).encode()).hexdigest()

    def encode(
        self, text: str, *, add_bos: bool = False, parse_special: bool = False, at_start: bool = True
    ) -> list[int]:
        return [ord(char) - 96 for char in text]

    def token_bytes(self, token_id: int) -> bytes:
        return b"" if token_id == 0 else chr(96 + token_id).encode()

    def decode(self, token_ids: Sequence[int], *, skip_special: bool = True) -> str:
        return b"".join(self.token_bytes(token_id) for token_id in token_ids).decode("utf-8", "replace")

    def token_to_id(self, token: str) -> int | None:
        return None


def tiny_config(*, vocab_size: int = 29, **changes: object) -> ModelConfig:
    values: dict[str, object] = {
        "family": "llama", "vocab_size": vocab_size, "d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2,
        "head_dim": 8, "d_ff": 48, "max_seq_len": 128,
    }  # fmt: skip
    return ModelConfig.from_dict({**values, **changes})


def tiny_gpt(config: ModelConfig | None = None, *, seed: int = 0, scale: float = 0.3) -> GPT:
    """A random model whose distributions are far from uniform, so that different inputs give different tokens."""
    model = GPT(config or tiny_config())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.1 * noise if name.endswith("norm.weight") else scale * noise)
    return model.eval().requires_grad_(False)


def tiny_engine(*, vocab_size: int = 29, seed: int = 0, scale: float = 0.3, prefill_chunk: int = 2048,
                **changes: object) -> Engine:  # fmt: skip
    model = tiny_gpt(tiny_config(vocab_size=vocab_size, **changes), seed=seed, scale=scale)
    return Engine(lambda: GPTRunner(model, prefill_chunk=prefill_chunk), ToyTokenizer(vocab_size))
