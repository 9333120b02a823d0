"""`nlpkit models pull --wheel`: a catalogue model out of a wheel that came some other way."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nlpkit.core.fetch import catalogue
from nlpkit.core.fetch.catalogue import ModelEntry, WheelSource

WHEEL = "tiny_model-1.0-py3-none-any.whl"
MODEL = b"GGUF" + bytes(range(256)) * 40


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with a tiny model of the catalogue in it, in an empty cache."""
    monkeypatch.setenv("NLPKIT_HOME", str(tmp_path / "home"))
    path = tmp_path / WHEEL
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_model/tiny.gguf", MODEL)
    source = WheelSource(
        package="tiny-model",
        version="1.0",
        wheel=WHEEL,
        wheel_size=path.stat().st_size,
        wheel_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        member="tiny_model/tiny.gguf",
    )
    entry = ModelEntry(
        name="tiny",
        aliases=("wee",),
        file="tiny.gguf",
        size=len(MODEL),
        sha256=hashlib.sha256(MODEL).hexdigest(),
        licence="MIT",
        description="tiny",
        sources=(source,),
    )
    monkeypatch.setattr(catalogue, "CATALOGUE", (entry,))
    return path


def test_pull_from_a_wheel(wheel: Path, cli: Callable[..., Any]) -> None:
    done = cli("models", "pull", "wee", "--wheel", str(wheel))
    path = Path(done.out.rstrip("\n"))
    assert (done.code, done.err) == (0, "")
    assert path.read_bytes() == MODEL
    assert path.is_relative_to(wheel.parent / "home")
    assert '"cached": true' in cli("models", "list", "--json").out


def test_a_damaged_wheel_is_refused_and_leaves_nothing(wheel: Path, cli: Callable[..., Any]) -> None:
    data = bytearray(wheel.read_bytes())
    data[100] ^= 1
    wheel.write_bytes(data)
    done = cli("models", "pull", "tiny", "--wheel", str(wheel))
    assert (done.code, done.out) == (2, "")
    assert "is not the wheel of tiny" in done.err
    assert not list((wheel.parent / "home").rglob("*.gguf"))


def test_only_short_names_come_in_wheels(wheel: Path, cli: Callable[..., Any]) -> None:
    done = cli("models", "pull", "tinny", "--wheel", str(wheel))
    assert done.code == 2
    assert "Did you mean 'tiny'?" in done.err
