"""GGUF metadata to `ModelConfig`.

Keys are those of the GGUF specification, ``{architecture}.…``. What an architecture leaves unsaid is filled
in as llama.cpp does, except where that differs from the model's original implementation: then the original
wins.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from nlpkit.core.errors import ConfigError, ModelFileError
from nlpkit.core.formats.families import ARCHITECTURES, FAMILIES, Family, read_fields, sliding_layers
from nlpkit.core.formats.gguf.dequantize import dequantize
from nlpkit.core.formats.gguf.file import GGUFFile
from nlpkit.core.model.config import LIMITS, ModelConfig, RopeConfig

MAX_FACTORS = 4096


class Metadata:
    """Typed look-ups in the untrusted metadata of one architecture."""

    def __init__(self, file: GGUFFile, architecture: str) -> None:
        """Look keys up below ``architecture.``."""
        self.file = file
        self.prefix = architecture + "."

    def get(self, key: str) -> Any:
        """Return the raw value of ``{architecture}.{key}``, or None."""
        return self.file.metadata.get(self.prefix + key)

    def _refuse(self, key: str, value: Any, wanted: str) -> ModelFileError:
        shown = repr(value)
        return ModelFileError(
            f"{self.file.path} has {self.prefix}{key} = {shown[:80]}; {wanted} is needed. The file is damaged or "
            "not a plain language model; get another one."
        )

    def integer(self, key: str, default: int | None = None) -> int:
        """Return a whole number; a list of equal numbers, one a layer, counts as one."""
        value = self.get(key)
        if isinstance(value, np.ndarray):
            if not value.size or (value != value[0]).any():
                raise self._refuse(key, value.tolist()[:8], "the same number for all layers")
            value = value[0].item()
        if value is None:
            value = default
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._refuse(key, value, "a whole number")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return a finite number: the shortest decimal that its 32 bits stand for (1e-05, not 9.99999975e-06)."""
        value = self.get(key)
        if value is None:
            value = default
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._refuse(key, value, "a number")
        with np.errstate(over="ignore"):
            short = float(str(np.float32(value)))
        if not math.isfinite(short):
            raise self._refuse(key, value, "a finite number")
        return short

    def flag(self, key: str, default: bool) -> bool:
        """Return whether a switch is on: anything but false is."""
        value = self.get(key)
        return default if value is None else value is not False

    def text(self, key: str, default: str) -> str:
        """Return a string."""
        value = self.get(key)
        if value is None:
            value = default
        if not isinstance(value, str):
            raise self._refuse(key, value, "a string")
        return value

    def factors(self, name: str) -> tuple[float, ...]:
        """Return the values of a small one-dimensional tensor; empty where it is missing."""
        info = self.file.tensors.get(name)
        if info is None:
            return ()
        if len(info.shape) != 1 or info.shape[0] > MAX_FACTORS:
            raise ModelFileError(f"{self.file.path} has rotary factors {name} of the odd shape {info.shape}.")
        values = dequantize(self.file.raw(name), info.type, info.shape, torch.float32).tolist()
        if not all(math.isfinite(value) and value > 0 for value in values):
            raise ModelFileError(f"{self.file.path} has rotary factors {name} that are not all positive.")
        return tuple(values)


def architecture_of(file: GGUFFile) -> str:
    """Return the file's architecture, a key of `ARCHITECTURES`.

    Raises:
        ModelFileError: It is missing or not one that nlpkit's core runs.
    """
    name = file.metadata.get("general.architecture")
    if not isinstance(name, str):
        raise ModelFileError(
            f"{file.path} does not say which architecture it has; it is no language model, or damaged."
        )
    if name not in ARCHITECTURES:
        raise ModelFileError(
            f"{file.path} has the GGUF architecture {name[:80]!r}, which nlpkit cannot run. "
            f"Known: {', '.join(ARCHITECTURES)}."
        )
    return name


