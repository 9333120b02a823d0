"""Writing models: Hugging Face directories, our own, and GGUF files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from nlpkit.core.chat.template import ChatTemplate
from nlpkit.core.errors import ConfigError, InputError, did_you_mean
from nlpkit.core.files.write import new_directory
from nlpkit.core.formats.gguf.export import write_gguf
from nlpkit.core.formats.hf_config import config_to_hf
from nlpkit.core.formats.key_map import KeyMap
from nlpkit.core.formats.native import FORMAT_VERSION, NATIVE_CONFIG
from nlpkit.core.formats.open import open_model
from nlpkit.core.formats.source import ModelSource
from nlpkit.core.model.config import ModelConfig
from nlpkit.core.tokenizers.tokenizer import Tokenizer

TARGETS = ("hf", "native", *(f"gguf-{name}" for name in ("f16", "f32", "q8_0", "q6_k", "q5_1", "q4_1")))
_DTYPE_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", "utf-8")


def _eos_value(tokenizer: Tokenizer) -> int | list[int] | None:
    ids = sorted(tokenizer.eos_ids)
    return None if not ids else ids[0] if len(ids) == 1 else ids


def save_native(
    directory: Path,
    config: ModelConfig,
    tensors: Mapping[str, torch.Tensor],
    *,
    tokenizer: Tokenizer | None,
    chat: ChatTemplate | None = None,
) -> None:
    """Write our own directory.

    Args:
        directory: Where to; must not exist, or be empty.
        config: Shape of the model.
        tensors: Internal names and weights.
        tokenizer: Its tokenizer, or None to leave it out.
        chat: Its chat template, or None.

    Raises:
        InputError: The directory cannot be written.
    """
    values = {NATIVE_CONFIG: {"format_version": FORMAT_VERSION, "model": config.to_dict()}}
    _save(directory, tensors.items(), values, tokenizer, chat)


def save_hf(
    directory: Path,
    config: ModelConfig,
    tensors: Mapping[str, torch.Tensor],
    *,
    tokenizer: Tokenizer | None,
    chat: ChatTemplate | None = None,
) -> None:
    """Write a Hugging Face directory that ``transformers`` loads to equal logits.

    Args:
        directory: Where to; must not exist, or be empty.
        config: Shape of the model.
        tensors: Internal names and weights.
        tokenizer: Its tokenizer, or None to leave it out.
        chat: Its chat template, or None.

    Raises:
        InputError: The directory cannot be written.
        ModelFileError: The family's Hugging Face configuration cannot express the model.
    """
    dtype = _DTYPE_NAMES.get(next(iter(tensors.values())).dtype, "float32")
    values = {"config.json": config_to_hf(config, dtype=dtype)}
    if tokenizer is not None:
        ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": _eos_value(tokenizer)}
        values["config.json"] |= ids
        values["generation_config.json"] = {key: value for key, value in ids.items() if value is not None}
    _save(directory, KeyMap(config).to_source(tensors), values, tokenizer, chat)


def _save(
    directory: Path,
    tensors: Iterable[tuple[str, torch.Tensor]],
    values: Mapping[str, Mapping[str, Any]],
    tokenizer: Tokenizer | None,
    chat: ChatTemplate | None,
) -> None:
    """Write weights, tokenizer, chat template and JSON files, by their names, into a new directory."""
    with new_directory(directory) as aside:
        weights = {name: tensor.contiguous() for name, tensor in tensors}
        save_file(weights, aside / "model.safetensors", metadata={"format": "pt"})
        save = getattr(tokenizer, "save", None)
        if save is not None:
            save(aside)
        if chat is not None:
            chat.save(aside)
        # Last: a tokenizer may bring a config.json of its own.
        for name, content in values.items():
            _write_json(aside / name, content)


def convert_model(source: str | Path, to: str, output: str | Path, *, dtype: str = "auto") -> Path:
    """Convert a model between formats.

    Args:
        source: A model file or directory of any format.
        to: One of `TARGETS`.
        output: The directory (``hf``, ``native``) or file (``gguf-*``) to write.
        dtype: ``fp32``, ``bf16`` or ``fp16`` for directories; ``auto`` is fp32 for GGUF sources, whose dequantized
            weights no 16-bit type holds exactly, and bf16 otherwise.

    Returns:
        The path written.

    Raises:
        ConfigError: `to` or `dtype` is unknown.
        ModelFileError: The source cannot be read or the target cannot hold it.
        InputError: The output cannot be written.
    """
    if to not in TARGETS:
        raise ConfigError(f"There is no format {to!r} to convert to. {did_you_mean(to, TARGETS)}")
    opened = open_model(source)
    output = Path(output)
    if to.startswith("gguf-"):
        return _convert_to_gguf(opened, to.removeprefix("gguf-"), output)
    names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    names["auto"] = torch.float32 if opened.format == "gguf" else torch.bfloat16
    if dtype not in names:
        raise ConfigError(f"There is no dtype {dtype!r} for weights on disk. {did_you_mean(dtype, names)}")
    tensors = dict(opened.tensors(dtype=names[dtype]))
    if opened.config.tied_head:
        tensors.pop("head.weight", None)
    write = save_hf if to == "hf" else save_native
    write(output, opened.config, tensors, tokenizer=opened.tokenizer(), chat=opened.chat_template())
    opened.learned_tasks().write(output)
    return output


def _convert_to_gguf(opened: ModelSource, dtype: str, output: Path) -> Path:
    if output.exists():
        raise InputError(f"{output} already exists. Name another file.")
    tensors = dict(opened.tensors(dtype=torch.float32))
    if opened.config.tied_head:
        tensors.pop("head.weight", None)
    write_gguf(
        opened.config,
        tensors,
        output,
        tokenizer=opened.tokenizer(),
        chat=opened.chat_template(),
        tuned=opened.learned_tasks(),
        dtype=dtype,
    )
    return output
