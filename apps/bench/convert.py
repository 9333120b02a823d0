"""The model in the format of another library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nlpkit.core.formats.export import convert_model


def convert_for_ctranslate2(model: Path, folder: Path) -> Path:
    """Convert a model to CTranslate2's format.

    Args:
        model: What nlpkit loads.
        folder: An existing folder to work in.

    Returns:
        The converted model's folder.
    """
    from ctranslate2.converters import TransformersConverter

    source = model
    if not (model.is_dir() and (model / "config.json").exists()):
        source = folder / "hf"
        convert_model(model, "hf", source)
    target = folder / "ctranslate2"
    converter: Any = TransformersConverter(str(source))
    converter.convert(str(target), quantization="int8")
    return target
