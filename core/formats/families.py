"""The families that our own `GPT` runs, and the fields of their configurations: one table for all formats.

A family is a row of `FAMILIES`; a field is a row of `FIELDS`. Hugging Face configurations and GGUF metadata are read
and written by them. Rotary settings and sliding windows, which each format says in its own way, are code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from nlpkit.core.errors import ModelFileError, shown
from nlpkit.core.formats import weight_names
from nlpkit.core.formats.gguf import weight_names as gguf_names
from nlpkit.core.formats.hf_defaults import DEFAULTS
from nlpkit.core.formats.name_rules import Rules
from nlpkit.core.model.config import Activation, ModelConfig

ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
"""Ours by the names in Hugging Face configurations."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family of models; its name is the ``model_type`` of Hugging Face configurations.

    What a ``config.json`` leaves out is in `nlpkit.core.formats.hf_defaults`.

    Attributes:
        hf_class: Class in `transformers`.
        hf_names: Names of weights in its checkpoints.
        hf_prefix: What a headless checkpoint leaves out of every name.
        hf_spellings: Its own spellings of fields, by the usual ones.
        gguf: Architecture of its GGUF files.
        gguf_names: Names of weights in those.
        gguf_defaults: Fields that llama.cpp takes for granted where the metadata do not say them.
        switches: Fields of `ModelConfig` that are the same for all its models.
        scaled_embeddings: Embeddings are multiplied by ``sqrt(d_model)``.
        window: Sliding window where GGUF metadata name none; 0 for none.
        period: Which layers have a window, where nothing says it: all but each so manieth; 1: all; 0: none.
        windowed: The family whose name a model has that uses a window, where that is another one.
        layer_types: Its configurations list which layers have a window.
        local_rope: Rotary settings of sliding layers: ``same`` as of the others; ``own``, with another base; those of
            the others ``unscaled``.
        wide_scale_layers: Layer count of the one size whose attention scale is ``(d_model / n_heads) ** -0.5``, which
            no GGUF metadata tell.
    """

    hf_class: str
    hf_names: Rules = weight_names.LLAMA
    hf_prefix: str = "model."
    hf_spellings: Mapping[str, str] = field(default_factory=dict)
    gguf: str
    gguf_names: Rules
    gguf_defaults: Mapping[str, float] = field(default_factory=dict)
    switches: Mapping[str, Any] = field(default_factory=dict)
    scaled_embeddings: bool = False
    window: int = 0
    period: int = 0
    windowed: str | None = None
    layer_types: bool = False
    local_rope: Literal["same", "own", "unscaled"] = "same"
    wide_scale_layers: int = 0

    @property
    def rotates(self) -> bool:
        """Whether positions are rotary."""
        return bool(self.switches.get("positions", "rope") == "rope")


_GEMMA: Mapping[str, Any] = {"norm_offset": 1.0, "norm_placement": "sandwich"}
_GPT2: Mapping[str, Any] = {"norm": "layer", "gated_mlp": False, "mlp_bias": True}

FAMILIES: Mapping[str, Family] = {
    "llama": Family(hf_class="LlamaForCausalLM", gguf="llama", gguf_names=gguf_names.LLAMA, windowed="mistral"),
    "mistral": Family(hf_class="MistralForCausalLM", gguf="llama", gguf_names=gguf_names.LLAMA, period=1),
    "qwen2": Family(
        hf_class="Qwen2ForCausalLM",
        gguf="qwen2",
        gguf_names=gguf_names.QWEN2,
        switches={"qkv_bias": True, "o_bias": False},
        layer_types=True,
    ),
    "qwen3": Family(
        hf_class="Qwen3ForCausalLM",
        gguf="qwen3",
        gguf_names=gguf_names.QWEN3,
        switches={"qk_norm": "head"},
        layer_types=True,
    ),
    "gemma2": Family(
        hf_class="Gemma2ForCausalLM",
        hf_names=weight_names.GEMMA,
        gguf="gemma2",
        gguf_names=gguf_names.GEMMA2,
        gguf_defaults={"attn_softcap": 50.0, "logit_softcap": 30.0},
        switches=_GEMMA,
        scaled_embeddings=True,
        window=4096,
        period=2,
        layer_types=True,
        wide_scale_layers=46,
    ),
    "gemma3_text": Family(
        hf_class="Gemma3ForCausalLM",
        hf_names=weight_names.GEMMA,
        gguf="gemma3",
        gguf_names=gguf_names.GEMMA3,
        switches={**_GEMMA, "qk_norm": "head"},
        scaled_embeddings=True,
        period=6,
        layer_types=True,
        local_rope="own",
        wide_scale_layers=62,
    ),
    "phi3": Family(
        hf_class="Phi3ForCausalLM",
        hf_names=weight_names.PHI3,
        gguf="phi3",
        gguf_names=gguf_names.PHI3,
        period=1,
    ),
    "olmo2": Family(
        hf_class="Olmo2ForCausalLM",
        hf_names=weight_names.OLMO2,
        gguf="olmo2",
        gguf_names=gguf_names.OLMO2,
        switches={"norm_placement": "post", "qk_norm": "full"},
        # OLMo 3, which files call by the same name: only the layers that see everything have stretched positions.
        period=4,
        local_rope="unscaled",
    ),
    "gpt2": Family(
        hf_class="GPT2LMHeadModel",
        hf_names=weight_names.GPT2,
        hf_prefix="transformer.",
        hf_spellings={
            "hidden_size": "n_embd",
            "num_hidden_layers": "n_layer",
            "num_attention_heads": "n_head",
            "intermediate_size": "n_inner",
            "max_position_embeddings": "n_positions",
            "hidden_act": "activation_function",
            "layer_norm_eps": "layer_norm_epsilon",
        },
        gguf="gpt2",
        gguf_names=gguf_names.GPT2,
        switches={**_GPT2, "positions": "learned", "qkv_bias": True, "o_bias": True},
    ),
    "gpt_neox": Family(
        hf_class="GPTNeoXForCausalLM",
        hf_names=weight_names.GPT_NEOX,
        hf_prefix="gpt_neox.",
        gguf="gptneox",
        gguf_names=gguf_names.GPT_NEOX,
        switches=_GPT2,
    ),
}
WRAPPED: Mapping[str, str] = {"gemma3": "gemma3_text"}
"""Families of models with pictures, whose ``text_config`` is one of ours."""
_WINDOWED = {row.windowed for row in FAMILIES.values()}
ARCHITECTURES: Mapping[str, str] = {row.gguf: name for name, row in FAMILIES.items() if name not in _WINDOWED}
"""Families by GGUF architecture; those with a window that share another's are told by it."""


