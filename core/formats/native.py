"""Our own model directory: ``nlpkit.json``, ``model.safetensors`` with our names, and the tokenizer's files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from nlpkit.core.errors import ConfigError, ModelFileError, shown
from nlpkit.core.files.read import read_json_object
from nlpkit.core.formats.hf import WeightDirectory
from nlpkit.core.model.config import ModelConfig

NATIVE_CONFIG = "nlpkit.json"


FORMAT_VERSION = 1


class NativeSource(WeightDirectory):
    """Our own directory as `nlpkit.core.formats.source.ModelSource`.

    Attributes:
        path: The directory.
        format: ``native``.
        config: Shape of the model.
    """

    def __init__(self, path: Path) -> None:
        """Read the configuration and the weight file's header.

        Args:
            path: The directory.

        Raises:
            ModelFileError: A file is missing or damaged, or was written by a later format version.
        """
        self.format = "native"
        values = read_json_object(path / NATIVE_CONFIG)
        version = values.get("format_version")
        if version != FORMAT_VERSION:
            raise ModelFileError(
                f"{path / NATIVE_CONFIG} has format version {shown(version)}; this nlpkit reads version "
                f"{FORMAT_VERSION}. Update nlpkit, or convert the model again."
            )
        model = values.get("model")
        if not isinstance(model, Mapping):
            raise ModelFileError(f"{path / NATIVE_CONFIG} has no model configuration.")
        try:
            self.config = ModelConfig.from_dict(model)
        except ConfigError as error:
            raise ModelFileError(f"{path / NATIVE_CONFIG} cannot be used. {error}") from error
        super().__init__(path)

    def tensors(self, *, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield internal names and tensors; see `ModelSource.tensors`."""
        for name, file in self.stored():
            yield name, file.tensor(name, dtype=dtype)
