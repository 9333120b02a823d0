"""Hugging Face ``config.json`` to `ModelConfig` and back, old and new spellings alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nlpkit.core.errors import ConfigError, ModelFileError, shown
from nlpkit.core.formats.families import FAMILIES, WRAPPED, Family, read_fields, sliding_layers, write_fields
from nlpkit.core.formats.hf_defaults import DEFAULTS, REFUSED
from nlpkit.core.model.config import ModelConfig, RopeConfig
from nlpkit.core.typed_fields import is_number

_MAX_INTEGER = 2**53


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

    def number(self, name: str, default: float | None = None) -> float:
        value = self.values.get(name)
        if value is None:
            value = default
        if value is None or not is_number(value):
            raise ModelFileError(f"The model's config.json has {name} = {shown(value)}; a number is needed.")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        return bool(self.values.get(name, default))


def _numbers(value: Any, name: str) -> tuple[float, ...]:
    if not isinstance(value, list) or not all(map(is_number, value)):
        raise ModelFileError(f"The model's config.json has {name} = {shown(value)}; a list of numbers is needed.")
    return tuple(float(item) for item in value)


def _rope(values: Mapping[str, Any], layer_type: str, theta_key: str, *, partial_key: str | None) -> RopeConfig:
    """Read one rotary setting from ``rope_parameters`` (new) or ``rope_theta`` with ``rope_scaling`` (old)."""
    top = _Values(values)
    nested = values.get("rope_parameters") or {}
    if not isinstance(nested, Mapping):
        raise ModelFileError(f"The model's config.json has rope_parameters = {shown(nested)}; an object is needed.")
    by_layer_type = isinstance(nested.get(layer_type), Mapping)
    if by_layer_type:
        nested = nested[layer_type]
    scaling = values.get("rope_scaling") or {}
    if not isinstance(scaling, Mapping):
        raise ModelFileError(f"The model's config.json has rope_scaling = {shown(scaling)}; an object is needed.")
    if layer_type == "sliding_attention":
        scaling = {}
    # Where a file has both, transformers takes the old name's: alone, or over those of a kind of layer.
    merged = {**nested, **scaling} if by_layer_type or not scaling else dict(scaling)
    rope = _Values(merged)
    kind: Any = rope.text("rope_type", rope.text("type", "default"))
    kind = {"default": "none", "su": "longrope"}.get(kind, kind)
    if kind not in ("none", "linear", "dynamic", "yarn", "llama3", "longrope"):
        raise ModelFileError(f"The model's rotary scaling {shown(kind)} is not known here.")
    head_dim = top.integer("head_dim", 0) or top.integer("hidden_size") // max(1, top.integer("num_attention_heads"))
    whole = top.number(partial_key, 1.0) if partial_key is not None else 1.0
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
    window, known = values.get("sliding_window"), DEFAULTS[family]
    if window is None or ("use_sliding_window" in known and not values.get("use_sliding_window")):
        return None, ()
    if isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise ModelFileError(f"The model's config.json has sliding_window = {shown(window)}; a whole number is needed.")
    kinds = values.get("layer_types")
    if isinstance(kinds, list):
        layers = tuple(layer for layer, kind in enumerate(kinds[:n_layers]) if kind == "sliding_attention")
    elif "max_window_layers" in known:
        layers = tuple(range(_Values(values).integer("max_window_layers"), n_layers))
    elif "sliding_window_pattern" in known:
        # Here 1 means that each layer is one that sees everything.
        period = _Values(values).integer("sliding_window_pattern", FAMILIES[family].period)
        layers = sliding_layers(period if period > 1 else 0, n_layers)
    else:
        layers = sliding_layers(FAMILIES[family].period, n_layers) if "sliding_window" in known else ()
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
    if isinstance(family, str) and family in WRAPPED and isinstance(values.get("text_config"), Mapping):
        family = WRAPPED[family]
        values = {**values["text_config"], "model_type": family}
    if not isinstance(family, str) or family not in FAMILIES:
        raise ModelFileError(f"The model family {shown(family)} is not one that nlpkit's own core runs.")
    row, known = FAMILIES[family], DEFAULTS[family]
    values = {**values, **{usual: values[own] for usual, own in row.hf_spellings.items() if own in values}}
    if "rotary_emb_base" in known and "rope_theta" in values:
        # GPT-NeoX calls the base by two names; the one that the file has counts.
        values = {"rotary_emb_base": values["rope_theta"], **values}
    values = {**known, **values}
    refused = sorted(name for name in REFUSED[""] | REFUSED.get(family, frozenset()) if values.get(name))
    if refused:
        raise ModelFileError(
            f"The model's config.json sets {', '.join(refused)}, which nlpkit's own core does not compute. Use a model "
            "without."
        )
    try:
        return _build(family, row, values)
    except ConfigError as error:
        raise ModelFileError(f"The model's config.json cannot be used. {error}") from error
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        # A value that nothing above asks for the type of.
        raise ModelFileError(f"The model's config.json cannot be used: {error}.") from error


def _build(family: str, row: Family, values: Mapping[str, Any]) -> ModelConfig:
    known = DEFAULTS[family]
    fields = read_fields(family, "hf", _Values(values))
    if row.rotates:
        theta = "rotary_emb_base" if "rotary_emb_base" in known else "rope_theta"
        partial = "rotary_pct" if "rotary_pct" in known else None
        fields["rope"] = rope = _rope(values, "full_attention", theta, partial_key=partial)
        if row.local_rope == "own":
            fields["rope_local"] = _rope(values, "sliding_attention", "rope_local_base_freq", partial_key=partial)
        if rope.scaling == "dynamic":
            fields["max_seq_len"] = int(fields["max_seq_len"] * max(1.0, rope.factor))
    window, layers = _sliding(values, family, fields["n_layers"])
    return ModelConfig(**fields, sliding_window=window, sliding_layers=layers)


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
    row, known = FAMILIES[config.family], DEFAULTS[config.family]
    values = write_fields(config, "hf")
    if row.rotates:
        values |= _positions_to_hf(config, row, known)
    if "sliding_window" in known:
        values["sliding_window"] = config.sliding_window
    elif config.sliding_layers:
        raise ModelFileError(
            f"Hugging Face configurations of the family {config.family!r} have no sliding window, as this model does. "
            "Convert it to the native format instead."
        )
    if "use_sliding_window" in known:
        first = config.sliding_layers[0] if config.sliding_layers else config.n_layers
        values |= {"use_sliding_window": bool(config.sliding_layers), "max_window_layers": first}
    if row.layer_types:
        sliding = frozenset(config.sliding_layers)
        values["layer_types"] = [
            "sliding_attention" if layer in sliding else "full_attention" for layer in range(config.n_layers)
        ]
    return {
        "model_type": config.family,
        "architectures": [row.hf_class],
        "dtype": dtype,
        "torch_dtype": dtype,
        **{row.hf_spellings.get(name, name): value for name, value in values.items()},
    }


def _positions_to_hf(config: ModelConfig, row: Family, known: Mapping[str, Any]) -> dict[str, Any]:
    rope = _rope_to_hf(config.rope, config.head_dim)
    values: dict[str, Any] = {"rope_parameters": rope, "rope_theta": config.rope.theta}
    if row.local_rope == "own" and config.rope_local is not None:
        local = _rope_to_hf(config.rope_local, config.head_dim)
        values["rope_parameters"] = {"full_attention": rope, "sliding_attention": local}
        values["rope_local_base_freq"] = config.rope_local.theta
    if config.rope.scaling == "dynamic":
        values["max_position_embeddings"] = config.rope.original_max_seq_len
    if "rotary_pct" in known:
        values["rotary_pct"] = (config.rope.dim or config.head_dim) / config.head_dim
    if "original_max_position_embeddings" in known and config.rope.original_max_seq_len:
        values["original_max_position_embeddings"] = config.rope.original_max_seq_len
    return values
