"""The safetensors reader, and the refusal of pickles."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from nlpkit.core.errors import ModelFileError
from nlpkit.core.files.safetensors import DTYPES, open_safetensors, refuse_pickle

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def stored(header: Any, data: bytes = bytes(8), *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(**changes: Any) -> dict[str, Any]:
    return {"a": {**ENTRY, **changes}}


def test_every_dtype_and_shape_comes_back(tmp_path: Path) -> None:
    tensors = {}
    for name, dtype in DTYPES.items():
        tensors[name] = torch.arange(6).reshape(2, 3).to(dtype)
    tensors |= {"scalar": torch.tensor(1.5), "empty": torch.empty(0, 4), "odd": torch.ones(3, dtype=torch.uint8)}
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    opened = open_safetensors(path)
    assert set(opened.names) == set(tensors)
    assert opened.metadata == {"format": "pt"}
    for name, tensor in tensors.items():
        got = opened.tensor(name)
        assert got.dtype == tensor.dtype
        assert got.shape == tensor.shape
        assert got.tolist() == tensor.tolist()
    assert opened.tensor("F32", dtype=torch.bfloat16).dtype == torch.bfloat16
    with pytest.raises(ModelFileError, match="no tensor named 'nope'"):
        opened.tensor("nope")


def test_tensors_outlive_the_file_object_and_never_write_back(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(4)}, path)
    tensor = open_safetensors(path).tensor("a")
    tensor.zero_()
    assert open_safetensors(path).tensor("a").tolist() == [1.0] * 4


def test_misaligned_data_is_copied(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    header = json.dumps(entry()).encode()
    header += b" " * ((1 - 8 - len(header)) % 4)
    data = torch.tensor([1.5, -2.0]).numpy().tobytes()
    path.write_bytes(stored(header, data))
    assert open_safetensors(path).info["a"].offset % 4 == 1
    assert open_safetensors(path).tensor("a").tolist() == [1.5, -2.0]


DUPLICATE = (
    b'{"a": {"dtype":"F32","shape":[2],"data_offsets":[0,8]}, "a": {"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
)
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "short": (b"1234567", "only 7 bytes"),
    "header beyond the file": (stored({}, length=10_000), "claims 10,000 bytes"),
    "absurd header": (stored({}, length=2**63), "claims 9,223"),
    "no header": (stored(b"", b""), "claims 0 bytes"),
    "no json": (stored(b"[1, 2"), "no valid JSON"),
    "no utf-8": (stored(b'{"\xff": 1}'), "no valid JSON"),
    "nan": (stored(b'{"a": NaN}'), "no valid JSON"),
    "huge number": (stored(b'{"a": ' + b"9" * 5000 + b"}"), "no valid JSON|is not made of"),
    "deep": (stored(b"[" * 200_000), "no valid JSON"),
    "list": (stored([1]), "no JSON object"),
    "twice": (stored(DUPLICATE), "a key appears twice"),
    "metadata": (stored({"__metadata__": {"a": 1}}, b""), "not all strings"),
    "no entry": (stored({"a": 3}), "is not made of"),
    "extra key": (stored(entry(more=1)), "is not made of"),
    "dtype": (stored(entry(dtype="F31")), "unknown dtype 'F31'"),
    "dtype no text": (stored(entry(dtype=[1])), "unknown dtype"),
    "f8": (stored(entry(dtype="F8_E4M3")), "F8_E4M3, which nlpkit does not read"),
    "shape": (stored(entry(shape=[-2])), "no usable shape"),
    "shape of floats": (stored(entry(shape=[2.0])), "no usable shape"),
    "shape of flags": (stored(entry(shape=[True])), "no usable shape"),
    "too many dims": (stored(entry(shape=[1] * 9)), "no usable shape"),
    "absurd shape": (stored(entry(shape=[2**62, 2**62])), "does not fill its 8 bytes"),
    "offsets": (stored(entry(data_offsets=[0])), "no usable offsets"),
    "offsets swapped": (stored(entry(data_offsets=[8, 0])), "beyond the end"),
    "beyond": (stored(entry(data_offsets=[0, 16], shape=[4])), "beyond the end"),
    "size": (stored(entry(shape=[3])), "does not fill"),
    "gap": (stored(entry(data_offsets=[4, 12]), bytes(12)), "leaves a gap"),
    "overlap": (stored({"a": ENTRY, "b": {**ENTRY, "data_offsets": [4, 12]}}, bytes(12)), "overlaps"),
    "same": (stored({"a": ENTRY, "b": ENTRY}), "overlaps"),
    "left over": (stored({"a": ENTRY}, bytes(9)), "its tensors end at byte"),
    "truncated": (stored({"a": ENTRY}, bytes(7)), "beyond the end"),
}


@pytest.mark.parametrize("name", BAD)
def test_damage_is_refused_in_bounded_memory(name: str, tmp_path: Path) -> None:
    data, what = BAD[name]
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError, match=what):
            open_safetensors(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_missing_files_and_directories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="No such file"):
        open_safetensors(tmp_path / "x.safetensors")
    with pytest.raises(ModelFileError, match="is not a file"):
        open_safetensors(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "a.pt", "b.PTH", "c.ckpt", "d.pkl"])
def test_pickles_are_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04N.")
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(ModelFileError, match="runs whatever code it holds") as caught:
            refuse_pickle(path)
        assert name in str(caught.value)


def test_a_pickle_beside_safetensors_is_no_matter(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    refuse_pickle(tmp_path)
    refuse_pickle(tmp_path / "model.safetensors")
    refuse_pickle(tmp_path / "missing")


def test_a_header_of_many_values_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    head = b'{"a":{"dtype":[' + b"{}," * 4_000_000 + b'{}],"shape":[1],"data_offsets":[0,4]}}'
    path = tmp_path / "x.safetensors"
    path.write_bytes(stored(head, bytes(4)))
    tracemalloc.start()
    with pytest.raises(ModelFileError, match="values"):
        open_safetensors(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * len(head)
    path.write_bytes(stored(b"{}" + b" " * 30_000_000, b""))
    with pytest.raises(ModelFileError, match="header claims"):
        open_safetensors(path)
