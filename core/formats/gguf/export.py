"""Writing GGUF files: the inverse of the GGUF reader, through `gguf.GGUFWriter`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from nlpkit.core.chat.template import ChatTemplate
from nlpkit.core.errors import ModelFileError, NlpkitError
from nlpkit.core.files.write import unwritable, whole_file
from nlpkit.core.formats.families import FAMILIES, Family, sliding_layers, write_fields
from nlpkit.core.formats.gguf.export_vocabulary import tokenizer_metadata
from nlpkit.core.formats.gguf.quantize import FORMATS, TensorFormat, fitting_type, quantize, stored_bytes
from nlpkit.core.formats.gguf.source import GGUFSource
from nlpkit.core.formats.gguf.types import GGMLType
from nlpkit.core.formats.gguf.weight_names import weight_shapes
from nlpkit.core.formats.learned_tasks import GGUF_KEY, LearnedTasks
from nlpkit.core.formats.name_rules import NameRule, stored_weights, to_stored
from nlpkit.core.model.config import ModelConfig, RopeConfig
from nlpkit.core.model.rope import inverse_frequencies
from nlpkit.core.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    import gguf

_QUANTIZATION_VERSION = 2
_TABLES = ("embed.weight", "head.weight")


def write_gguf(
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    path: str | Path,
    *,
    dtype: Literal["f16", "f32", "q8_0", "q6_k", "q5_1", "q4_1"] | str = "f16",
    tokenizer: Tokenizer | None = None,
    chat: ChatTemplate | None = None,
    tuned: LearnedTasks | None = None,
    name: str = "model",
) -> None:
    """Write a model to one GGUF file.

    The file is written aside, read back and compared with `config`, and only then moved into place: what GGUF
    cannot express is an error, never a file that means something else.

    Args:
        config: Shape of the model.
        tensors: Our names and weights.
        path: The file to write; replaced if it exists.
        dtype: A name of `nlpkit.core.formats.gguf.quantize.FORMATS`, for matrices; vectors are always stored in fp32,
            and matrices whose rows fill no whole blocks in a finer type.
        tokenizer: Byte-level BPE or SentencePiece; None leaves it out.
        chat: The chat template; None leaves it out.
        tuned: What it was tuned for, which `GGUFSource.learned_tasks` reads; None leaves it out.
        name: The model's name, for other programs to show.

    Raises:
        ModelFileError: A weight is missing or too large for f16, or GGUF cannot express the model or its
            tokenizer.
        OutputError: The file cannot be written.
    """
    path = Path(path)
    if dtype not in FORMATS:
        raise ModelFileError(f"GGUF files can be written in {', '.join(FORMATS)}, not in {dtype!r}.")
    row = FAMILIES.get(config.family)
    if row is None:
        raise ModelFileError(
            f"The family {config.family!r} has no GGUF architecture here. Known: {', '.join(sorted(FAMILIES))}."
        )
    _check_complete(config, tensors)
    file_format = FORMATS[dtype]
    values = {"general.name": name, "general.file_type": file_format.number, **_metadata(config, row)}
    if dtype.startswith("q"):
        values["general.quantization_version"] = _QUANTIZATION_VERSION
    if tuned is not None and tuned.names:
        values[GGUF_KEY] = tuned.to_json()
    if tokenizer is not None:
        values |= tokenizer_metadata(tokenizer, vocab_size=config.vocab_size, chat=chat)
    plan = [*_rope_factors(config), *_plan(config, row, tensors, file_format)]
    with unwritable(f"{path} cannot be written"), whole_file(path) as aside:
        _write(aside, row.gguf, values, config, plan)
        _verify(aside, config)


@dataclasses.dataclass(frozen=True)
class _Stored:
    """One tensor to write; its values are made when its turn comes, so only one is in memory."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLType
    rule: NameRule | None
    parts: tuple[Tensor, ...]


def _check_complete(config: ModelConfig, tensors: Mapping[str, Tensor]) -> None:
    problems = []
    expected = dict(weight_shapes(config))
    for name, shape in expected.items():
        if name not in tensors:
            problems.append(f"{name} is missing")
        elif tuple(tensors[name].shape) != shape:
            problems.append(f"{name} has shape {tuple(tensors[name].shape)}, not {shape}")
    problems += [f"{name} is unknown" for name in tensors if name not in expected]
    if problems:
        raise ModelFileError(f"The weights do not fit the configuration: {'; '.join(problems[:12])}.")


