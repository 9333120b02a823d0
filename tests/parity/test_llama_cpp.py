"""Tokenizers and chat prompts of GGUF files against llama.cpp, whose format it is.

Runs where `xllamacpp` is installed, a prebuilt llama.cpp (the extra ``llama-cpp``).
"""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("xllamacpp", reason="llama.cpp is not here: pip install xllamacpp")

import tokenizers
from chats import CHATS, TEMPLATES
from llama_cpp_reference import SPECIAL, LlamaCpp, write_bpe, write_spm
from spaced_tokenizers import spm_model

from nlpkit.apps.models.describe import pull_model
from nlpkit.core.chat.message import Message
from nlpkit.core.chat.template import ChatTemplate
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.request import Request
from nlpkit.core.errors import NlpkitError
from nlpkit.core.formats.gguf.source import GGUFSource
from nlpkit.core.load import load_model
from nlpkit.core.tokenizers.bpe import byte_to_char
from nlpkit.core.tokenizers.gguf_pretokenizers import PRE_TOKENIZERS
from nlpkit.core.tokenizers.gguf_vocab import new_bpe
from nlpkit.core.tokenizers.stream import decode_behind
from nlpkit.core.tokenizers.tokenizer import encode_behind

pytestmark = [pytest.mark.parity, pytest.mark.local_server]

CORPUS = [
    "The quick brown fox jumps over the lazy dog. It's 12 o'clock, don't be late!",
    "def add(x, y):\n    return x + y  # 1234567\n\n",
    "Größe, café, naïve; 日本語のテキスト 你好世界 🎉🎉 👩‍👩‍👧",
    "  leading and   inner    spaces\tand\ttabs \n \n new lines ",
    "price: $1,234.56 or 3½ ² and e\u0301 versus é",
    "I'LL WE'RE you'Ve camelCase HTMLParser snake_case <b>bold</b> 1 2  3   44",
    "Привет мир, это тест. שלום עולם مرحبا नमस्ते สวัสดี 안녕하세요 Ⅷ ① ٣٤٥",
    "\u00a0nbsp\u2003em\u3000wide\u200bzero\ufeffbom\u2028line",
]
PIECES = [*CORPUS, *"abc XYZ 019 \t\n.,'\"<>", "日", "é", "e\u0301", "😀", "\u3000", " the", "'ll", "'S", "½", "\r\n"]


def texts(n: int = 150) -> list[str]:
    rng = random.Random(0)
    return [*CORPUS, *("".join(rng.choices(PIECES, k=rng.randint(1, 8))) for _ in range(n))]


TEXTS = texts()


