"""Hugging Face ``config.json`` to `ModelConfig` and back, old and new spellings alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nlpkit.core.errors import ConfigError, ModelFileError, shown
from nlpkit.core.formats.hf_defaults import DEFAULTS, REFUSED
from nlpkit.core.formats.weight_names import FAMILIES
from nlpkit.core.model.config import Activation, ModelConfig, RopeConfig
from nlpkit.core.typed_fields import MAX_NUMBER

_MAX_INTEGER = 2**53

ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
ARCHITECTURES: Mapping[str, str] = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "gpt_neox": "GPTNeoXForCausalLM",
}
_GPT2_NAMES = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "intermediate_size": "n_inner",
    "max_position_embeddings": "n_positions",
    "hidden_act": "activation_function",
    "layer_norm_eps": "layer_norm_epsilon",
}


class _Values:
    """Typed look-ups in an untrusted JSON object."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def integer(self, name: str, default: int | None = None) -> int:
        value = self.values.get(name)
        if value is None:
            value = default
        if isinstance(value, bool) or not isinstance(value, int):
            raise ModelFileError(f"The model's config.json has {name} = {shown(value)}; a whole number is needed.")
        if abs(value) > _MAX_INTEGER:
            raise ModelFileError(f"The model's config.json has {name} = {shown(value)}, which no model has.")
        return value

    def text(self, name: str, default: str) -> str:
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise ModelFileError(f"The model's config.json has {name} = {shown(value)}; a text is needed.")
        return value

    def number(self, name: str, default: float) -> float:
        value = self.values.get(name)
        if value is None:
            value = default
        if not _is_number(value):
            raise ModelFileError(f"The model's config.json has {name} = {shown(value)}; a number is needed.")
        return float(value)


def _is_number(value: Any) -> bool:
    # Compared before it is made a float: a whole number of 400 digits is none.
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and abs(value) <= MAX_NUMBER and math.isfinite(value)


def _numbers(value: Any, name: str) -> tuple[float, ...]:
    if not isinstance(value, list) or not all(map(_is_number, value)):
        raise ModelFileError(f"The model's config.json has {name} = {shown(value)}; a list of numbers is needed.")
    return tuple(float(item) for item in value)


def _rope(values: Mapping[str, Any], layer_type: str, theta_key: str) -> RopeConfig:
    """Read one rotary setting from ``rope_parameters`` (new) or ``rope_theta`` with ``rope_scaling`` (old)."""
    top = _Values(values)
    nested = values.get("rope_parameters") or {}
    if not isinstance(nested, Mapping):
        raise ModelFileError(f"The model's config.json has rope_parameters = {shown(nested)}; an object is needed.")
    if isinstance(nested.get(layer_type), Mapping):
        nested = nested[layer_type]
    scaling = values.get("rope_scaling") or {}
    if not isinstance(scaling, Mapping):
        raise ModelFileError(f"The model's config.json has rope_scaling = {shown(scaling)}; an object is needed.")
    if layer_type == "sliding_attention" and not nested:
        scaling = {}
    merged = {**scaling, **nested}
    rope = _Values(merged)
    kind: Any = rope.text("rope_type", rope.text("type", "default"))
    kind = {"default": "none", "su": "longrope"}.get(kind, kind)
    if kind not in ("none", "linear", "dynamic", "yarn", "llama3", "longrope"):
        raise ModelFileError(f"The model's rotary scaling {shown(kind)} is not known here.")
    head_dim = top.integer("head_dim", 0) or top.integer("hidden_size") // max(1, top.integer("num_attention_heads"))
    whole = top.number("rotary_pct", 1.0) if values.get("model_type") == "gpt_neox" else 1.0
    partial = rope.number("partial_rotary_factor", top.number("partial_rotary_factor", whole))
    max_positions = top.integer("max_position_embeddings")
    original: int | None = None
    if kind in ("llama3", "yarn", "longrope"):
        fallback = rope.integer("original_max_position_embeddings", max_positions)
        original = top.integer("original_max_position_embeddings", fallback)
    elif kind == "dynamic":
        original = max_positions
    factor = merged.get("factor")
    if factor is None and kind == "yarn" and original:
        factor = max_positions / original
    attention_factor = merged.get("attention_factor")
    return RopeConfig(
        theta=rope.number("rope_theta", top.number(theta_key, 10_000.0)),
        dim=int(head_dim * partial) if partial != 1.0 else None,
        scaling=kind,
        factor=1.0 if factor is None else _Values({"factor": factor}).number("factor", 1.0),
        original_max_seq_len=original,
        attention_factor=None if attention_factor is None else rope.number("attention_factor", 1.0),
        beta_fast=rope.number("beta_fast", 32.0) or 32.0,
        beta_slow=rope.number("beta_slow", 1.0) or 1.0,
        mscale=rope.number("mscale", 0.0),
        mscale_all_dim=rope.number("mscale_all_dim", 0.0),
        truncate=bool(merged.get("truncate", True)),
        low_freq_factor=rope.number("low_freq_factor", 1.0),
        high_freq_factor=rope.number("high_freq_factor", 4.0),
        short_factor=_numbers(merged.get("short_factor", []), "short_factor"),
        long_factor=_numbers(merged.get("long_factor", []), "long_factor"),
    )


