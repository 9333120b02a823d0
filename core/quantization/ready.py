"""Quantized weights kept in the form that the compiled kernels read, so that the next start maps them and is done.

``CACHE/ready`` holds safetensors files: one for the blocks of a model with an adapter, and one for embedding and head,
which most adapters share. Their names are hashes of everything that decides what is in them: the model's and the
adapter's files, the number format, the shape of the model, the version of the layout. A file that does not fit, or
whose bytes are not those that were written, is as good as absent.

A file's header holds the sha256 of the file with zeros in that place. It is computed once for each change of the file:
a note in ``CACHE/ready-seen`` says of which file it was found right, and its time when that was last used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from nlpkit.core.errors import ModelFileError
from nlpkit.core.files.cache import cache_home
from nlpkit.core.files.hashing import CHUNK_BYTES, hash_value, sha256_file
from nlpkit.core.files.safetensors import open_safetensors
from nlpkit.core.files.write import atomic_write, write_json
from nlpkit.core.model.config import ModelConfig
from nlpkit.core.model.gpt import GPT
from nlpkit.core.quantization.apply import joined_parts
from nlpkit.core.quantization.kernel_library import VERSION, Library
from nlpkit.core.quantization.kernel_linear import KernelLinear

MAX_BYTES = 2 << 30
"""Most bytes of all files; the least recently used are removed first."""
_FORMAT = 3
_ZEROS = "0" * 64
_DTYPES = {torch.uint8: "U8", torch.float32: "F32", torch.bfloat16: "BF16"}
_SHARED = ("embed.", "pos_embed.", "head.")


def _digest(said: object) -> str:
    return hash_value(said)[:32]


def _write(file: IO[bytes], tensors: Mapping[str, Tensor]) -> None:
    """Write safetensors one by one: the library's own functions hold a copy of all of them."""
    header: dict[str, Any] = {"__metadata__": {"sha256": _ZEROS}}
    at = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
    said = json.dumps(header).encode()
    said += b" " * (-len(said) % 8)
    head = len(said).to_bytes(8, "little") + said
    digest = hashlib.sha256(head)
    file.write(head)
    for tensor in tensors.values():
        data = tensor.contiguous().view(-1).view(torch.uint8).numpy().data
        digest.update(data)
        file.write(data)
    file.seek(head.index(_ZEROS.encode()))
    file.write(digest.hexdigest().encode())


def _state(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]


def _note(path: Path) -> Path:
    return path.parent.with_name("ready-seen") / f"{path.stem}.json"


def _remember(path: Path) -> None:
    """Note that the bytes of a file are right; a folder that cannot be written only costs time."""
    with contextlib.suppress(OSError):
        write_json(_note(path), _state(path))


def _is_whole(path: Path, claimed: str | None) -> bool:
    """Tell whether the bytes of a file are those that were written."""
    with contextlib.suppress(OSError, ValueError):
        if json.loads(_note(path).read_text("utf-8")) == _state(path):
            os.utime(_note(path))
            return True
    if claimed is None or len(claimed) != len(_ZEROS):
        return False
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        head = length.to_bytes(8, "little") + file.read(length)
        digest = hashlib.sha256(head.replace(claimed.encode(), _ZEROS.encode(), 1))
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != claimed:
        return False
    _remember(path)
    return True


def _used(path: Path) -> float:
    """Return when a file was last used."""
    try:
        return max(path.stat().st_mtime, _note(path).stat().st_mtime)
    except OSError:
        return path.stat().st_mtime


def _remove(path: Path) -> None:
    for one in (path, _note(path)):
        with contextlib.suppress(OSError):
            one.unlink()


def _linears(config: ModelConfig, dtype: str) -> dict[str, tuple[int, int, int, bool]]:
    """Return outputs, inputs, bits and whether there is a bias, of each quantized layer of a model by its name."""
    bits = 4 if dtype == "int4" else 8
    d, attended = config.d_model, config.n_heads * config.head_dim
    sides = {"attn.qkv": (d, config.qkv_bias), "attn.o": (attended, config.o_bias)}
    sides |= {"mlp.down": (config.d_ff, config.mlp_bias)}
    found = {"head": (config.vocab_size, d, 8, config.head_bias and not config.tied_head)}
    for path, parts in joined_parts(config).items():
        inputs, biased = sides.get(path, (d, config.mlp_bias))
        for layer in range(config.n_layers):
            found[f"blocks.{layer}.{path}"] = (sum(parts.values()), inputs, bits, biased)
    return found


def is_kept(config: ModelConfig, dtype: str) -> bool:
    """Tell whether a model is small enough for its weights to be kept: at most half of all that is."""
    size = 2.0 * config.vocab_size * config.d_model
    for outputs, inputs, bits, _ in _linears(config, dtype).values():
        size += outputs * inputs * (bits + (1 if bits == 4 else 0.5)) / 8
    return size <= MAX_BYTES // 2