class Reader(Protocol):
    """Typed look-ups in an untrusted configuration; each refuses values of another type."""

    def integer(self, name: str, default: int | None = None) -> int:
        """Return a whole number; without a default it must be there."""
        ...

    def number(self, name: str, default: float | None = None) -> float:
        """Return a finite number; without a default it must be there."""
        ...

    def flag(self, name: str, default: bool) -> bool:
        """Return whether a switch is on."""
        ...

    def text(self, name: str, default: str) -> str:
        """Return a text."""
        ...


Read = Callable[[Reader, str, Any], Any]
Write = Callable[[Any, ModelConfig], Any]


@dataclass(frozen=True)
class Key:
    """How one format says a field.

    Attributes:
        name: Its key.
        read: Gets the configuration, the key and a default, and returns the field.
        write: Gets the field and all of the model, and returns the value of the key.
        default: Gets the fields read so far, and returns what the field is where the key says nothing; None where it
            must say something.
    """

    name: str
    read: Read = lambda reader, name, default: reader.integer(name, default)
    write: Write = lambda value, config: value
    default: Callable[[Mapping[str, Any]], Any] | None = None


@dataclass(frozen=True)
class ConfigField:
    """One field of `ModelConfig` in the formats; families whose class has no such key do not have it.

    Attributes:
        ours: Its name.
        hf: Key in Hugging Face configurations.
        gguf: Key in GGUF metadata, or None where the tensors or the family say it.
        anywhere: GGUF files of any family may say it.
    """

    ours: str
    hf: Key
    gguf: Key | None = None
    anywhere: bool = False


def _flag(name: str, *, default: bool = False) -> Key:
    return Key(name, lambda reader, name, default: reader.flag(name, default), default=lambda read: default)


def _number(name: str, default: float | None = None) -> Key:
    return Key(
        name,
        lambda reader, name, default: reader.number(name, default),
        default=None if default is None else lambda read: default,
    )


def _hf_cap(name: str) -> Key:
    return dataclasses.replace(_number(name, 0.0), write=lambda value, config: value or None)


def _gguf_cap(name: str, ours: str) -> Key:
    def write(value: float, config: ModelConfig) -> float | None:
        # Where other programs take one for granted, none has to be said.
        return float(value) if value or ours in FAMILIES[config.family].gguf_defaults else None

    return dataclasses.replace(_number(name, 0.0), write=write)


def _activation(name: str) -> Key:
    def read(reader: Reader, name: str, default: Activation) -> Activation:
        activation = reader.text(name, "")
        if activation and activation not in ACTIVATIONS:
            raise ModelFileError(f"The model's activation {shown(activation)} is not known here.")
        return ACTIVATIONS.get(activation, default)

    def write(value: Activation, config: ModelConfig) -> str:
        usual = str(DEFAULTS[config.family][name])
        if ACTIVATIONS[usual] == value:
            return usual
        return "gelu_pytorch_tanh" if value == "gelu_tanh" else value

    return Key(name, read, write, lambda fields: fields["activation"])


def _read_scalar(reader: Reader, name: str, default: Any) -> float | None:
    scalar = reader.number(name, 0.0)
    return float(scalar) ** -0.5 if scalar else None


def _write_scalar(value: float | None, config: ModelConfig) -> float:
    scalar = float((value if value is not None else config.head_dim**-0.5) ** -2)
    return round(scalar) if abs(scalar - round(scalar)) < 1e-6 else scalar


