"""Reading safetensors files, bounded by the size of the file; and refusing pickles.

The format: an 8-byte little-endian length, that many bytes of JSON describing the tensors, then their bytes
without gaps. The file is untrusted: every length and offset is checked before anything is allocated for it.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

from nlpkit.core.errors import ModelFileError, shown
from nlpkit.core.files.read import map_file, parse_json

MAX_HEADER_BYTES = 25_000_000
MAX_DIMS = 8
DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Where one tensor lies.

    Attributes:
        dtype: Its element type.
        shape: Its shape.
        offset: First byte, from the start of the file.
        n_bytes: Length in bytes.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    n_bytes: int


class SafetensorsFile:
    """An opened safetensors file.

    The file stays mapped for as long as this object or any tensor from it lives.

    Attributes:
        path: The file.
        names: Tensor names in file order.
        info: Descriptions by name.
        metadata: The free-form strings of the header.
    """

    def __init__(
        self, path: Path, mapping: mmap.mmap, info: Mapping[str, StoredTensor], metadata: Mapping[str, str]
    ) -> None:
        """Hold what `open_safetensors` read; use that function."""
        self.path = path
        self.names: tuple[str, ...] = tuple(info)
        self.info = info
        self.metadata = metadata
        self._map = mapping

    def tensor(self, name: str, *, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return one tensor.

        Args:
            name: One of `names`.
            dtype: What to convert it to; None keeps the file's.

        Returns:
            A tensor of the file's shape. Where nothing is converted it is a private view of the mapped file:
            reading it costs no memory, writing to it never reaches the disk.

        Raises:
            ModelFileError: There is no such tensor.
        """
        stored = self.info.get(name)
        if stored is None:
            raise ModelFileError(f"{self.path} has no tensor named {shown(name)}.")
        count = math.prod(stored.shape)
        if count == 0:
            return torch.empty(stored.shape, dtype=dtype or stored.dtype)
        if stored.offset % stored.dtype.itemsize:
            data = bytearray(self._map[stored.offset : stored.offset + stored.n_bytes])
            tensor = torch.frombuffer(data, dtype=stored.dtype)
        else:
            tensor = torch.frombuffer(self._map, dtype=stored.dtype, count=count, offset=stored.offset)
        tensor = tensor.view(stored.shape)
        return tensor if dtype is None else tensor.to(dtype)


def open_safetensors(path: str | Path) -> SafetensorsFile:
    """Open a safetensors file and read its header.

    Args:
        path: The file.

    Raises:
        ModelFileError: It is missing, unreadable, damaged, or claims more than it holds.
    """
    path = Path(path)
    mapping = map_file(path, kind="safetensors")
    return _Header(path, mapping).read()


class _Header:
    def __init__(self, path: Path, mapping: mmap.mmap) -> None:
        self.path = path
        self.map = mapping

    def _fail(self, what: str) -> NoReturn:
        raise ModelFileError(
            f"{self.path} is damaged or no safetensors file: {what}. Download it again, or save the model anew."
        )

    def read(self) -> SafetensorsFile:
        size = len(self.map)
        if size < 8:
            self._fail(f"it has only {size} bytes")
        length = int.from_bytes(self.map[:8], "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            self._fail(f"its header claims {length:,} bytes of {size - 8:,} (at most {MAX_HEADER_BYTES:,} are allowed)")
        header = self._json(self.map[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            self._fail("its metadata are not all strings")
        start = 8 + length
        info = {name: self._tensor(name, entry, start) for name, entry in header.items()}
        end = start
        for name, stored in sorted(info.items(), key=lambda item: (item[1].offset, item[1].n_bytes)):
            if stored.offset != end:
                self._fail(f"the tensor {name[:80]!r} overlaps another one or leaves a gap before it")
            end += stored.n_bytes
        if end != size:
            self._fail(f"its tensors end at byte {end:,}, the file at byte {size:,}")
        return SafetensorsFile(self.path, self.map, info, metadata)

    def _json(self, data: bytes) -> dict[str, Any]:
        def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            values = dict(pairs)
            if len(values) != len(pairs):
                raise ValueError("a key appears twice")
            return values

        def refuse(constant: str) -> NoReturn:
            raise ValueError(f"{constant} is no JSON")

        try:
            header = parse_json(data, object_pairs_hook=unique, parse_constant=refuse)
        except ValueError as error:
            self._fail(f"its header is no valid JSON ({str(error)[:200]})")
        if not isinstance(header, dict):
            self._fail("its header is no JSON object")
        return header

    def _tensor(self, name: str, entry: Any, start: int) -> StoredTensor:
        shown = repr(name[:80])
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            self._fail(f"the entry of tensor {shown} is not made of dtype, shape and data_offsets")
        kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if isinstance(kind, str) and kind not in DTYPES and kind.startswith(("F8", "F4", "F6")):
            raise ModelFileError(
                f"{self.path} stores tensor {shown} in {kind[:20]}, which nlpkit does not read. Get the model in "
                "BF16, F16 or F32."
            )
        dtype = DTYPES.get(kind) if isinstance(kind, str) else None
        if dtype is None:
            self._fail(f"the tensor {shown} has the unknown dtype {str(kind)[:40]!r}")
        if not _is_counts(shape) or len(shape) > MAX_DIMS:
            self._fail(f"the tensor {shown} has no usable shape")
        if not _is_counts(offsets) or len(offsets) != 2:
            self._fail(f"the tensor {shown} has no usable offsets")
        first, last = offsets
        if not first <= last <= len(self.map) - start:
            self._fail(f"the tensor {shown} lies at {first:,} to {last:,}, beyond the end of the file")
        if math.prod(shape) * dtype.itemsize != last - first:
            self._fail(f"the tensor {shown} of shape {tuple(shape)} does not fill its {last - first:,} bytes")
        return StoredTensor(dtype=dtype, shape=tuple(shape), offset=start + first, n_bytes=last - first)


def _is_counts(value: Any) -> bool:
    """Whether a value is a list of whole numbers that fit 63 bits."""
    return isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 1 << 63 for item in value
    )


def refuse_pickle(path: str | Path) -> None:
    """Refuse a file that is a pickle, or a directory whose only weights are pickles.

    Args:
        path: A file or a directory; one that does not exist passes.

    Raises:
        ModelFileError: Loading it would run code from the file.
    """
    path = Path(path)
    try:
        files = [path] if path.is_file() else sorted(path.iterdir()) if path.is_dir() else []
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}.") from error
    if any(file.suffix in (".safetensors", ".gguf") for file in files):
        return
    pickles = [file for file in files if file.suffix.lower() in PICKLE_SUFFIXES]
    if pickles:
        raise ModelFileError(
            f"{pickles[0]} is a pickle checkpoint. Loading one runs whatever code it holds, so nlpkit never does. "
            "Use the model's safetensors or GGUF files; if there are none and you trust this one, convert it with "
            "the program that made it, for example by `save_pretrained` of transformers, which writes safetensors."
        )
