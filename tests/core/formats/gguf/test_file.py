"""The GGUF container reader, on files made byte by byte."""

from __future__ import annotations

import os
import struct
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest

from nlpkit.core.errors import ModelFileError
from nlpkit.core.formats.gguf.file import MAX_STRING, open_gguf

U32, STRING, ARRAY, BOOL, F32 = 4, 8, 9, 7, 6


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def array(kind: int, count: int, values: bytes) -> bytes:
    return struct.pack("<IQ", kind, count) + values


def tensor(name: str, dims: tuple[int, ...], kind: int, offset: int) -> bytes:
    sizes = b"".join(struct.pack("<Q", size) for size in dims)
    return text(name) + struct.pack("<I", len(dims)) + sizes + struct.pack("<IQ", kind, offset)


def container(
    *,
    pairs: tuple[bytes, ...] = (),
    tensors: tuple[bytes, ...] = (),
    data: bytes = b"",
    version: int = 3,
    n_pairs: int | None = None,
    n_tensors: int | None = None,
    magic: bytes = b"GGUF",
    order: str = "<",
) -> bytes:
    head = magic + struct.pack(
        order + "IQQ",
        version,
        len(tensors) if n_tensors is None else n_tensors,
        len(pairs) if n_pairs is None else n_pairs,
    )
    head += b"".join(pairs) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "x.gguf"


def test_reads_what_the_gguf_package_writes(file: Path) -> None:
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_uint8("a.u8", 200)
    writer.add_int8("a.i8", -3)
    writer.add_uint16("a.u16", 60_000)
    writer.add_int16("a.i16", -300)
    writer.add_int32("a.i32", -70_000)
    writer.add_uint64("a.u64", 2**63)
    writer.add_int64("a.i64", -(2**40))
    writer.add_float32("a.f32", 0.5)
    writer.add_float64("a.f64", 0.1)
    writer.add_bool("a.yes", True)
    writer.add_bool("a.no", False)
    writer.add_string("a.text", "日本 ok")
    writer.add_array("a.strings", ["x", "", "é"])
    writer.add_array("a.numbers", [1, -2, 3])
    writer.add_array("a.floats", [0.5, 1.5])
    writer.add_array("a.flags", [True, False])
    writer.add_array("a.nested", [[1, 2], [3]])
    one = np.arange(6, dtype=np.float32).reshape(2, 3)
    two = np.arange(5, dtype=np.float16)
    writer.add_tensor("one", one)
    writer.add_tensor("two", two)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    opened = open_gguf(file)
    got = {key[2:]: value for key, value in opened.metadata.items() if key.startswith("a.")}
    arrays = {key: got.pop(key) for key in ("numbers", "floats", "flags", "nested")}
    assert got == {
        "u8": 200,
        "i8": -3,
        "u16": 60_000,
        "i16": -300,
        "i32": -70_000,
        "u64": 2**63,
        "i64": -(2**40),
        "f32": 0.5,
        "f64": 0.1,
        "yes": True,
        "no": False,
        "text": "日本 ok",
        "strings": ["x", "", "é"],
    }
    assert arrays["numbers"].tolist() == [1, -2, 3]
    assert arrays["floats"].tolist() == [0.5, 1.5]
    assert arrays["flags"].tolist() == [True, False]
    assert [part.tolist() for part in arrays["nested"]] == [[1, 2], [3]]
    assert opened.tensors["one"].shape == (2, 3)
    assert np.array_equal(opened.raw("one").view(np.float32).reshape(2, 3), one)
    assert np.array_equal(opened.raw("two").view(np.float16), two)
    with pytest.raises(ModelFileError, match="no tensor named 'three'"):
        opened.raw("three")


def test_version_2_and_other_alignments(file: Path) -> None:
    data = np.arange(4, dtype=np.float32).tobytes()
    head = container(
        pairs=(pair("general.alignment", U32, struct.pack("<I", 64)),),
        tensors=(tensor("a", (4,), 0, 0), tensor("b", (4,), 0, 64)),
        version=2,
    )
    head += bytes(-len(head) % 64)
    file.write_bytes(head + data + bytes(48) + data)
    opened = open_gguf(file)
    assert opened.raw("b").view(np.float32).tolist() == [0, 1, 2, 3]