class ReadyWeights:
    """Where the ready-made weights of one model are kept."""

    def __init__(
        self,
        config: ModelConfig,
        dtype: str,
        files: Mapping[str, Path],
        adapter_files: Mapping[str, Path],
        *,
        blocks_only: bool,
    ) -> None:
        """Name a model.

        Args:
            config: Its shape.
            dtype: ``int8`` or ``int4``.
            files: The files that its weights come from.
            adapter_files: The files of its adapter; may be empty.
            blocks_only: Whether the adapter leaves embedding and head alone.
        """
        self.config = config
        self._linears = _linears(config, dtype)
        shape = dataclasses.asdict(config)
        base = [sha256_file(path) for _, path in sorted(files.items())]
        adapter = [sha256_file(path) for _, path in sorted(adapter_files.items())]
        said = {"format": _FORMAT, "layout": VERSION, "shape": shape, "base": base}
        # The head has 8 bits in both formats.
        shared = {**said, "part": "shared", "adapter": [] if blocks_only else adapter}
        blocks = {**said, "part": "blocks", "adapter": adapter, "dtype": dtype}
        folder = cache_home() / "ready"
        self._paths = {
            "blocks": folder / f"{_digest(blocks)}.safetensors",
            "shared": folder / f"{_digest(shared)}.safetensors",
        }

    def load(self, library: Library) -> GPT | None:
        """Return the model, its weights mapped from the files; None where they are absent or do not fit."""
        if not all(path.is_file() for path in self._paths.values()):
            return None
        tensors: dict[str, Tensor] = {}
        try:
            for path in self._paths.values():
                stored = open_safetensors(path)
                if not _is_whole(path, stored.metadata.get("sha256")):
                    _remove(path)
                    return None
                tensors.update((name, stored.tensor(name)) for name in stored.info)
            return self._built(library, tensors)
        except ModelFileError:
            _remove(path)
            return None
        except (OSError, KeyError, ValueError, TypeError, AttributeError):
            return None

    def _built(self, library: Library, tensors: dict[str, Tensor]) -> GPT | None:
        with torch.device("meta"):
            model = GPT(self.config)
        for block in model.iter_blocks():
            attn, mlp = block.attn, block.mlp
            attn.q = attn.k = attn.v = None
            if self.config.gated_mlp:
                mlp.gate, mlp.up = None, nn.Identity()
        joined = joined_parts(self.config)
        # Shapes are the model's: what a file says of itself decides nothing that the kernels rely on.
        for path, (outputs, inputs, bits, biased) in self._linears.items():
            owner, _, name = path.rpartition(".")
            packed = tensors.pop(f"{path}.weight")
            bias = tensors.pop(f"{path}.bias") if biased else None
            layer = KernelLinear.packed(library, packed, bias, outputs=outputs, inputs=inputs, bits=bits)
            if f"{path}.low_out" in tensors:
                parts = joined[path.split(".", 2)[2]]
                layer.take_low_rank(tensors.pop(f"{path}.low_in"), tensors.pop(f"{path}.low_out"), list(parts.values()))
            setattr(model.get_submodule(owner) if owner else model, name, layer)
        for name, parameter in list(model.named_parameters()):
            value = tensors.pop(name)
            if value.shape != parameter.shape or value.dtype != torch.bfloat16:
                return None
            owner, _, last = name.rpartition(".")
            setattr(model.get_submodule(owner), last, nn.Parameter(value, requires_grad=False))
        if tensors:
            return None
        return model.eval()

    def save(self, model: GPT) -> bool:
        """Keep a model's weights, if they can be written.

        Returns:
            Whether they are kept now.
        """
        tensors = {name: value.detach() for name, value in (*model.named_parameters(), *model.named_buffers())}
        try:
            for part, path in self._paths.items():
                if path.is_file():
                    continue
                inside = {name: t for name, t in tensors.items() if name.startswith(_SHARED) == (part == "shared")}
                self._make_room(path.parent, sum(tensor.nbytes for tensor in inside.values()))
                with atomic_write(path) as file:
                    _write(file, inside)
                _remember(path)
        except OSError:
            return False
        return True

    def _make_room(self, folder: Path, n_bytes: int) -> None:
        if not folder.is_dir():
            return
        known = [(_used(path), path.stat().st_size, path) for path in folder.glob("*.safetensors")]
        total = sum(size for _, size, _ in known) + n_bytes
        for _, size, path in sorted(known, key=lambda one: one[0]):
            if total <= MAX_BYTES:
                return
            if path not in self._paths.values():
                _remove(path)
                total -= size
