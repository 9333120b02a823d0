"""Tokenizers and chat templates against `transformers`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from chats import CHATS, TEMPLATES
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from nlpkit.core.chat.message import Message
from nlpkit.core.chat.template import load_chat_template
from nlpkit.core.tokenizers.bpe import HFTokenizer

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

SPECIALS = [
    *("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>"),
    *("<|end_header_id|>", "<|eot_id|>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<|user|>", "<|assistant|>"),
    *("<|system|>", "<|end|>"),
]
CORPUS = [
    "The quick brown fox jumps over the lazy dog.",
    "Größe, Maß und 日本語!",
    "user\nassistant\nsystem\n\nYou are",
] * 3


def byte_level() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    train(tokenizer, pre_tokenizers.ByteLevel.alphabet())
    # Byte-level families (GPT-NeoX) add runs of spaces; they are text, not special.
    tokenizer.add_tokens([AddedToken("  ", special=False, normalized=False)])
    return tokenizer


def metaspace() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    byte_pieces = [f"<0x{b:02X}>" for b in range(256)]
    train(tokenizer, [], byte_pieces)
    # The trainer can only add them as special tokens, which they are not in any real model.
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in byte_pieces]
    return tokenizers.Tokenizer.from_str(json.dumps(state))


def train(tokenizer: tokenizers.Tokenizer, alphabet: list[str], more: list[str] | None = None) -> None:
    specials = [AddedToken(s, special=True, normalized=False) for s in SPECIALS]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=[*specials, *(more or [])], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)


def save(tokenizer: tokenizers.Tokenizer, directory: Path, template: str | None = None) -> None:
    bos = "<s>"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, eos_token="</s>", unk_token="<unk>"
    )
    fast.chat_template = template
    fast.save_pretrained(directory)


KINDS = {"byte_level": byte_level, "metaspace": metaspace}


@pytest.fixture(scope="module", params=list(KINDS))
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param)
    save(KINDS[request.param](), path)
    return path


TEXTS = [
    *CORPUS[:3],
    "",
    " leading and  double  spaces ",
    "new\n\n\nlines\t\tand tabs 1234567",
    "👩‍👩‍👧 e\u0301 \u200b ﷽",
    "def f(x):\n    return x",
]


@pytest.mark.parametrize("text", TEXTS)
def test_encode_and_decode(directory: Path, text: str) -> None:
    ours = HFTokenizer.from_files(directory)
    theirs = transformers.AutoTokenizer.from_pretrained(directory)
    ids = theirs.encode(text, add_special_tokens=False)
    assert ours.encode(text) == ids
    assert ours.encode(text, add_bos=True) == theirs.encode(text)
    assert ours.decode(ids) == theirs.decode(ids, clean_up_tokenization_spaces=False) == text
    marked = f"<s>{text}<|im_end|>{text}</s>"
    parsed = theirs.encode(marked, add_special_tokens=False)
    assert ours.encode(marked, parse_special=True) == parsed
    assert ours.decode(parsed) == theirs.decode(parsed, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert (ours.bos_id, ours.eos_ids, ours.vocab_size) == (theirs.bos_token_id, {theirs.eos_token_id}, len(theirs))


def test_what_we_save_loads_there(directory: Path, tmp_path: Path) -> None:
    ours = HFTokenizer.from_files(directory)
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (ours.bos_id, *ours.eos_ids)
    for text in TEXTS:
        ids = theirs.encode(text, add_special_tokens=False)
        assert ids == ours.encode(text)
        assert theirs.decode(ids, clean_up_tokenization_spaces=False) == text


@pytest.fixture(scope="module", params=list(KINDS))
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, object, HFTokenizer]:
    path = tmp_path_factory.mktemp("chat")
    save(KINDS[request.param](), path, "{{ messages }}")
    return path, transformers.AutoTokenizer.from_pretrained(path), HFTokenizer.from_files(path)


@pytest.mark.parametrize("generation", [True, False])
@pytest.mark.parametrize("chat", list(CHATS))
@pytest.mark.parametrize("style", list(TEMPLATES))
def test_chat_templates(both: tuple[Path, object, HFTokenizer], style: str, chat: str, generation: bool) -> None:
    path, theirs, tokenizer = both
    (path / "chat_template.jinja").write_text(TEMPLATES[style], encoding="utf-8")
    template = load_chat_template(path)
    assert template is not None
    messages = [{"role": role, "content": content} for role, content in CHATS[chat]]
    options = {"chat_template": TEMPLATES[style], "add_generation_prompt": generation}
    expected = theirs.apply_chat_template(messages, tokenize=False, **options)  # type: ignore[attr-defined]
    turns = [Message(role, content) for role, content in CHATS[chat]]
    assert template.render(turns, add_generation_prompt=generation) == expected
    ids = theirs.apply_chat_template(messages, tokenize=True, return_dict=False, **options)  # type: ignore[attr-defined]
    assert template.render_tokens(turns, tokenizer, add_generation_prompt=generation) == ids


def test_refusals_agree(both: tuple[Path, object, HFTokenizer]) -> None:
    path, theirs, _ = both
    (path / "chat_template.jinja").write_text(TEMPLATES["llama-2"], encoding="utf-8")
    template = load_chat_template(path)
    assert template is not None
    with pytest.raises(Exception, match="must alternate"):
        theirs.apply_chat_template(  # type: ignore[attr-defined]
            [{"role": "assistant", "content": "x"}], tokenize=False, chat_template=TEMPLATES["llama-2"]
        )
    with pytest.raises(Exception, match="must alternate"):
        template.render([Message("assistant", "x")])