def _sliding(values: Mapping[str, Any], family: str, n_layers: int) -> tuple[int | None, tuple[int, ...]]:
    window = values.get("sliding_window")
    if window is None or (family in ("qwen2", "qwen3") and not values.get("use_sliding_window", False)):
        return None, ()
    if isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise ModelFileError(f"The model's config.json has sliding_window = {shown(window)}; a whole number is needed.")
    kinds = values.get("layer_types")
    if isinstance(kinds, list):
        layers = tuple(layer for layer, kind in enumerate(kinds[:n_layers]) if kind == "sliding_attention")
    elif family in ("mistral", "phi3"):
        layers = tuple(range(n_layers))
    elif family == "gemma2":
        layers = tuple(range(0, n_layers, 2))
    elif family == "gemma3_text":
        pattern = _Values(values).integer("sliding_window_pattern", 6)
        layers = tuple(layer for layer in range(n_layers) if (layer + 1) % max(1, pattern))
    elif family in ("qwen2", "qwen3"):
        layers = tuple(range(_Values(values).integer("max_window_layers"), n_layers))
    else:
        layers = ()
    return (window, layers) if layers else (None, ())


def config_from_hf(values: Mapping[str, Any]) -> ModelConfig:
    """Read a Hugging Face configuration.

    Args:
        values: The parsed ``config.json``.

    Returns:
        The model's shape.

    Raises:
        ModelFileError: The family is not one of ours, or a value is missing or of the wrong kind.
    """
    family = values.get("model_type")
    if family == "gemma3" and isinstance(values.get("text_config"), Mapping):
        values = {**values["text_config"], "model_type": "gemma3_text"}
        family = "gemma3_text"
    if not isinstance(family, str) or family not in FAMILIES:
        raise ModelFileError(f"The model family {shown(family)} is not one that nlpkit's own core runs.")
    if family == "gpt2":
        values = {**values, **{ours: values[theirs] for ours, theirs in _GPT2_NAMES.items() if theirs in values}}
    # GPT-NeoX calls the base by two names; the one that the file has counts.
    theta = {"rotary_emb_base": values["rope_theta"]} if family == "gpt_neox" and "rope_theta" in values else {}
    values = {**DEFAULTS[family], **theta, **values}
    refused = sorted(name for name in REFUSED[""] | REFUSED.get(family, frozenset()) if values.get(name))
    if refused:
        raise ModelFileError(
            f"The model's config.json sets {', '.join(refused)}, which nlpkit's own core does not compute. Use a model "
            "without."
        )
    read = _Values(values)
    try:
        return _build(family, values, read)
    except ConfigError as error:
        raise ModelFileError(f"The model's config.json cannot be used. {error}") from error
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        # A value that nothing above asks for the type of.
        raise ModelFileError(f"The model's config.json cannot be used: {error}.") from error


