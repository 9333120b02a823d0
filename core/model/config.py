"""`ModelConfig`: the one authority on a model's shape.

Every switch that the open decoder families need is a field here, so that one `GPT` class covers them all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nlpkit.core.errors import ConfigError, shown
from nlpkit.core.typed_fields import check_fields

NormKind = Literal["rms", "layer"]
NormPlacement = Literal["pre", "post", "sandwich"]
Positions = Literal["rope", "learned"]
Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]
QKNorm = Literal["none", "head", "full"]
RopeScaling = Literal["none", "linear", "dynamic", "yarn", "llama3", "longrope", "factors"]

LIMITS: Mapping[str, int] = {
    "vocab_size": 2_000_000,
    "d_model": 131_072,
    "n_layers": 1_024,
    "n_heads": 1_024,
    "n_kv_heads": 1_024,
    "head_dim": 4_096,
    "d_ff": 1_048_576,
    "max_seq_len": 100_000_000,
}
"""Upper bounds that a model file may claim; far above any real model, low enough to stop a forged header."""


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Rotary position embedding (Su et al. 2021, arXiv:2104.09864) and its context extensions.

    Attributes:
        theta: Base of the frequencies, ``theta ** (-2i / dim)``.
        dim: How many leading dimensions of each head are rotated; None means all of them.
        scaling: The extension method.
        factor: Context stretch of linear, dynamic, yarn and llama3 scaling.
        original_max_seq_len: Context length of the pre-training, where the method needs it.
        attention_factor: Multiplier on cos and sin (yarn, longrope); None means the method's own default.
        beta_fast: YaRN's upper rotation bound (arXiv:2309.00071).
        beta_slow: YaRN's lower rotation bound.
        mscale: YaRN magnitude numerator, as DeepSeek configurations give it; 0 means unused.
        mscale_all_dim: YaRN magnitude denominator; 0 means unused.
        truncate: Whether YaRN rounds its correction range to whole dimensions.
        low_freq_factor: Llama 3's low-frequency bound.
        high_freq_factor: Llama 3's high-frequency bound.
        short_factor: LongRoPE divisors for sequences within the original context; also the one list of the
            ``factors`` method (GGUF's ``rope_freqs`` tensor).
        long_factor: LongRoPE divisors for longer sequences.
    """

    theta: float = 10_000.0
    dim: int | None = None
    scaling: RopeScaling = "none"
    factor: float = 1.0
    original_max_seq_len: int | None = None
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    truncate: bool = True
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, "The rotary embedding's")
        for name in _POSITIVE:
            value = getattr(self, name)
            if not 1e-6 <= value <= 1e15:
                raise ConfigError(f"The rotary embedding's {name} is {value!r}; it must be a number above 0.")
        if self.theta <= 1:
            raise ConfigError(f"The rotary embedding's theta is {self.theta!r}; it must be a number above 1.")
        if self.dim is not None and self.dim < 2:
            raise ConfigError(f"The rotary embedding's dim is {self.dim!r}; it must be a whole number from 2.")
        if self.original_max_seq_len is not None and not 2 <= self.original_max_seq_len <= LIMITS["max_seq_len"]:
            raise ConfigError(
                f"The rotary embedding's original_max_seq_len is {shown(self.original_max_seq_len)}; it must be a "
                f"whole number from 2 to {LIMITS['max_seq_len']:,}."
            )
        if 0 in self.short_factor or 0 in self.long_factor:
            raise ConfigError("The rotary embedding's factors hold a 0; all must be others.")

    def length_border(self, max_seq_len: int) -> int | None:
        """Return the length beyond which frequencies depend on how long a sequence is; None where they never do.

        Args:
            max_seq_len: The model's longest context, in tokens.
        """
        border = self.original_max_seq_len or max_seq_len
        return border if self.scaling in ("dynamic", "longrope") and border < max_seq_len else None


