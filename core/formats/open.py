"""Opening a model, whatever its format."""

from __future__ import annotations

from pathlib import Path

from nlpkit.core.errors import ModelFileError
from nlpkit.core.files.safetensors import refuse_pickle
from nlpkit.core.formats.gguf.source import GGUFSource
from nlpkit.core.formats.hf import HFSource
from nlpkit.core.formats.native import NATIVE_CONFIG, NativeSource
from nlpkit.core.formats.source import ModelSource


def open_model(path: str | Path) -> ModelSource:
    """Open a model file or directory and read its headers.

    Args:
        path: A ``.gguf`` file, a Hugging Face directory, or one of our own.

    Returns:
        The opened model.

    Raises:
        ModelFileError: Nothing is there, or it is damaged, unsafe or of an unknown kind.
    """
    path = Path(path)
    if path.is_dir():
        if (path / NATIVE_CONFIG).exists():
            return NativeSource(path)
        if (path / "config.json").exists():
            return HFSource(path)
        refuse_pickle(path)
        ggufs = sorted(path.glob("*.gguf"))
        if len(ggufs) == 1:
            return open_model(ggufs[0])
        raise ModelFileError(
            f"The directory {path} holds no model: there is neither {NATIVE_CONFIG} nor config.json in it"
            + (f", but {len(ggufs)} GGUF files. Name one of them." if ggufs else ".")
        )
    if not path.exists():
        raise ModelFileError(f"There is no model at {path}. Check the path.")
    if _looks_like_gguf(path):
        return GGUFSource(path)
    refuse_pickle(path)
    if path.suffix == ".safetensors":
        raise ModelFileError(
            f"{path} holds weights but no configuration. Name the directory that it lies in, together with its "
            "config.json and tokenizer."
        )
    raise ModelFileError(f"{path} is no model file that nlpkit knows: it is neither GGUF nor a model directory.")


def _looks_like_gguf(path: Path) -> bool:
    if path.suffix == ".gguf":
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(4) == b"GGUF"
    except OSError as error:
        raise ModelFileError(f"The model file {path} cannot be read: {error.strerror or error}.") from error
