"""`HFSource`: a Hugging Face directory with safetensors weights, in one file or sharded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from nlpkit.core.chat.template import ChatTemplate, load_chat_template
from nlpkit.core.errors import ModelFileError
from nlpkit.core.files.read import read_json_object
from nlpkit.core.files.safetensors import SafetensorsFile, open_safetensors, refuse_pickle
from nlpkit.core.formats.families import FAMILIES, WRAPPED
from nlpkit.core.formats.hf_config import config_from_hf
from nlpkit.core.formats.key_map import KeyMap
from nlpkit.core.formats.learned_tasks import LearnedTasks, read_learned_tasks
from nlpkit.core.formats.weight_names import IGNORED
from nlpkit.core.tokenizers.load import load_tokenizer
from nlpkit.core.tokenizers.tokenizer import Tokenizer

INDEX_NAME = "model.safetensors.index.json"


def weight_files(directory: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Find a directory's safetensors files.

    Args:
        directory: A Hugging Face model directory.

    Returns:
        File name to path, in order; and the file that each tensor is to be read from, where there is an index.

    Raises:
        ModelFileError: There are none, the index names a file outside or absent, or only pickles are there.
    """
    index = directory / INDEX_NAME
    single = directory / "model.safetensors"
    if index.exists():
        shards = read_json_object(index).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise ModelFileError(f"{index} has no weight_map.")
        names = sorted({str(name) for name in shards.values()})
        bad = [
            name
            for name in names
            if len(name) > 250 or "\0" in name or Path(name).name != name or not (directory / name).is_file()
        ]
        if bad:
            raise ModelFileError(
                f"{index} names weight files that are not in the directory: {', '.join(name[:80] for name in bad[:5])}."
            )
        return {name: directory / name for name in names}, {name: str(file) for name, file in shards.items()}
    if single.exists():
        return {single.name: single}, {}
    refuse_pickle(directory)
    raise ModelFileError(f"{directory} holds no weights: there is no model.safetensors and no index of shards in it.")


def refuse_whole_numbers(file: SafetensorsFile, *, unless: re.Pattern[str] | None = None) -> None:
    """Refuse weights that are not floating-point numbers: what they stand for is in the program that wrote them.

    Args:
        file: An opened file.
        unless: Names that may be of any kind.

    Raises:
        ModelFileError: There is such a weight.
    """
    strange = [
        f"{name[:80]} ({str(stored.dtype).removeprefix('torch.')})"
        for name, stored in file.info.items()
        if not stored.dtype.is_floating_point and not (unless is not None and unless.search(name))
    ]
    if strange:
        more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
        raise ModelFileError(
            f"{file.path} holds weights that are not floating-point numbers: {', '.join(strange[:5])}{more}. Another "
            "library quantized them. Get the model in BF16, F16 or F32, or as GGUF; nlpkit quantizes it itself "
            "(--dtype)."
        )


def refuse_quantized(values: Mapping[str, Any]) -> None:
    """Refuse a model that its ``config.json`` calls quantized.

    Args:
        values: The parsed file.

    Raises:
        ModelFileError: It is quantized; the method is named.
    """
    inner = values.get("text_config")
    for config in (values, inner if isinstance(inner, Mapping) else {}):
        stated = config.get("quantization_config")
        if not stated:
            continue
        method = stated.get("quant_method") if isinstance(stated, Mapping) else None
        if method is None and isinstance(stated, Mapping):
            method = "bitsandbytes" if any(str(key).startswith("load_in_") for key in stated) else None
        raise ModelFileError(
            f"The model's config.json says that its weights are quantized ({str(method or stated)[:80]}), which nlpkit "
            "does not read. Get the model in BF16, F16 or F32, or as GGUF; nlpkit quantizes it itself (--dtype)."
        )


class WeightDirectory:
    """What model directories have in common: safetensors files, a tokenizer, perhaps a chat template.

    Attributes:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        """Read the weight files' headers.

        Args:
            path: The directory.

        Raises:
            ModelFileError: A file is missing or damaged.
        """
        self.path = path
        self._paths, self._places = weight_files(path)
        self._files: list[SafetensorsFile] = [open_safetensors(file) for file in self._paths.values()]
        for file in self._files:
            refuse_whole_numbers(file, unless=IGNORED)

    def tokenizer(self) -> Tokenizer:
        """Return the directory's tokenizer."""
        return load_tokenizer(self.path)

    def chat_template(self) -> ChatTemplate | None:
        """Return the directory's chat template, or None."""
        return load_chat_template(self.path)

    def learned_tasks(self) -> LearnedTasks:
        """Return what the directory says that the model was tuned for; nothing where it does not say."""
        return read_learned_tasks(self.path)

    def stored(self) -> Iterator[tuple[str, SafetensorsFile]]:
        """Yield the name of each tensor and the file to read it from: where it lies in several, the index decides."""
        for file in self._files:
            for name in file.names:
                if self._places.get(name, file.path.name) == file.path.name:
                    yield name, file

    def files(self) -> Mapping[str, Path]:
        """Return the weight files by name."""
        return self._paths


class HFSource(WeightDirectory):
    """A Hugging Face model directory as `nlpkit.core.formats.source.ModelSource`.

    Attributes:
        path: The directory.
        format: ``hf``.
        config: Shape of the model.
        raw_config: The parsed ``config.json``.
    """

    def __init__(self, path: Path) -> None:
        """Read the configuration and the weight files' headers.

        Args:
            path: The directory.

        Raises:
            ModelFileError: A file is missing or damaged, or the family is not one of ours.
        """
        self.format = "hf"
        self.raw_config = read_json_object(path / "config.json")
        refuse_quantized(self.raw_config)
        self.config = config_from_hf(self.raw_config)
        super().__init__(path)

    def tensors(self, *, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield internal names and tensors; see `ModelSource.tensors`."""
        keymap = KeyMap(self.config)
        for name, file in self.stored():
            yield from keymap.to_internal(name, file.tensor(name, dtype=dtype))


def is_known_family(directory: Path) -> bool:
    """Tell whether our own core runs the model in a Hugging Face directory."""
    config = read_json_object(directory / "config.json")
    family = config.get("model_type")
    return isinstance(family, str) and (family in FAMILIES or family in WRAPPED)
