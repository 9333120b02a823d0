"""Tokenizer files that would take memory or time without end, or make the library panic."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from nlpkit.core.chat.message import Message
from nlpkit.core.chat.template import ChatTemplate
from nlpkit.core.errors import TokenizerError
from nlpkit.core.tokenizers.bpe import HFTokenizer
from nlpkit.core.tokenizers.gguf_pretokenizers import PRE_TOKENIZERS
from nlpkit.core.tokenizers.gguf_vocab import new_bpe

resource = pytest.importorskip("resource")


def folder(path: Path, changes: dict[str, Any], config: dict[str, Any] | None = None) -> Path:
    made = new_bpe([], [], PRE_TOKENIZERS["smollm"], add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(["the cat sat on the mat"], trainer)
    value = json.loads(made.to_str())
    for key, change in changes.items():
        value[key] = [*value[key], *change] if isinstance(change, list) else change
    path.mkdir(exist_ok=True)
    (path / "tokenizer.json").write_text(json.dumps(value))
    (path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<|im_start|>", **(config or {})}))
    return path


def added(content: str, **more: Any) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": 9_000, "content": content, "special": True, **flags, **more}


def replace(old: str, new: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def template(pieces: list[Any], ids: list[int]) -> dict[str, Any]:
    special = {"x": {"id": "x", "ids": ids, "tokens": ["x"] * len(ids)}}
    return {"type": "TemplateProcessing", "single": pieces, "pair": [], "special_tokens": special}


A = {"Sequence": {"id": "A", "type_id": 0}}
X = {"SpecialToken": {"id": "x", "type_id": 0}}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
RUNAWAYS: dict[str, dict[str, Any]] = {
    "doubling": {"normalizer": {"type": "Sequence", "normalizers": [replace("a", "aa")] * 40}},
    "one step": {"normalizer": replace("a", "a" * 100_000)},
    "regex": {"normalizer": {"type": "Replace", "pattern": {"Regex": "."}, "content": "a" * 100_000}},
    "bytes of bytes": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 40}},
    "decoder": {"decoder": {"type": "Sequence", "decoders": [replace("a", "aa")] * 40}},
    "template": {"post_processor": template([A] * 10_000, [])},
    "templates": {"post_processor": {"type": "Sequence", "processors": [template([A, A], [])] * 40}},
    "template ids": {"post_processor": template([X] * 60, [0] * 1_000_000)},
    "long special": {"added_tokens": [added("x" * 100_000)]},
}


@pytest.mark.parametrize("name", RUNAWAYS)
def test_what_grows_without_end_is_refused_before_the_library_sees_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(TokenizerError, match="damaged or hostile"):
        HFTokenizer.from_files(folder(tmp_path, RUNAWAYS[name]))


def test_sections_are_found_however_they_are_spelled(tmp_path: Path) -> None:
    path = folder(tmp_path, {}) / "tokenizer.json"
    bomb = json.dumps(RUNAWAYS["doubling"]["normalizer"])
    plain = path.read_text()
    for key in ('"normalizer"', '"norm\\u0061lizer"', '"\\u006eormalize\\u0072" '):
        path.write_text(f"{plain[:-1]}, {key}: {bomb}}}")
        with pytest.raises(TokenizerError, match="normalizer makes a text"):
            HFTokenizer.from_files(tmp_path)


@pytest.mark.parametrize("direction", ["Right", "Left"])
def test_padding_and_truncation_of_the_file_are_never_in_force(tmp_path: Path, direction: str) -> None:
    padding = {
        **{"strategy": {"Fixed": 10**9}, "direction": direction, "pad_to_multiple_of": None},
        **{"pad_id": 0, "pad_type_id": 0, "pad_token": "x"},
    }
    truncation = {"direction": direction, "max_length": 1, "strategy": "LongestFirst", "stride": 0}
    tokenizer = HFTokenizer.from_files(folder(tmp_path, {"padding": padding, "truncation": truncation}))
    assert tokenizer.decode(tokenizer.encode("the cat")) == "the cat"


@pytest.mark.parametrize("part", ["pre_tokenizer", "normalizer"])
def test_a_panic_is_our_error(tmp_path: Path, part: str) -> None:
    split = {"type": "Split", "pattern": {"Regex": "(a|a|aa)+$"}, "behavior": "Isolated", "invert": False}
    panics = {
        "pre_tokenizer": split,
        "normalizer": {"type": "Replace", "pattern": {"Regex": "((a+)+)+b"}, "content": "x"},
    }
    tokenizer = HFTokenizer.from_files(folder(tmp_path, {part: panics[part]}))
    with pytest.raises(TokenizerError, match="fails on this text"):
        tokenizer.encode("a" * 60 + "!")
    with pytest.raises(TokenizerError, match="fails on this text"):
        tokenizer.encode_protected("a" * 60 + "!", {})
    assert tokenizer.encode("the")


def test_a_panic_writes_no_trace(tmp_path: Path) -> None:
    split = {"type": "Split", "pattern": {"Regex": "(a|a|aa)+$"}, "behavior": "Isolated", "invert": False}
    program = (
        "import os, sys\n"
        "from nlpkit.core.errors import TokenizerError\n"
        "from nlpkit.core.tokenizers.bpe import HFTokenizer\n"
        "tokenizer = HFTokenizer.from_files(sys.argv[1])\n"
        "try:\n"
        "    tokenizer.encode('a' * 60 + '!')\n"
        "except TokenizerError:\n"
        "    os.write(2, b'told')\n"
    )
    place = str(folder(tmp_path, {"pre_tokenizer": split}))
    done = subprocess.run([sys.executable, "-c", program, place], capture_output=True, timeout=60, check=True)
    assert done.stderr == b"told"


def test_special_spellings_of_the_settings_are_bounded_too(tmp_path: Path) -> None:
    long = {"added_tokens_decoder": {"9000": {"content": "y" * 5_000, "special": True}}}
    for config in (long, {"additional_special_tokens": ["z" * 5_000]}, {"eos_token": "e" * 5_000}):
        with pytest.raises(TokenizerError, match="damaged or hostile"):
            HFTokenizer.from_files(folder(tmp_path, {}, config))
    many = [f"<{number:06d}{'x' * 240}>" for number in range(300)]

    class Many(HFTokenizer):
        @property
        def special_spellings(self) -> dict[str, int]:
            return dict.fromkeys(many, 0)

    made = tokenizers.Tokenizer.from_file(str(folder(tmp_path, {}) / "tokenizer.json"))
    with pytest.raises(TokenizerError, match="special tokens"):
        ChatTemplate("{{ messages[0].content }}").render_tokens(
            [Message("user", "a")], Many(made, bos_id=None, eos_ids=())
        )


def test_ids_of_thousands_of_digits_are_passed_over(tmp_path: Path) -> None:
    config = {"added_tokens_decoder": {"9" * 5_000: {"content": "y"}, "²": {"content": "z"}}}
    assert HFTokenizer.from_files(folder(tmp_path, {}, config)).encode("the")