def _plan(
    config: ModelConfig, row: Family, tensors: Mapping[str, Tensor], file_format: TensorFormat
) -> Iterator[_Stored]:
    left = set(tensors)
    for name, rule, ours in stored_weights(row.gguf_names, tensors, config.n_layers):
        left.difference_update(ours)
        parts = tuple(tensors[part] for part in ours)
        shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
        # Readers of other programs expect vectors in full precision.
        wanted = file_format.matrix if set(_TABLES).isdisjoint(ours) else file_format.table
        kind = fitting_type(wanted, shape[-1]) if len(shape) > 1 else GGMLType.F32
        yield _Stored(name, shape, kind, rule, parts)
    if left:
        raise ModelFileError(f"The GGUF architecture {row.gguf} has no place for {', '.join(sorted(left)[:12])}.")


def _values(config: ModelConfig, stored: _Stored) -> np.ndarray[Any, Any]:
    parts = [part.detach().to("cpu", torch.float32) for part in stored.parts]
    tensor = parts[0] if stored.rule is None else to_stored(config, stored.rule, parts, name=stored.name)
    array: np.ndarray[Any, Any] = tensor.contiguous().numpy()
    converted = quantize(array, stored.kind)
    if stored.kind == GGMLType.F16 and not np.isfinite(converted).all() and np.isfinite(array).all():
        raise ModelFileError(f"The weight {stored.name} is too large for f16. Write f32 instead.")
    return converted


def _write(path: Path, architecture: str, values: Mapping[str, Any], config: ModelConfig, plan: list[_Stored]) -> None:
    import gguf

    # The file is opened by the writer only once everything in memory is ready.
    writer = gguf.GGUFWriter(None, architecture)
    try:
        for key, value in values.items():
            _add(writer, key, value)
        for stored in plan:
            n_bytes = stored_bytes(stored.shape, stored.kind)
            plain = np.dtype(np.float32)
            writer.add_tensor_info(
                stored.name, stored.shape, plain, n_bytes, raw_dtype=gguf.GGMLQuantizationType(stored.kind)
            )
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for stored in plan:
            writer.write_tensor_data(_values(config, stored))
    finally:
        writer.close()


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif value:  # GGUF has no empty lists
        writer.add_array(key, value)


def _metadata(config: ModelConfig, row: Family) -> dict[str, Any]:
    values = {key: value for key, value in write_fields(config, "gguf").items() if value is not None}
    values |= {"vocab_size": config.vocab_size, "attention.value_length": config.head_dim}
    if config.positions == "rope":
        values |= _rope_metadata(config)
    if config.rope_local is not None:
        values["rope.freq_base_swa"] = config.rope_local.theta
    if config.sliding_window is not None and config.sliding_layers:
        values["attention.sliding_window"] = config.sliding_window
        if config.sliding_layers != sliding_layers(row.period, config.n_layers):
            sliding = set(config.sliding_layers)
            values["attention.sliding_window_pattern"] = [i in sliding for i in range(config.n_layers)]
    elif row.window:
        values["attention.sliding_window"] = 0
    if config.attn_scale is not None:
        values["attention.scale"] = float(config.attn_scale)
    elif row.wide_scale_layers == config.n_layers:
        values["attention.scale"] = config.head_dim**-0.5
    return {f"{row.gguf}.{key}": value for key, value in values.items()}