_POSITIVE = ("factor", "beta_fast", "beta_slow", "low_freq_factor", "high_freq_factor")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape and switches of a decoder-only transformer.

    Attributes:
        family: A key of `nlpkit.core.formats.families.FAMILIES`, such as ``llama``.
        vocab_size: Rows of the embedding, in tokens.
        d_model: Width of the residual stream.
        n_layers: Number of blocks.
        n_heads: Query heads.
        n_kv_heads: Key and value heads; fewer than `n_heads` is grouped-query attention.
        head_dim: Width of one head.
        d_ff: Hidden width of the MLP.
        max_seq_len: Longest context, in tokens.
        norm: ``rms`` (arXiv:1910.07467) or ``layer`` (arXiv:1607.06450).
        norm_eps: Added to the variance.
        norm_offset: Added to the norm weight (Gemma stores ``weight - 1``).
        norm_placement: ``pre`` before each sublayer; ``post`` after it, before the residual sum (OLMo 2);
            ``sandwich`` both (Gemma 2 and 3).
        parallel_residual: Attention and MLP read the same input and are summed (GPT-NeoX).
        positions: ``rope`` or ``learned``.
        rope: Rotary settings of full-attention layers.
        rope_local: Rotary settings of sliding layers where they differ (Gemma 3); None means the same.
        activation: MLP non-linearity.
        gated_mlp: ``down(act(gate(x)) * up(x))`` instead of ``down(act(up(x)))``.
        qkv_bias: Biases on the query, key and value projections.
        o_bias: Bias on the attention output projection.
        mlp_bias: Biases on the MLP projections.
        head_bias: Bias on the output head.
        qk_norm: Normalise queries and keys per head, over the ``full`` width, or not.
        sliding_window: Tokens a sliding layer looks back on, itself included; None means no sliding layers.
        sliding_layers: Indices of the sliding layers.
        attn_scale: Multiplier on ``QK^T``; None means ``head_dim ** -0.5``.
        attn_softcap: ``cap * tanh(scores / cap)`` on attention scores; 0 means off (Gemma 2).
        logit_softcap: The same on the output logits; 0 means off.
        embedding_scale: Multiplier on the embeddings (Gemma: ``sqrt(d_model)``).
        tied_head: The head shares the embedding's weight.
    """

    family: str
    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    max_seq_len: int
    norm: NormKind = "rms"
    norm_eps: float = 1e-5
    norm_offset: float = 0.0
    norm_placement: NormPlacement = "pre"
    parallel_residual: bool = False
    positions: Positions = "rope"
    rope: RopeConfig = RopeConfig()
    rope_local: RopeConfig | None = None
    activation: Activation = "silu"
    gated_mlp: bool = True
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    qk_norm: QKNorm = "none"
    sliding_window: int | None = None
    sliding_layers: tuple[int, ...] = ()
    attn_scale: float | None = None
    attn_softcap: float = 0.0
    logit_softcap: float = 0.0
    embedding_scale: float = 1.0
    tied_head: bool = True

    def __post_init__(self) -> None:
        for name, limit in LIMITS.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
                raise ConfigError(
                    f"The model's {name} is {shown(value)}; it must be a whole number from 1 to {limit:,}."
                )
        check_fields(self, "The model's")
        if self.n_heads % self.n_kv_heads:
            raise ConfigError(
                f"The model has {self.n_heads} query heads and {self.n_kv_heads} key/value heads; "
                "the first must be a multiple of the second."
            )
        rotated = self.rope.dim or self.head_dim
        if self.positions == "rope" and (rotated % 2 or rotated > self.head_dim):
            raise ConfigError(
                f"The model rotates {rotated} of {self.head_dim} head dimensions; the number must be even and at "
                "most the head's width."
            )
        if self.positions == "rope" and self.rope.scaling == "dynamic" and rotated < 4:
            raise ConfigError(f"The model rotates {rotated} dimensions; dynamic scaling needs 4.")
        if any(not 0 <= layer < self.n_layers for layer in self.sliding_layers):
            raise ConfigError(f"The model's sliding_layers name layers beyond its {self.n_layers}.")
        if self.sliding_window is not None and not 1 <= self.sliding_window <= LIMITS["max_seq_len"]:
            raise ConfigError(f"The model has a sliding window of {shown(self.sliding_window)} tokens.")
        if self.norm_eps < 0:
            raise ConfigError(f"The model's norm_eps is {self.norm_eps!r}; it must not be below 0.")
        if self.rope_local is not None and (self.rope_local.dim or 2) > self.head_dim:
            raise ConfigError(f"The model's local rotary embedding turns more than its {self.head_dim} dimensions.")
        if self.sliding_layers and (self.sliding_window is None or self.sliding_window < 1):
            raise ConfigError(f"The model has sliding layers with a window of {self.sliding_window!r} tokens.")

    @property
    def depends_on_length(self) -> bool:
        """Whether what a model makes of a token depends on how long the token's sequence is."""
        ropes = (self.rope, self.rope_local) if self.positions == "rope" else ()
        return any(rope is not None and rope.length_border(self.max_seq_len) is not None for rope in ropes)

    @property
    def n_parameters(self) -> int:
        """Number of weights of the model, a tied head counted once."""
        d, q, kv = self.d_model, self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        norm = 2 if self.norm == "layer" else 1
        n_norms = {"pre": 2, "post": 2, "sandwich": 4}[self.norm_placement]
        per_head = {"none": 0, "head": 2 * self.head_dim, "full": q + kv}[self.qk_norm]
        attention = d * (q + 2 * kv) + self.qkv_bias * (q + 2 * kv) + q * d + self.o_bias * d
        n_wide = 2 if self.gated_mlp else 1
        mlp = (n_wide + 1) * d * self.d_ff + self.mlp_bias * (n_wide * self.d_ff + d)
        block = attention + mlp + norm * (n_norms * d + per_head)
        rows = self.vocab_size + (self.max_seq_len if self.positions == "learned" else 0)
        head = 0 if self.tied_head else self.vocab_size * (d + self.head_bias)
        return rows * d + self.n_layers * block + norm * d + head

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary that `from_dict` reads back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Build a configuration from `to_dict`'s output.

        Raises:
            ConfigError: A key is unknown or missing, or a value is out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(
                f"The model configuration has unknown keys: {', '.join(shown(key, 60) for key in unknown[:12])}."
            )
        data = dict(values)
        try:
            for key in ("rope", "rope_local"):
                if isinstance(data.get(key), Mapping):
                    rope = dict(data[key])
                    for factors in ("short_factor", "long_factor"):
                        rope[factors] = tuple(rope.get(factors, ()))
                    data[key] = RopeConfig(**rope)
            data["sliding_layers"] = tuple(data.get("sliding_layers", ()))
            return cls(**data)
        except TypeError as error:
            raise ConfigError(f"The model configuration cannot be used: {error}.") from error