def read_config(file: GGUFFile) -> ModelConfig:
    """Read a model's shape from its metadata and from which tensors there are.

    Args:
        file: An opened GGUF file.

    Raises:
        ModelFileError: The architecture is unknown, or a value is missing, of the wrong kind or out of range.
    """
    name = architecture_of(file)
    try:
        return _build(file, name, FAMILIES[ARCHITECTURES[name]], Metadata(file, name))
    except ConfigError as error:
        raise ModelFileError(f"{file.path} cannot be used. {error}") from error


def _build(file: GGUFFile, name: str, row: Family, meta: Metadata) -> ModelConfig:
    if meta.integer("expert_count", 0) > 0:
        raise ModelFileError(
            f"{file.path} is a mixture-of-experts model ({name} with {meta.integer('expert_count')} experts), "
            "which nlpkit cannot run. Get a dense model."
        )
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise ModelFileError(f"{file.path} holds no token embedding (token_embd.weight), so it is no usable model.")
    has = file.tensors.__contains__
    fields: dict[str, Any] = {
        "vocab_size": embedding.shape[0],
        "qkv_bias": has("blk.0.attn_q.bias") or has("blk.0.attn_qkv.bias"),
        "o_bias": has("blk.0.attn_output.bias"),
        "mlp_bias": has("blk.0.ffn_down.bias"),
        "head_bias": has("output.bias"),
        "tied_head": not has("output.weight") or _same_bytes(file, "output.weight", "token_embd.weight"),
        **read_fields(ARCHITECTURES[name], "gguf", meta),
    }
    n_layers, n_heads, head_dim = fields["n_layers"], fields["n_heads"], fields["head_dim"]
    for key, value in (("n_layers", n_layers), ("n_heads", n_heads)):
        # Checked before they are divided by or counted up to; ModelConfig checks the others.
        if not 1 <= value <= LIMITS[key]:
            raise ModelFileError(f"{file.path} has {key} = {value}; from 1 to {LIMITS[key]:,} is possible.")
    if meta.integer("attention.value_length", head_dim) != head_dim:
        raise ModelFileError(f"{file.path} has value heads of another width than its keys, which nlpkit cannot run.")
    window, layers = _sliding(meta, row, n_layers)
    if layers and row.windowed is not None:
        fields["family"] = row.windowed
    if row.rotates:
        fields["rope"] = rope = _rope(meta, head_dim=head_dim, max_seq_len=fields["max_seq_len"])
        if row.local_rope == "own":
            fields["rope_local"] = RopeConfig(theta=meta.number("rope.freq_base_swa", 10_000.0), dim=rope.dim)
        elif row.local_rope == "unscaled" and layers and rope.scaling != "none":
            fields["rope_local"] = RopeConfig(theta=rope.theta, dim=rope.dim)
    attn_scale: float | None = meta.number("attention.scale", 0.0) or None
    if attn_scale is None and n_layers == row.wide_scale_layers:
        attn_scale = (fields["d_model"] / n_heads) ** -0.5
    return ModelConfig(**fields, attn_scale=attn_scale, sliding_window=window, sliding_layers=layers)


def _same_bytes(file: GGUFFile, left: str, right: str) -> bool:
    """Whether two tensors are one, stored twice (as converters of GPT-2 write its tied head)."""
    one, two = file.tensors[left], file.tensors[right]
    if one.type != two.type or one.shape != two.shape:
        return False
    a, b = file.raw(left), file.raw(right)
    # Most differ at once: look at the start before reading it all.
    return bool(np.array_equal(a[:4096], b[:4096]) and np.array_equal(a, b))