def _rope_metadata(config: ModelConfig) -> dict[str, Any]:
    rope = config.rope
    values: dict[str, Any] = {
        "rope.freq_base": float(rope.theta),
        "rope.dimension_count": rope.dim or config.head_dim,
    }
    if rope.scaling == "linear":
        values |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope.factor)}
    elif rope.scaling == "yarn":
        original = rope.original_max_seq_len or config.max_seq_len
        _, magnitude = _frequencies(rope, config, config.max_seq_len)
        values |= {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": float(rope.factor),
            "rope.scaling.original_context_length": original,
            "rope.scaling.yarn_beta_fast": float(rope.beta_fast),
            "rope.scaling.yarn_beta_slow": float(rope.beta_slow),
        }
        usual = 1.0 + 0.1 * math.log(rope.factor) if rope.factor > 1 else 1.0
        if not math.isclose(magnitude, usual, rel_tol=1e-9):
            values["rope.scaling.attn_factor"] = magnitude / usual
    elif rope.scaling == "longrope":
        _, magnitude = _frequencies(rope, config, config.max_seq_len)
        values["rope.scaling.attn_factor"] = float(magnitude)
        values["rope.scaling.original_context_length"] = rope.original_max_seq_len or config.max_seq_len
    return values


def _frequencies(rope: RopeConfig, config: ModelConfig, seq_len: int) -> tuple[Tensor, float]:
    dim = rope.dim or config.head_dim
    return inverse_frequencies(rope, dim=dim, max_seq_len=config.max_seq_len, seq_len=seq_len)


def _rope_factors(config: ModelConfig) -> list[_Stored]:
    """Tensors of rotary factors: divisors of the plain frequencies."""
    rope = config.rope
    factors: dict[str, Tensor] = {}
    if config.positions == "rope" and rope.scaling == "llama3":
        plain = dataclasses.replace(rope, scaling="none")
        # In double precision, or the quotient would be off by one bit more than it must.
        numerator = _frequencies(plain, config, 1)[0].double()
        factors["rope_freqs.weight"] = (numerator / _frequencies(rope, config, 1)[0].double()).float()
    elif config.positions == "rope" and rope.scaling == "factors":
        factors["rope_freqs.weight"] = torch.tensor(rope.short_factor)
    elif config.positions == "rope" and rope.scaling == "longrope":
        factors["rope_factors_long.weight"] = torch.tensor(rope.long_factor)
        factors["rope_factors_short.weight"] = torch.tensor(rope.short_factor)
    return [_Stored(name, tuple(value.shape), GGMLType.F32, None, (value,)) for name, value in factors.items()]


_NUMBERS = ("norm_eps", "norm_offset", "attn_softcap", "logit_softcap", "embedding_scale")


def _verify(path: Path, config: ModelConfig) -> None:
    """Read the file back; GGUF has no words for some settings, and then the file would be another model."""
    try:
        back = GGUFSource(path).config
    except NlpkitError as error:
        raise ModelFileError(f"The GGUF file could not be read back: {error}") from error
    lost = [
        field.name
        for field in dataclasses.fields(ModelConfig)
        if field.name not in ("family", "rope", "rope_local", "attn_scale", "tied_head", *_NUMBERS)
        and getattr(back, field.name) != getattr(config, field.name)
    ]
    lost += [name for name in _NUMBERS if not math.isclose(getattr(back, name), getattr(config, name), rel_tol=1e-6)]
    scales = [one.attn_scale or one.head_dim**-0.5 for one in (back, config)]
    if not math.isclose(*scales, rel_tol=1e-6):
        lost.append("attn_scale")
    if back.tied_head and not config.tied_head and config.head_bias:
        lost.append("tied_head")
    if config.positions == "rope":
        if not _same_rope(back.rope, config.rope, config):
            lost.append("rope")
        if config.sliding_layers and not _same_rope(
            back.rope_local or back.rope, config.rope_local or config.rope, config
        ):
            lost.append("rope_local")
    if lost:
        raise ModelFileError(
            f"A GGUF file cannot express this {config.family} model's {', '.join(sorted(lost))}. Convert to the "
            "native or the Hugging Face format instead."
        )


def _same_rope(left: RopeConfig, right: RopeConfig, config: ModelConfig) -> bool:
    if (left.dim or config.head_dim) != (right.dim or config.head_dim):
        return False
    for seq_len in (1, max(1, config.max_seq_len // 2), config.max_seq_len, 4 * config.max_seq_len):
        (one, scale), (two, other) = (_frequencies(rope, config, seq_len) for rope in (left, right))
        if not torch.allclose(one, two, rtol=1e-5, atol=0.0) or not math.isclose(scale, other, rel_tol=1e-6):
            return False
    return True
