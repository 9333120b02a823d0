"""Reading GGUF containers, bounded by the size of the file.

The layout is that of the GGUF specification (ggml, ``docs/gguf.md``), versions 2 and 3, little-endian: a
header, metadata pairs, tensor descriptions, one aligned block of tensor data. A model file is untrusted
input, so every count, length and offset is held against the bytes that are really there before anything is
allocated.
"""

from __future__ import annotations

import itertools
import mmap
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from nlpkit.core.errors import ModelFileError
from nlpkit.core.files.read import map_file
from nlpkit.core.formats.gguf.types import BLOCKS, GGMLType

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 16
MAX_DIMS = 4
MAX_ARRAY_DEPTH = 4
MAX_STRING = 1 << 24
"""Longest single metadata string in bytes; chat templates and embedded tokenizer files stay well below."""
MAX_OBJECTS = 2_000_000
"""Most strings and arrays that one file may carry: each costs far more memory than its bytes in the file."""
MAX_METADATA_BYTES = 100_000_000
"""Most bytes of all metadata; a file may be a hole on the disk. Real ones have at most 20 million."""
_WEIGHTY = 8
"""How many strings a list of numbers, or the description of a tensor, counts as."""

_SCALARS: dict[int, struct.Struct] = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING, _ARRAY = 8, 9
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_SPLIT_NAME = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """Where one tensor lies and how it is coded.

    Attributes:
        name: Its name in the file.
        shape: Dimensions in row-major order (the file stores them reversed).
        type: Element coding, such as ``Q4_1``.
        offset: First byte, from the start of its file.
        n_bytes: Length in bytes.
        part: Index of the file that holds it; 0 unless the model is split over several.
    """

    name: str
    shape: tuple[int, ...]
    type: GGMLType
    offset: int
    n_bytes: int
    part: int = 0


class GGUFFile:
    """An opened GGUF model: its metadata, the table of its tensors, and access to their bytes.

    The files stay mapped for as long as this object or any array from `raw` lives.

    Attributes:
        path: The file that was opened; for a split model, its first part.
        paths: All files of the model.
        metadata: Values by key. Numeric arrays are numpy arrays, string arrays are lists.
        tensors: Descriptions by tensor name, in file order.
    """

    def __init__(
        self,
        *,
        paths: tuple[Path, ...],
        maps: tuple[mmap.mmap, ...],
        metadata: Mapping[str, Any],
        tensors: Mapping[str, TensorInfo],
    ) -> None:
        """Hold what `open_gguf` read; use that function."""
        self.path = paths[0]
        self.paths = paths
        self.metadata = metadata
        self.tensors = tensors
        self._maps = maps

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """Return the coded bytes of one tensor, uint8 ``[n_bytes]``, without copying.

        The array is a private view of the mapped file: writing to it never reaches the disk.

        Args:
            name: A key of `tensors`.

        Raises:
            ModelFileError: There is no such tensor.
        """
        info = self.tensors.get(name)
        if info is None:
            raise ModelFileError(f"{self.path} has no tensor named {name!r}.")
        return np.frombuffer(self._maps[info.part], dtype=np.uint8, count=info.n_bytes, offset=info.offset)

    def release(self, name: str) -> None:
        """Let the system drop the pages of one tensor from this process; they are read again if needed.

        Args:
            name: A key of `tensors`. What was written to its `raw` is lost.
        """
        info = self.tensors[name]
        # Whole pages only: the ones at the ends belong to the neighbours, too.
        start = -(-info.offset // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (info.offset + info.n_bytes) // mmap.PAGESIZE * mmap.PAGESIZE - start
        advice = getattr(mmap, "MADV_DONTNEED", None)
        if advice is not None and length > 0:
            self._maps[info.part].madvise(advice, start, length)


def open_gguf(path: str | Path) -> GGUFFile:
    """Open a GGUF file, or all parts of a split one (``NAME-00001-of-0000N.gguf``) given any of them.

    Only the header is read; tensor bytes are mapped and paged in when they are used.

    Args:
        path: The file.

    Raises:
        ModelFileError: It is missing, unreadable, damaged, big-endian, of an unknown version, or claims more
            than it holds.
    """
    path = Path(path)
    match = _SPLIT_NAME.match(path.name)
    if match and match["number"] != "00001":
        path = path.with_name(f"{match['stem']}-00001-of-{match['count']}.gguf")
    parts = [_HeaderReader(path, part=0).read()]
    n_parts = parts[0].metadata.get("split.count", 1)
    if not isinstance(n_parts, int) or n_parts < 0:
        raise ModelFileError(f"{path} says it is split into {n_parts!r} files. Download the model again.")
    if n_parts > 1:
        if not match or int(match["count"]) != n_parts:
            raise ModelFileError(
                f"{path} is the first of {n_parts} files of one model, but it is not named like one. Restore the "
                f"names (NAME-00001-of-{n_parts:05d}.gguf and so on) and open the first file."
            )
        for number in range(2, n_parts + 1):
            sibling = path.with_name(f"{match['stem']}-{number:05d}-of-{match['count']}.gguf")
            parts.append(_HeaderReader(sibling, part=number - 1).read())
    tensors: dict[str, TensorInfo] = {}
    for part in parts:
        for name, info in part.tensors.items():
            if name in tensors:
                raise ModelFileError(f"{part.path} holds tensor {name!r} a second time. Download the model again.")
            tensors[name] = info
    declared = parts[0].metadata.get("split.tensors.count")
    if n_parts > 1 and declared is not None and declared != len(tensors):
        raise ModelFileError(
            f"{path} announces {declared!r} tensors over {n_parts} files, which hold {len(tensors)}. The files do "
            "not belong together; download the model again."
        )
    return GGUFFile(
        paths=tuple(part.path for part in parts),
        maps=tuple(part.map for part in parts),
        metadata=parts[0].metadata,
        tensors=tensors,
    )


@dataclass(frozen=True)
class _Part:
    path: Path
    map: mmap.mmap
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]