def _build(family: str, values: Mapping[str, Any], read: _Values) -> ModelConfig:
    d_model, n_heads = read.integer("hidden_size"), read.integer("num_attention_heads")
    n_layers = read.integer("num_hidden_layers")
    head_dim = read.integer("head_dim", d_model // max(1, n_heads))
    gemma = family in ("gemma2", "gemma3_text")
    old = family in ("gpt2", "gpt_neox")
    usual = "gelu_pytorch_tanh" if gemma else "gelu_new" if family == "gpt2" else "silu"
    activation = read.text("hidden_activation" if gemma else "hidden_act", usual) or usual
    if activation not in ACTIVATIONS:
        raise ModelFileError(f"The model's activation {shown(activation)} is not known here.")
    max_seq_len = read.integer("max_position_embeddings")
    rope, rope_local = RopeConfig(), None
    if family != "gpt2":
        theta_key = "rotary_emb_base" if family == "gpt_neox" else "rope_theta"
        rope = _rope(values, "full_attention", theta_key)
        if family == "gemma3_text":
            rope_local = _rope(values, "sliding_attention", "rope_local_base_freq")
        if rope.scaling == "dynamic":
            max_seq_len = int(max_seq_len * max(1.0, rope.factor))
    window, sliding_layers = _sliding(values, family, n_layers)
    bias = bool(values.get("attention_bias", old or family == "qwen2"))
    scale = values.get("query_pre_attn_scalar") if gemma else None
    attn_scale = float(read.number("query_pre_attn_scalar", 1.0)) ** -0.5 if scale else None
    if family == "gpt2" and not values["scale_attn_weights"]:
        attn_scale = 1.0
    return ModelConfig(
        family=family,
        vocab_size=read.integer("vocab_size"),
        d_model=d_model,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=n_heads if old else read.integer("num_key_value_heads", n_heads),
        head_dim=head_dim,
        d_ff=read.integer("intermediate_size", 4 * d_model),
        max_seq_len=max_seq_len,
        norm="layer" if old else "rms",
        norm_eps=read.number("layer_norm_eps" if old else "rms_norm_eps", 1e-5 if old else 1e-6),
        norm_offset=1.0 if gemma else 0.0,
        norm_placement="sandwich" if gemma else "post" if family == "olmo2" else "pre",
        parallel_residual=family == "gpt_neox" and bool(values.get("use_parallel_residual", True)),
        positions="learned" if family == "gpt2" else "rope",
        rope=rope,
        rope_local=rope_local,
        activation=ACTIVATIONS[activation],
        gated_mlp=not old,
        qkv_bias=True if family == "qwen2" else bias,
        o_bias=False if family == "qwen2" else bias,
        mlp_bias=old or bool(values.get("mlp_bias", False)),
        qk_norm="full" if family == "olmo2" else "head" if family in ("qwen3", "gemma3_text") else "none",
        sliding_window=window,
        sliding_layers=sliding_layers,
        attn_scale=attn_scale,
        attn_softcap=read.number("attn_logit_softcapping", 0.0) if gemma else 0.0,
        logit_softcap=read.number("final_logit_softcapping", 0.0) if gemma else 0.0,
        embedding_scale=d_model**0.5 if gemma else 1.0,
        tied_head=bool(values.get("tie_word_embeddings")),
    )


def _rope_to_hf(rope: RopeConfig, head_dim: int) -> dict[str, Any]:
    if rope.scaling == "factors":
        raise ModelFileError(
            "This model's rotary embedding has free factors (from a GGUF file), which Hugging Face configurations "
            "cannot hold. Convert it to the native format instead."
        )
    out: dict[str, Any] = {"rope_type": "default" if rope.scaling == "none" else rope.scaling, "rope_theta": rope.theta}
    if rope.dim is not None:
        out["partial_rotary_factor"] = rope.dim / head_dim
    if rope.scaling in ("linear", "dynamic", "yarn", "llama3") or (rope.scaling == "longrope" and rope.factor != 1.0):
        out["factor"] = rope.factor
    if rope.scaling in ("yarn", "llama3", "longrope"):
        out["original_max_position_embeddings"] = rope.original_max_seq_len
    if rope.scaling in ("yarn", "longrope") and rope.attention_factor is not None:
        out["attention_factor"] = rope.attention_factor
    if rope.scaling == "yarn":
        out |= {"beta_fast": rope.beta_fast, "beta_slow": rope.beta_slow, "truncate": rope.truncate}
        if rope.mscale:
            out |= {"mscale": rope.mscale, "mscale_all_dim": rope.mscale_all_dim}
    if rope.scaling == "llama3":
        out |= {"low_freq_factor": rope.low_freq_factor, "high_freq_factor": rope.high_freq_factor}
    if rope.scaling == "longrope":
        out |= {"short_factor": list(rope.short_factor), "long_factor": list(rope.long_factor)}
    return out


def config_to_hf(config: ModelConfig, *, dtype: str = "float32") -> dict[str, Any]:
    """Write a Hugging Face configuration.

    Args:
        config: The model's shape.
        dtype: Name of the weights' dtype.

    Returns:
        A JSON-ready object that `config_from_hf` and ``transformers`` both read.

    Raises:
        ModelFileError: The family's configuration cannot express the model.
    """
    family = config.family
    activation = {"silu": "silu", "relu": "relu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}[config.activation]
    names: dict[str, Any] = {
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "intermediate_size": config.d_ff,
        "max_position_embeddings": config.max_seq_len,
        "hidden_act": activation,
    }
    common: dict[str, Any] = {
        "model_type": family,
        "architectures": [ARCHITECTURES[family]],
        "dtype": dtype,
        "torch_dtype": dtype,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied_head,
    }
    if family == "gpt2":
        names["layer_norm_eps"] = config.norm_eps
        names["hidden_act"] = "gelu_new" if config.activation == "gelu_tanh" else activation
        common["scale_attn_weights"] = config.attn_scale is None
        return common | {_GPT2_NAMES[key]: value for key, value in names.items()}
    rope = _rope_to_hf(config.rope, config.head_dim)
    if config.rope.scaling == "dynamic":
        names["max_position_embeddings"] = config.rope.original_max_seq_len
    if config.rope_local is not None:
        local = _rope_to_hf(config.rope_local, config.head_dim)
        common["rope_parameters"] = {"full_attention": rope, "sliding_attention": local}
        common |= {"rope_theta": config.rope.theta, "rope_local_base_freq": config.rope_local.theta}
    else:
        common |= {"rope_parameters": rope, "rope_theta": config.rope.theta}
    if family == "gpt_neox":
        return (
            common
            | names
            | {
                "layer_norm_eps": config.norm_eps,
                "use_parallel_residual": config.parallel_residual,
                "rotary_pct": (config.rope.dim or config.head_dim) / config.head_dim,
                "attention_bias": config.qkv_bias,
            }
        )
    common |= names | {
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.norm_eps,
        "attention_bias": config.qkv_bias,
        "mlp_bias": config.mlp_bias,
        "sliding_window": config.sliding_window,
    }
    if family == "phi3" and config.rope.original_max_seq_len:
        common["original_max_position_embeddings"] = config.rope.original_max_seq_len
    if family in ("qwen2", "qwen3"):
        common |= {"use_sliding_window": bool(config.sliding_layers), "max_window_layers": config.n_layers}
        if config.sliding_layers:
            common["max_window_layers"] = config.sliding_layers[0]
    if family in ("qwen2", "qwen3", "gemma2", "gemma3_text"):
        sliding = frozenset(config.sliding_layers)
        common["layer_types"] = [
            "sliding_attention" if layer in sliding else "full_attention" for layer in range(config.n_layers)
        ]
    if family in ("gemma2", "gemma3_text"):
        scale = config.attn_scale if config.attn_scale is not None else config.head_dim**-0.5
        scalar = scale**-2
        common |= {
            "hidden_activation": common.pop("hidden_act"),
            "query_pre_attn_scalar": round(scalar) if abs(scalar - round(scalar)) < 1e-6 else scalar,
            "attn_logit_softcapping": config.attn_softcap or None,
            "final_logit_softcapping": config.logit_softcap or None,
        }
    return common