def _heads(read: Mapping[str, Any]) -> Any:
    return read["n_heads"]


def _head_dim(read: Mapping[str, Any]) -> Any:
    return read["d_model"] // max(1, read["n_heads"])


FIELDS: tuple[ConfigField, ...] = (
    ConfigField("vocab_size", Key("vocab_size")),
    ConfigField("d_model", Key("hidden_size"), Key("embedding_length")),
    ConfigField("n_layers", Key("num_hidden_layers"), Key("block_count")),
    ConfigField("n_heads", Key("num_attention_heads"), Key("attention.head_count")),
    ConfigField(
        "n_kv_heads",
        Key("num_key_value_heads", default=_heads),
        Key("attention.head_count_kv", default=_heads),
        anywhere=True,
    ),
    ConfigField(
        "head_dim", Key("head_dim", default=_head_dim), Key("attention.key_length", default=_head_dim), anywhere=True
    ),
    ConfigField("d_ff", Key("intermediate_size", default=lambda read: 4 * read["d_model"]), Key("feed_forward_length")),
    ConfigField("max_seq_len", Key("max_position_embeddings"), Key("context_length")),
    ConfigField("norm_eps", _number("rms_norm_eps", 1e-6), _number("attention.layer_norm_rms_epsilon")),
    ConfigField("norm_eps", _number("layer_norm_eps", 1e-5), _number("attention.layer_norm_epsilon")),
    ConfigField("activation", _activation("hidden_act")),
    ConfigField("activation", _activation("hidden_activation")),
    ConfigField("qkv_bias", _flag("attention_bias")),
    ConfigField("o_bias", _flag("attention_bias")),
    ConfigField("mlp_bias", _flag("mlp_bias")),
    ConfigField(
        "parallel_residual",
        _flag("use_parallel_residual"),
        _flag("use_parallel_residual", default=True),
    ),
    ConfigField(
        "attn_softcap",
        _hf_cap("attn_logit_softcapping"),
        _gguf_cap("attn_logit_softcapping", "attn_softcap"),
        anywhere=True,
    ),
    ConfigField(
        "logit_softcap",
        _hf_cap("final_logit_softcapping"),
        _gguf_cap("final_logit_softcapping", "logit_softcap"),
        anywhere=True,
    ),
    ConfigField("attn_scale", Key("query_pre_attn_scalar", _read_scalar, _write_scalar)),
    ConfigField(
        "attn_scale",
        Key(
            "scale_attn_weights",
            lambda reader, name, default: None if reader.flag(name, default=False) else 1.0,
            lambda value, config: value is None,
        ),
    ),
    ConfigField("tied_head", _flag("tie_word_embeddings")),
)
"""Fields in the order in which they are read: defaults may depend on those before."""


def _keys(family: str, format_: Literal["hf", "gguf"]) -> Iterator[tuple[str, Key]]:
    for row in FIELDS:
        key = row.hf if format_ == "hf" else row.gguf
        has = row.hf.name in DEFAULTS[family] or (row.anywhere and format_ == "gguf")
        if key is not None and has:
            yield row.ours, key


def read_fields(family: str, format_: Literal["hf", "gguf"], reader: Reader) -> dict[str, Any]:
    """Read what `FIELDS` says of a model, and what its family says.

    Args:
        family: A key of `FAMILIES`.
        format_: The format.
        reader: The configuration.

    Returns:
        Fields of `ModelConfig`, those of rotary settings and sliding windows left out.

    Raises:
        ModelFileError: A value is missing or of the wrong kind.
    """
    row = FAMILIES[family]
    (usual,) = (DEFAULTS[family][name] for name in ("hidden_act", "hidden_activation") if name in DEFAULTS[family])
    fields: dict[str, Any] = {"activation": ACTIVATIONS[usual]}
    for ours, key in _keys(family, format_):
        default = None if key.default is None else key.default(fields)
        if format_ == "gguf":
            default = row.gguf_defaults.get(ours, default)
        fields[ours] = key.read(reader, key.name, default)
    fields.setdefault("n_kv_heads", _heads(fields))
    fields.setdefault("head_dim", _head_dim(fields))
    if row.scaled_embeddings:
        fields["embedding_scale"] = fields["d_model"] ** 0.5
    return {**fields, "family": family, **row.switches}


def write_fields(config: ModelConfig, format_: Literal["hf", "gguf"]) -> dict[str, Any]:
    """Undo `read_fields`: return the values of a configuration's keys, None where a key is to say nothing."""
    values: dict[str, Any] = {}
    for ours, key in _keys(config.family, format_):
        # Where one key stands for two fields, the first one counts.
        values.setdefault(key.name, key.write(getattr(config, ours), config))
    return values


def sliding_layers(period: int, n_layers: int) -> tuple[int, ...]:
    """Return the layers with a window: all but each so manieth; all where that is 1, none where it is 0."""
    return tuple(i for i in range(n_layers) if period == 1 or (period > 1 and (i + 1) % period))