class _HeaderReader:
    """One pass over the header of one file."""

    def __init__(self, path: Path, *, part: int) -> None:
        self.path = path
        self.part = part
        self.map = map_file(path, kind="GGUF")
        self.size = len(self.map)
        self.at = 0
        self.n_objects = 0
        self.n_kept = 0

    def read(self) -> _Part:
        n_tensors, n_pairs = self._preamble()
        metadata = self._metadata(n_pairs)
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
            self._fail(f"its alignment is {alignment!r}, which is no power of two up to {MAX_ALIGNMENT}")
        tensors = self._tensors(n_tensors, alignment)
        return _Part(self.path, self.map, metadata, tensors)

    def _fail(self, what: str) -> NoReturn:
        raise ModelFileError(
            f"{self.path} is damaged or no usable GGUF file: {what} (near byte {self.at:,} of {self.size:,}). "
            "Download it again, or convert the model anew."
        )

    def _need(self, n_bytes: int, what: str) -> None:
        if n_bytes > self.size - self.at:
            self._fail(f"{what} needs {n_bytes:,} bytes but only {self.size - self.at:,} are left")

    def _number(self, layout: struct.Struct, what: str) -> int:
        self._need(layout.size, what)
        (value,) = layout.unpack_from(self.map, self.at)
        self.at += layout.size
        return int(value)

    def _count(self, smallest: int, what: str) -> int:
        """Read a 64-bit count of things that take at least `smallest` bytes each."""
        count = self._number(_U64, f"the number of {what}")
        if count * smallest > self.size - self.at:
            self._fail(f"it claims {count:,} {what}, more than fit in the remaining {self.size - self.at:,} bytes")
        return count

    def _preamble(self) -> tuple[int, int]:
        if self.map[:4] != MAGIC:
            raise ModelFileError(
                f"{self.path} is no GGUF file: it starts with {self.map[:4]!r}, not {MAGIC!r}. Give a .gguf file."
            )
        self.at = 4
        version = self._number(_U32, "the version")
        if version & 0xFFFF == 0 and version:
            raise ModelFileError(
                f"{self.path} is a big-endian GGUF file, which nlpkit does not read. Get the little-endian one."
            )
        if version not in VERSIONS:
            raise ModelFileError(
                f"{self.path} has GGUF version {version}; versions 2 and 3 can be read. Convert the model anew "
                "with a current tool."
            )
        # The least tensor description: name length, dimension count, type and offset. The least pair: key
        # length, type, one byte of value.
        n_tensors = self._count(8 + 4 + 4 + 8, "tensors")
        n_pairs = self._count(8 + 4 + 1, "metadata entries")
        return n_tensors, n_pairs

    def _string(self, what: str) -> str:
        length = self._number(_U64, what)
        if length > MAX_STRING:
            self._fail(f"{what} claims a length of {length:,} bytes")
        self._need(length, what)
        self._spend(1)
        self._keep(length)
        data = self.map[self.at : self.at + length]
        self.at += length
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            self._fail(f"{what} is not UTF-8 text")

    def _spend(self, n_objects: int) -> None:
        self.n_objects += n_objects
        if self.n_objects > MAX_OBJECTS:
            self._fail(f"its metadata holds more than {MAX_OBJECTS:,} strings and lists")

    def _keep(self, n_bytes: int) -> None:
        self.n_kept += n_bytes
        if self.n_kept > MAX_METADATA_BYTES:
            self._fail(f"its metadata have more than {MAX_METADATA_BYTES:,} bytes")

    def _metadata(self, n_pairs: int) -> dict[str, Any]:
        metadata: dict[str, Any] = {}
        for _ in range(n_pairs):
            key = self._string("a metadata key")
            if not key:
                self._fail("a metadata key is empty")
            if key in metadata:
                self._fail(f"the metadata key {key[:80]!r} appears twice")
            metadata[key] = self._value(self._number(_U32, f"the type of {key[:80]!r}"), key[:80], depth=0)
        return metadata

    def _value(self, code: int, key: str, *, depth: int) -> Any:
        if code == _STRING:
            return self._string(f"the value of {key!r}")
        if code == _ARRAY:
            return self._array(key, depth=depth + 1)
        layout = _SCALARS.get(code)
        if layout is None:
            self._fail(f"the metadata key {key!r} has the unknown type {code}")
        self._need(layout.size, f"the value of {key!r}")
        (value,) = layout.unpack_from(self.map, self.at)
        self.at += layout.size
        return value

    def _array(self, key: str, *, depth: int) -> Any:
        if depth > MAX_ARRAY_DEPTH:
            self._fail(f"the lists in {key!r} are nested more than {MAX_ARRAY_DEPTH} deep")
        code = self._number(_U32, f"the element type of {key!r}")
        if code == _STRING:
            return self._strings(self._count(8, f"strings in {key!r}"), key)
        if code == _ARRAY:
            count = self._count(4 + 8, f"lists in {key!r}")
            self._spend(_WEIGHTY * count)
            return [self._array(key, depth=depth + 1) for _ in range(count)]
        layout = _SCALARS.get(code)
        if layout is None:
            self._fail(f"the list {key!r} has elements of the unknown type {code}")
        count = self._count(layout.size, f"elements in {key!r}")
        self._keep(count * layout.size)
        # Copied, so that the (small) metadata does not hang on the mapping.
        values = np.frombuffer(self.map, dtype=np.dtype(layout.format), count=count, offset=self.at).copy()
        self.at += count * layout.size
        return values

    def _strings(self, count: int, key: str) -> list[str]:
        # The hot loop: a vocabulary has some 100,000 entries, so no call per string.
        self._spend(count)
        data, size, at = self.map, self.size, self.at
        unpack = _U64.unpack_from
        strings: list[str] = []
        # Lengths count as well: they are far fewer bytes than what a string takes.
        last = at + MAX_METADATA_BYTES - self.n_kept
        try:
            for _ in range(count):
                end = at + 8
                if end > size:
                    self._fail(f"the list {key!r} is cut short")
                start, end = end, end + unpack(data, at)[0]
                if end > size or end - start > MAX_STRING:
                    self._fail(f"a string in {key!r} claims {end - start:,} bytes")
                if end > last:
                    self._fail(f"its metadata have more than {MAX_METADATA_BYTES:,} bytes")
                strings.append(data[start:end].decode("utf-8"))
                at = end
        except UnicodeDecodeError:
            self._fail(f"string {len(strings)} of {key!r} is not UTF-8 text")
        self.n_kept += at - self.at
        self.at = at
        return strings

    def _tensors(self, n_tensors: int, alignment: int) -> dict[str, TensorInfo]:
        described = [self._description() for _ in range(n_tensors)]
        start = -(-self.at // alignment) * alignment
        tensors: dict[str, TensorInfo] = {}
        for name, shape, type_, offset in described:
            if name in tensors:
                self._fail(f"the tensor {name!r} appears twice")
            block, n_block_bytes = BLOCKS[type_]
            if shape and shape[-1] % block:
                self._fail(f"the rows of tensor {name!r} have {shape[-1]:,} elements, not a multiple of {block}")
            n_elements = 1
            for size in shape:
                n_elements *= size
            n_bytes = n_elements // block * n_block_bytes
            if offset % alignment:
                self._fail(f"tensor {name!r} lies at {offset:,}, which is not aligned to {alignment}")
            if start + offset + n_bytes > self.size:
                self._fail(
                    f"tensor {name!r} of shape {shape} would end {start + offset + n_bytes - self.size:,} bytes "
                    "after the end of the file"
                )
            tensors[name] = TensorInfo(
                name=name, shape=shape, type=type_, offset=start + offset, n_bytes=n_bytes, part=self.part
            )
        self._check_overlap(tensors.values())
        return tensors

    def _check_overlap(self, tensors: Iterable[TensorInfo]) -> None:
        ordered = sorted(tensors, key=lambda info: info.offset)
        for before, after in itertools.pairwise(ordered):
            if before.offset + before.n_bytes > after.offset:
                self._fail(f"the tensors {before.name!r} and {after.name!r} overlap")

    def _description(self) -> tuple[str, tuple[int, ...], GGMLType, int]:
        self._spend(_WEIGHTY)
        name = self._string("a tensor name")
        shown = name[:80]
        n_dims = self._number(_U32, f"the dimension count of {shown!r}")
        if not 1 <= n_dims <= MAX_DIMS:
            self._fail(f"tensor {shown!r} has {n_dims:,} dimensions")
        sizes = [self._number(_U64, f"the shape of {shown!r}") for _ in range(n_dims)]
        if not all(sizes):
            self._fail(f"tensor {shown!r} has an empty dimension")
        code = self._number(_U32, f"the type of {shown!r}")
        try:
            type_ = GGMLType(code)
        except ValueError:
            self._fail(f"tensor {shown!r} has the unknown element type {code}")
        offset = self._number(_U64, f"the offset of {shown!r}")
        return name, tuple(reversed(sizes)), type_, offset