def test_arrays_outlive_the_file_object_and_never_write_back(file: Path) -> None:
    file.write_bytes(container(tensors=(tensor("a", (4,), 0, 0),), data=bytes(16)))
    raw = open_gguf(file).raw("a")
    raw[:] = 255
    assert raw.sum() == 255 * 16
    assert open_gguf(file).raw("a").sum() == 0


NESTED = array(ARRAY, 1, array(ARRAY, 0, bytes(32)))
ONE = (tensor("a", (4,), 0, 0),)
BAD = {
    "empty file": (b"", "is empty"),
    "no magic": (container(magic=b"GGML"), "is no GGUF file: it starts with b'GGML'"),
    "two bytes": (b"GG", "is no GGUF file"),
    "only magic": (b"GGUF", "needs 4 bytes but only 0 are left"),
    "version 1": (container(version=1), "version 1; versions 2 and 3"),
    "version 4": (container(version=4), "version 4;"),
    "big endian": (container(order=">"), "big-endian"),
    "pair count": (container(n_pairs=2**60), "metadata entries, more than fit"),
    "tensor count": (container(n_tensors=2**63), "tensors, more than fit"),
    "one pair too many": (container(n_pairs=1, data=bytes(40)), "a metadata key is empty"),
    "key length": (container(pairs=(struct.pack("<QI", 2**40, 0) + bytes(20),)), "claims a length"),
    "string length": (container(pairs=(pair("k", STRING, struct.pack("<Q", MAX_STRING + 1)),)), "claims a length"),
    "string beyond end": (container(pairs=(pair("k", STRING, struct.pack("<Q", 4000)),)), "are left"),
    "key not utf-8": (container(pairs=(text(b"\xff") + struct.pack("<IB", 0, 0),)), "not UTF-8"),
    "value not utf-8": (container(pairs=(pair("k", STRING, text(b"\xc3(")),)), "not UTF-8"),
    "list string not utf-8": (
        container(pairs=(pair("k", ARRAY, array(STRING, 2, text("a") + text(b"\xff"))),)),
        "string 1 of 'k' is not UTF-8",
    ),
    "key twice": (container(pairs=(pair("k", U32, bytes(4)),) * 2), "appears twice"),
    "unknown type": (container(pairs=(pair("k", 13, bytes(8)),)), "unknown type 13"),
    "unknown element type": (container(pairs=(pair("k", ARRAY, array(99, 0, b"")),)), "unknown type 99"),
    "array count": (container(pairs=(pair("k", ARRAY, array(F32, 2**61, bytes(8))),)), "more than fit"),
    "string count": (container(pairs=(pair("k", ARRAY, array(STRING, 2**50, bytes(8))),)), "more than fit"),
    "list string length": (
        container(pairs=(pair("k", ARRAY, array(STRING, 1, struct.pack("<Q", 2**40) + bytes(9))),)),
        "claims 1,099,511,627,776 bytes",
    ),
    "list cut short": (
        container(pairs=(pair("k", ARRAY, array(STRING, 3, text("abcdefghijklmnopqrstuvwxyz") + bytes(0))),))[:-20],
        "cut short|more than fit|claims",
    ),
    "nesting": (
        container(pairs=(pair("k", ARRAY, array(ARRAY, 1, array(ARRAY, 1, array(ARRAY, 1, NESTED)))),)),
        "nested more than 4 deep",
    ),
    "alignment 0": (container(pairs=(pair("general.alignment", U32, bytes(4)),)), "alignment is 0"),
    "alignment 33": (container(pairs=(pair("general.alignment", U32, struct.pack("<I", 33)),)), "alignment is 33"),
    "alignment text": (container(pairs=(pair("general.alignment", STRING, text("32")),)), "alignment is '32'"),
    "five dims": (container(tensors=(tensor("a", (1,) * 5, 0, 0),), data=bytes(32)), "5 dimensions"),
    "no dims": (container(tensors=(tensor("a", (), 0, 0),), data=bytes(32)), "0 dimensions"),
    "empty dim": (container(tensors=(tensor("a", (4, 0), 0, 0),), data=bytes(32)), "empty dimension"),
    "huge dims": (container(tensors=(tensor("a", (2**62, 2**62), 0, 0),), data=bytes(32)), "after the end of the file"),
    "wrapping dims": (container(tensors=(tensor("a", (2**32, 2**32), 0, 0),), data=bytes(32)), "after the end"),
    "tensor type": (container(tensors=(tensor("a", (4,), 77, 0),), data=bytes(32)), "unknown element type 77"),
    "partial block": (container(tensors=(tensor("a", (33,), 2, 0),), data=bytes(64)), "not a multiple of 32"),
    "unaligned": (container(tensors=(tensor("a", (4,), 0, 8),), data=bytes(64)), "not aligned to 32"),
    "out of file": (container(tensors=(tensor("a", (4,), 0, 64),), data=bytes(64)), "16 bytes after the end"),
    "offset overflow": (container(tensors=(tensor("a", (4,), 0, 2**64 - 32),), data=bytes(64)), "after the end"),
    "overlap": (container(tensors=(tensor("a", (12,), 0, 0), tensor("b", (4,), 0, 32)), data=bytes(64)), "overlap"),
    "same place": (container(tensors=(tensor("a", (4,), 0, 0), tensor("b", (4,), 0, 0)), data=bytes(64)), "overlap"),
    "tensor twice": (container(tensors=ONE * 2, data=bytes(64)), "'a' appears twice"),
    "truncated data": (container(tensors=ONE, data=bytes(15)), "1 bytes after the end"),
}