def _sliding(meta: Metadata, row: Family, n_layers: int) -> tuple[int | None, tuple[int, ...]]:
    window = meta.integer("attention.sliding_window", row.window)
    pattern = meta.get("attention.sliding_window_pattern")
    if window <= 0:
        return None, ()
    if isinstance(pattern, np.ndarray):
        if pattern.size < n_layers:
            raise ModelFileError(
                f"{meta.file.path} says for {pattern.size} of its {n_layers} layers whether they have a sliding window."
            )
        layers = tuple(layer for layer in range(n_layers) if pattern[layer])
    else:
        usual = row if row.windowed is None else FAMILIES[row.windowed]
        period = meta.integer("attention.sliding_window_pattern", usual.period)
        if period < 0:
            raise ModelFileError(f"{meta.file.path} has a sliding window pattern of {period} layers.")
        layers = sliding_layers(period, n_layers)
    return (window, layers) if layers else (None, ())


def _rope(meta: Metadata, *, head_dim: int, max_seq_len: int) -> RopeConfig:
    theta = meta.number("rope.freq_base", 10_000.0)
    dim: int | None = meta.integer("rope.dimension_count", head_dim)
    if dim == head_dim:
        dim = None
    elif dim is None or not 2 <= dim < head_dim:
        raise ModelFileError(f"{meta.file.path} rotates {dim} of {head_dim} head dimensions.")
    if not theta > 0:
        raise ModelFileError(f"{meta.file.path} has a rotary base of {theta}; it must be positive.")
    kind = meta.text("rope.scaling.type", "") or "none"
    factor = meta.number("rope.scaling.factor", meta.number("rope.scale_linear", 1.0))
    if not factor > 0:
        raise ModelFileError(f"{meta.file.path} has a rotary scaling factor of {factor}; it must be positive.")
    if kind == "none" and meta.get("rope.scaling.type") is None and factor != 1.0:
        kind = "linear"
    original = meta.integer("rope.scaling.original_context_length", 0) or None
    attention = meta.number("rope.scaling.attn_factor", 0.0) or None
    free = meta.factors("rope_freqs.weight")
    short, long = meta.factors("rope_factors_short.weight"), meta.factors("rope_factors_long.weight")
    for factors in (free, short, long):
        if factors and len(factors) != (dim or head_dim) // 2:
            raise ModelFileError(
                f"{meta.file.path} has {len(factors)} rotary factors; {(dim or head_dim) // 2} are needed."
            )
    if bool(short) != bool(long) or (free and (short or kind == "yarn")) or (short and kind == "yarn"):
        raise ModelFileError(f"{meta.file.path} contradicts itself about its rotary scaling ({kind}).")
    if short:
        return RopeConfig(
            theta=theta,
            dim=dim,
            scaling="longrope",
            original_max_seq_len=original or max_seq_len,
            attention_factor=attention,
            short_factor=short,
            long_factor=long,
        )
    if free:
        stretch = factor if kind == "linear" else 1.0
        return RopeConfig(
            theta=theta, dim=dim, scaling="factors", short_factor=tuple(value * stretch for value in free)
        )
    if kind == "linear":
        return RopeConfig(theta=theta, dim=dim, scaling="linear" if factor != 1.0 else "none", factor=factor)
    if kind == "yarn":
        extra = meta.number("rope.scaling.yarn_attn_factor", attention or 1.0)
        # The file's factor comes on top of YaRN's own magnitude; ours is the product.
        magnitude = extra * (1.0 + 0.1 * math.log(factor)) if extra != 1.0 and factor > 1 else None
        return RopeConfig(
            theta=theta,
            dim=dim,
            scaling="yarn",
            factor=factor,
            original_max_seq_len=original,
            attention_factor=magnitude,
            beta_fast=meta.number("rope.scaling.yarn_beta_fast", 32.0),
            beta_slow=meta.number("rope.scaling.yarn_beta_slow", 1.0),
        )
    if kind == "longrope":
        raise ModelFileError(
            f"{meta.file.path} has the rotary scaling 'longrope' but not its factors. Get another file."
        )
    if kind != "none":
        raise ModelFileError(f"{meta.file.path} has the rotary scaling {kind[:80]!r}, which nlpkit does not know.")
    return RopeConfig(theta=theta, dim=dim)
