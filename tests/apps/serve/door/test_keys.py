"""The file of keys: what it may hold, and that nothing of it is shown."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from nlpkit.apps.serve.door.gate import host_name
from nlpkit.apps.serve.door.keys import bearer_key, knows_key, read_keys
from nlpkit.core.errors import ConfigError

HASH = hashlib.sha256(b"secret").hexdigest()


def test_each_line_is_the_hash_of_a_key(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# ours\n\n{HASH}  alice\n{hashlib.sha256(b'two').hexdigest().upper()}\n")
    keys = read_keys(path)
    assert [knows_key(key, keys) for key in ("secret", "two", "three", "", HASH, "\ud800")] == [
        True,
        True,
        *[False] * 4,
    ]


@pytest.mark.parametrize("text", ["", "# nothing\n", "sk-plain-key\n", HASH[:-1], "\x00" * 10, "ü" * 64])
def test_other_files_are_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_keys(path)
    assert "plain" not in str(caught.value)


def test_a_file_that_is_missing_or_huge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_keys(tmp_path / "none")
    (tmp_path / "huge").write_bytes(b"0" * 2**21)
    with pytest.raises(ConfigError, match="longer"):
        read_keys(tmp_path / "huge")


@pytest.mark.parametrize(
    ("header", "name"),
    [("Example.ORG:8000", "example.org"), ("[::1]:80", "::1"), ("a.b.", "a.b"), ("", ""), ("[::1", "::1"), (":80", "")],
)
def test_names_are_read_without_their_port(header: str, name: str) -> None:
    assert host_name(header) == name


def test_no_key_is_no_key() -> None:
    assert [bearer_key(header) for header in ("Bearer  k ", "bearer k", "Basic k", "k", "")] == ["k", "k", "", "", ""]
    assert not knows_key("", frozenset({hashlib.sha256(b"").digest()}))