@pytest.mark.parametrize("name", BAD)
def test_damage_is_refused_without_allocating(name: str, file: Path) -> None:
    data, what = BAD[name]
    file.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError, match=what) as caught:
            open_gguf(file)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert str(file) in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="No such file"):
        open_gguf(tmp_path / "missing.gguf")
    with pytest.raises(ModelFileError, match="is not a file"):
        open_gguf(tmp_path)
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    with pytest.raises(ModelFileError, match="is not a file"):
        open_gguf(pipe)


def test_a_large_vocabulary_is_read_in_bounded_memory(file: Path) -> None:
    tokens = [f"token {index}" for index in range(50_000)]
    strings = b"".join(text(token) for token in tokens)
    file.write_bytes(container(pairs=(pair("t", ARRAY, array(STRING, len(tokens), strings)),)))
    tracemalloc.start()
    try:
        assert open_gguf(file).metadata["t"] == tokens
        assert tracemalloc.get_traced_memory()[1] < 8 * len(strings)
    finally:
        tracemalloc.stop()


def test_a_hole_does_not_fill_the_memory(tmp_path: Path) -> None:
    """A file that is a hole takes no room on the disk, whatever its size: sizes alone bound nothing."""
    key = text("general.name")
    holes = {
        "numbers": (0, 3 << 30, 3 << 30),
        "lists": (ARRAY, 15_900_000, 12 * 15_900_000),
        "strings": (STRING, 15_900_000, 8 * 15_900_000),
    }
    for name, (kind, count, size) in holes.items():
        path = tmp_path / f"{name}.gguf"
        with path.open("wb") as file:
            file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + struct.pack("<IIQ", ARRAY, kind, count))
            file.truncate(file.tell() + size)
        tracemalloc.start()
        with pytest.raises(ModelFileError, match="metadata"):
            open_gguf(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1_000_000
    path = tmp_path / "tensors.gguf"
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 2_000_000, 0))
        for number in range(300_000):
            file.write(tensor(f"t{number}", (1,), 0, 32 * number))
        file.truncate(file.tell() + 64 * 2_000_000)
    with pytest.raises(ModelFileError, match="strings and lists"):
        open_gguf(path)


def test_long_strings_are_bounded_together(file: Path) -> None:
    big = text("x" * (MAX_STRING - 1))
    for pairs in (
        tuple(pair(f"k{number}", STRING, big) for number in range(8)),
        (pair("k", ARRAY, array(STRING, 8, big * 8)),),
    ):
        file.write_bytes(container(pairs=pairs))
        with pytest.raises(ModelFileError, match="100,000,000 bytes"):
            open_gguf(file)
