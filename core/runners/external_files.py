"""What `transformers` is shown of a foreign model: a configuration that was read and bounded, and the weights.

`transformers` does what a configuration says: it fetches and imports code for an attention that has the name of a
repository, reads any file of the folder that it knows the name of, and builds as many layers as it is told. So it gets
a folder of its own, with a checked ``config.json`` and links to the weight files.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nlpkit.core.errors import ModelFileError, shown
from nlpkit.core.files.read import read_json_object
from nlpkit.core.files.safetensors import SafetensorsFile
from nlpkit.core.model.config import LIMITS

_IMPLEMENTATIONS = (None, "eager", "sdpa", True, False)
_DROPPED = frozenset({"auto_map", "custom_pipelines", "_name_or_path", "name_or_path", "_commit_hash"})
_MAX_INTEGER = 100_000_000
_MAX_EXPERTS = 4_096
_MAX_BUFFER_BYTES = 2 << 30
_INDEX = "model.safetensors.index.json"


def checked_config(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return a copy of a foreign configuration without what names code, in which no number is out of bounds.

    Args:
        config: The parsed ``config.json``.
        path: Where it was read, for the message.

    Raises:
        ModelFileError: It names an implementation that would have to be fetched, says that the weights are quantized,
            or claims more layers, positions or the like than any model has.
    """
    checked: dict[str, Any] = _checked(dict(config), path, "")
    return checked


def _checked(value: Any, path: Path, key: str) -> Any:
    if isinstance(value, Mapping):
        kept = {}
        for name, inner in value.items():
            if name in _DROPPED or _names_code(str(name), inner, path):
                continue
            kept[name] = _checked(inner, path, str(name))
        return kept
    if isinstance(value, list):
        return [_checked(item, path, key) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        limit = (
            LIMITS["n_layers"]
            if "layer" in key or key == "depth"
            else _MAX_EXPERTS
            if "expert" in key
            else _MAX_INTEGER
        )
        # Sizes such as moe_layer_ffn_dim are no counts.
        limit = _MAX_INTEGER if key.endswith(("dim", "size", "width")) else limit
        if abs(value) > limit:
            raise ModelFileError(
                f"{path / 'config.json'} has {key} = {shown(value)}; no model has more than {limit:,}."
            )
    return value


def _names_code(name: str, value: Any, path: Path) -> bool:
    """Tell whether a key is left out because it chooses code.

    Raises:
        ModelFileError: It chooses code that is not part of `transformers`.
    """
    if name == "quantization_config" and value:
        method = value.get("quant_method") if isinstance(value, Mapping) else None
        raise ModelFileError(
            f"The weights in {path} are quantized ({shown(method or value, 60)}), which nlpkit does not run for this "
            "family. Get the model in bf16 or fp32."
        )
    if "implementation" not in name and not ("kernel" in name and _is_place(value)):
        return False
    choices = list(value.values()) if isinstance(value, Mapping) else [value]
    if any(not isinstance(choice, (str, bool, type(None))) or choice not in _IMPLEMENTATIONS for choice in choices):
        raise ModelFileError(
            f"{path / 'config.json'} asks for {name} = {shown(value, 100)}, which is code from elsewhere. nlpkit "
            "runs none: take the key out of the file, or use another model."
        )
    return True


def _is_place(value: Any) -> bool:
    values = value.values() if isinstance(value, Mapping) else [value]
    return any(isinstance(item, str) and ("/" in item or ":" in item) for item in values)


@contextlib.contextmanager
def view_of(path: Path, config: Mapping[str, Any], files: Mapping[str, Path]) -> Iterator[Path]:
    """Make a folder that holds a checked configuration and the weights, and nothing else.

    Args:
        path: The model's folder.
        config: From `checked_config`.
        files: The weight files by name.

    Yields:
        The folder, which is gone afterwards.
    """
    with tempfile.TemporaryDirectory(prefix="nlpkit-") as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(config), "utf-8")
        for file, place in files.items():
            (folder / file).symlink_to(os.path.realpath(place))
        if (path / _INDEX).exists():
            (folder / _INDEX).write_text(json.dumps(read_json_object(path / _INDEX)), "utf-8")
        yield folder


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Keep the hub's library from the network, whatever a file or another library asks of it."""
    from huggingface_hub import constants

    # The environment variable is read once, on import, which may be long past.
    before, said = constants.HF_HUB_OFFLINE, os.environ.get("HF_HUB_OFFLINE")
    constants.HF_HUB_OFFLINE = True
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        if said is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = said


def check_size(folder: Path, path: Path, files: list[SafetensorsFile]) -> None:
    """Build a model without memory for its weights, and refuse one that is larger than its files.

    Args:
        folder: From `view_of`.
        path: The model's own folder, for the message.
        files: Its weight files.

    Raises:
        ModelFileError: The configuration asks for far more than the files hold.
    """
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    layers = getattr(config, "num_hidden_layers", 0)
    n_stored = sum(stored.n_bytes // stored.dtype.itemsize for file in files for stored in file.info.values())
    if isinstance(layers, int) and layers > min(LIMITS["n_layers"], max(1, n_stored)):
        raise ModelFileError(f"{path / 'config.json'} claims {layers:,} layers, which no model has.")
    with torch.device("meta"):
        untyped: Any = transformers.AutoModelForCausalLM
        model = untyped.from_config(config, trust_remote_code=False)
    n_wanted = sum(parameter.numel() for parameter in model.parameters())
    if n_wanted > 2 * n_stored + 1_000_000:
        raise ModelFileError(
            f"{path / 'config.json'} describes a model of {n_wanted:,} weights, and the files hold {n_stored:,}. They "
            "do not belong together."
        )
    n_bytes = sum(buffer.nbytes for buffer in model.buffers())
    if n_bytes > _MAX_BUFFER_BYTES:
        raise ModelFileError(
            f"{path / 'config.json'} describes a model that needs {n_bytes:,} bytes beside its weights. It is "
            "damaged or hostile."
        )
