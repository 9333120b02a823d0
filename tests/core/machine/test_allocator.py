"""Keeping freed memory: where the C library can, and never against what the user has set."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from nlpkit.core.machine import allocator

VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


@pytest.fixture(autouse=True)
def _on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


class _Library:
    def __init__(self, answers: dict[int, int] | None = None) -> None:
        self.calls: list[tuple[int, int]] = []
        self._answers = answers or {}
        self.gnu_get_libc_version = object()

    def mallopt(self, option: int, value: int) -> int:
        self.calls.append((option, value))
        return self._answers.get(option, 1)


def use(monkeypatch: pytest.MonkeyPatch, library: Any) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)


def test_freed_memory_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    library = _Library()
    use(monkeypatch, library)
    assert allocator.keep_freed_memory()
    # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD of malloc.h.
    assert [option for option, _ in library.calls] == [-3, -1, -2]
    assert all(-(2**31) <= value < 2**31 for _, value in library.calls)


@pytest.mark.parametrize("name", VARIABLES)
def test_what_the_user_has_set_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library = _Library()
    use(monkeypatch, library)
    monkeypatch.setenv(name, "65536")
    assert not allocator.keep_freed_memory()
    assert library.calls == []


@pytest.mark.parametrize("library", [SimpleNamespace(), SimpleNamespace(mallopt=None)])
def test_another_c_library_is_left_alone(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, library)
    assert not allocator.keep_freed_memory()


def test_another_system_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    library = _Library()
    use(monkeypatch, library)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not allocator.keep_freed_memory()
    assert library.calls == []


def test_a_refused_setting_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, _Library({-3: 0}))
    assert not allocator.keep_freed_memory()
