"""Model sizes for training from scratch, from 1M to 1B parameters.

All are Llama-shaped (Touvron et al. 2023, arXiv:2302.13971): rotary positions, RMSNorm, SwiGLU, no biases, tied head.
The sizes follow GPT-2 and GPT-3's table (Brown et al. 2020, arXiv:2005.14165, table 2.1) where they meet it, and the
deep-and-thin finding of MobileLLM (Liu et al. 2024, arXiv:2402.14905) below. `nano` is nanoGPT's character model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nlpkit.core.errors import ConfigError, did_you_mean
from nlpkit.core.model.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A size.

    Attributes:
        d_model: Width.
        n_layers: Depth.
        n_heads: Query heads.
        n_kv_heads: Key and value heads.
        d_ff: Width of the MLP.
        max_seq_len: Context.
        vocab_size: Vocabulary that a tokenizer trained for it gets, unless told otherwise.
        learning_rate: A peak learning rate that works.
    """

    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_ff: int
    max_seq_len: int
    vocab_size: int
    learning_rate: float


PRESETS: Mapping[str, Preset] = {
    name: Preset(
        d_model=d, n_layers=layers, n_heads=heads, n_kv_heads=kv, d_ff=ff, max_seq_len=context, vocab_size=vocab,
        learning_rate=lr,
    )
    for name, d, layers, heads, kv, ff, context, vocab, lr in (
        ("nano", 128, 4, 4, 4, 352, 64, 300, 1e-3),
        ("1m", 128, 4, 4, 2, 352, 512, 2048, 1e-3),
        ("5m", 256, 6, 4, 2, 704, 512, 4096, 1e-3),
        ("15m", 320, 10, 5, 5, 864, 1024, 8192, 8e-4),
        ("30m", 448, 12, 7, 7, 1216, 1024, 8192, 6e-4),
        ("60m", 512, 16, 8, 4, 1408, 1024, 16384, 6e-4),
        ("135m", 576, 30, 9, 3, 1536, 2048, 49152, 6e-4),
        ("350m", 1024, 25, 16, 8, 2816, 2048, 49152, 3e-4),
        ("760m", 1536, 26, 16, 8, 4096, 2048, 49152, 2.5e-4),
        ("1b", 2048, 19, 16, 8, 5632, 2048, 49152, 2e-4),
    )
}  # fmt: skip


def preset_config(
    name: str, *, vocab_size: int, seq_len: int, overrides: Mapping[str, Any] | None = None
) -> ModelConfig:
    """Return the configuration of one preset.

    Args:
        name: The preset.
        vocab_size: Ids of the tokenizer; rounded up to a multiple of 64, which matrix kernels like.
        seq_len: The training rows' length; the context is at least that.
        overrides: Fields of `ModelConfig` to set instead, such as ``n_layers``.

    Returns:
        The configuration.

    Raises:
        ConfigError: There is no such preset or field.
    """
    if name not in PRESETS:
        raise ConfigError(f"There is no preset {name!r}. {did_you_mean(name, PRESETS)}")
    preset = PRESETS[name]
    values: dict[str, Any] = {
        "family": "llama",
        "vocab_size": -(-vocab_size // 64) * 64,
        "d_model": preset.d_model,
        "n_layers": preset.n_layers,
        "n_heads": preset.n_heads,
        "n_kv_heads": preset.n_kv_heads,
        "head_dim": preset.d_model // preset.n_heads,
        "d_ff": preset.d_ff,
        "max_seq_len": max(preset.max_seq_len, seq_len),
    }
    given = dict(overrides or {})
    allowed = set(ModelConfig.__dataclass_fields__)
    for key in given:
        if key not in allowed:
            raise ConfigError(f"A model has no setting {key!r}. {did_you_mean(key, allowed)}")
    values |= given
    if "head_dim" not in given:
        if values["d_model"] % values["n_heads"]:
            raise ConfigError(
                f"d_model {values['d_model']} is no multiple of n_heads {values['n_heads']}. Change one of them, "
                "or set head_dim."
            )
        values["head_dim"] = values["d_model"] // values["n_heads"]
    if "n_heads" in given and "n_kv_heads" not in given:
        values["n_kv_heads"] = values["n_heads"]
    return ModelConfig.from_dict(values)
