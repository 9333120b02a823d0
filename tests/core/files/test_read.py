"""Small files of a model's folder: what is opened, how much is read, how deep it may nest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nlpkit.core.chat.template import load_chat_template
from nlpkit.core.errors import ModelFileError, NlpkitError, TokenizerError, shown
from nlpkit.core.files.read import parse_json, read_json_object, read_small_file
from nlpkit.core.tokenizers.load import load_tokenizer
from nlpkit.core.tokenizers.special_tokens import read_json

NAMES = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")


def plant(path: Path, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()


@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    for name in (*NAMES, "added_tokens.json", "chat_template.jinja", "chat_template.json"):
        folder = tmp_path / name
        folder.mkdir()
        plant(folder / name, kind)
        with pytest.raises(NlpkitError, match=r"regular file|leads out"):
            load_chat_template(folder)
    for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt"):
        folder = tmp_path / name
        folder.mkdir()
        if name == "merges.txt":
            (folder / "vocab.json").write_text("{}")
        plant(folder / name, kind)
        with pytest.raises(TokenizerError):
            load_tokenizer(folder)
    plant(tmp_path / "any.json", kind)
    with pytest.raises(ModelFileError):
        read_json_object(tmp_path / "any.json")
    with pytest.raises(TokenizerError):
        read_json(tmp_path / "any.json")


def test_links(tmp_path: Path) -> None:
    private = tmp_path / "id_rsa"
    private.write_text('{"secret": 1}')
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").symlink_to(private)
    with pytest.raises(ModelFileError, match="leads out of its folder"):
        read_json_object(folder / "config.json")
    # Folders put together from links to another model's files, and the store of a hub cache, go on working.
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tokenizer_config.json").write_text("{}")
    (folder / "tokenizer_config.json").symlink_to(tmp_path / "other" / "tokenizer_config.json")
    assert read_json_object(folder / "tokenizer_config.json") == {}
    (folder / "real.json").write_text('{"a": 1}')
    (folder / "link.json").symlink_to("real.json")
    assert read_json_object(folder / "link.json") == {"a": 1}
    snapshot = tmp_path / "hub" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "hub" / "blobs").mkdir()
    (tmp_path / "hub" / "blobs" / "0123").write_text('{"b": 2}')
    (snapshot / "config.json").symlink_to("../../blobs/0123")
    assert read_json_object(snapshot / "config.json") == {"b": 2}


def test_sizes_and_nesting_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "big.json"
    path.write_bytes(b'{"x":[' + b"{}," * 2_000_001 + b"{}]}")
    with pytest.raises(ModelFileError, match="values"):
        read_json_object(path)
    with pytest.raises(ValueError, match="nested"):
        parse_json(b"[" * 100_000 + b"]" * 100_000)
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelFileError, match="1,099,511,627,776 bytes"):
        read_small_file(path, max_bytes=100, error=ModelFileError)


def test_messages_are_short_and_hold_no_passwords() -> None:
    assert len(str(ModelFileError("x" * 2_000_000))) <= 1_800
    assert len(shown("y" * 1_000_000)) <= 200
    assert "too large to show" in shown(16**10_000)
    said = str(ModelFileError("from http://user:SEC@RET@host:9/a?token=SECRET#x and https://hub/?SECRET failed"))
    assert "SEC" not in said
    assert "user" not in said
    assert "http://host:9/a?..." in said