def train_bpe(pre: str) -> tokenizers.Tokenizer:
    tokenizer = new_bpe([], [], PRE_TOKENIZERS[pre], add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=420, special_tokens=SPECIAL, initial_alphabet=list(byte_to_char()), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    tokenizer.add_tokens([tokenizers.AddedToken("<think>", special=False, normalized=False)])
    return tokenizer


# Names that llama.cpp has not, and the name of files that name nothing, whose rule there is no model's own.
UNKNOWN_THERE = {"gpt2", "gpt-neox", "default"}
# Rules that name combining marks, which llama.cpp leaves out of its own form of them.
CASED = {"gpt-4o", "llama4", "tekken"}


def comparable(pre: str, text: str) -> bool:
    """Whether llama.cpp's rule is the model's own for this text."""
    if PRE_TOKENIZERS[pre].nfc and not unicodedata.is_normalized("NFC", text):
        return False
    return pre not in CASED or not any(unicodedata.category(char).startswith("M") for char in text)


@pytest.mark.parametrize("pre", sorted(set(PRE_TOKENIZERS) - UNKNOWN_THERE))
def test_byte_level_tokenizers(pre: str, tmp_path: Path) -> None:
    path = write_bpe(tmp_path / "m.gguf", train_bpe(pre), pre)
    ours, theirs = GGUFSource(path).tokenizer(), LlamaCpp(path)
    compared = [text for text in TEXTS if comparable(pre, text)]
    assert len(compared) > 80
    assert [ours.encode(text) for text in compared] == [theirs.encode(text) for text in compared]
    check_special(ours, theirs, [text for text in CORPUS if comparable(pre, text)])


@pytest.mark.parametrize("options", [{}, {"add_dummy_prefix": False}, {"user_defined_symbols": ["<sep>", "hive"]}])
def test_sentencepiece_tokenizers(options: dict[str, Any], tmp_path: Path) -> None:
    path = write_spm(
        tmp_path / "m.gguf", spm_model(**options), ggml__add_space_prefix=options.get("add_dummy_prefix", True)
    )
    ours, theirs = GGUFSource(path).tokenizer(), LlamaCpp(path)
    assert [ours.encode(text) for text in TEXTS] == [theirs.encode(text) for text in TEXTS]
    check_special(ours, theirs, CORPUS)
    for text in ("a<sep>b", "the hive is", "<sep><sep> hive", "hive"):
        assert ours.encode(text) == theirs.encode(text), text
    # What follows a prompt has the same tokens, and adds the same text.
    for prompt, rest in (("the queen lays", " eggs"), ("the", " hive"), ("</s>", "honey")):
        whole = theirs.encode(prompt + rest, parse_special=True)
        begin = theirs.encode(prompt, parse_special=True)
        assert [*begin, *encode_behind(ours, begin, rest)] == whole
        assert decode_behind(ours, begin, whole[len(begin) :]) == rest


def check_special(ours: Any, theirs: LlamaCpp, texts: list[str]) -> None:
    for text in ("<|im_start|>user\nHi<|im_end|>", "a<think> b</s>c", " <|endoftext|>  x", "</s></s>", "<s> the"):
        assert ours.encode(text) == theirs.encode(text)
        assert ours.encode(text, parse_special=True) == theirs.encode(text, parse_special=True)
    assert ours.encode("Hi", add_bos=ours.adds_bos) == theirs.encode("Hi", add_special=True)
    for text in texts:
        ids = ours.encode(text)
        # Theirs leaves the space in that the encoder put in front.
        assert ours.decode(ids) == text
        assert theirs.decode(ids) == b"".join(map(ours.token_bytes, ids)).decode()


@pytest.fixture(scope="module")
def chat_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file whose special tokens are those of the templates, with a template that is never used."""
    return write_bpe(tmp_path_factory.mktemp("chat") / "m.gguf", train_bpe("smollm"), "smollm", chat_template="none")


@pytest.mark.parametrize("style", [style for style in TEMPLATES if style != "dictionary"])  # it has no dict()
def test_chat_prompts(style: str, chat_file: Path) -> None:
    theirs = LlamaCpp(chat_file, template=TEMPLATES[style])
    template = ChatTemplate(TEMPLATES[style], bos_token="<s>", eos_token="</s>")
    compared = 0
    for chat in CHATS.values():
        got = theirs.render([{"role": role, "content": content} for role, content in chat])
        try:
            expected = template.render([Message(role, content) for role, content in chat], add_generation_prompt=True)
        except NlpkitError:
            assert "error" in got
            continue
        assert got == expected
        compared += 1
    assert compared >= 1


def test_the_default_model(default_model: str) -> None:
    """What it is asked, and what it answers first."""
    lm = load_model(default_model, dtype="fp32", device="cpu")
    theirs = LlamaCpp(Path(pull_model(default_model)))
    assert [lm.tokenizer.encode(text) for text in TEXTS] == [theirs.encode(text) for text in TEXTS]
    assert lm.chat is not None
    for chat in CHATS.values():
        messages = [Message(role, content) for role, content in chat]
        prompt = theirs.render([{"role": role, "content": content} for role, content in chat])
        assert lm.chat.render(messages, add_generation_prompt=True) == prompt
        assert lm.chat.render_tokens(messages, lm.tokenizer) == theirs.encode(prompt, parse_special=True)
    for prompt in ("The capital of France is", "Once upon a"):
        ids = tuple(lm.tokenizer.encode(prompt))
        answer = theirs.ask("completion", prompt=list(ids), n_predict=1, temperature=0.0, n_probs=1)
        (likeliest,) = answer["completion_probabilities"]
        ((_, generation),) = list(lm.generate([Request(prompt_ids=ids, config=DecodeConfig(max_tokens=1))]))
        done = generation.completions[0]
        assert (done.text, done.token_ids) == (answer["content"], (likeliest["id"],))
        # Theirs rounds activations to 8 bits.
        assert done.logprob == pytest.approx(likeliest["logprob"], abs=0.25)
