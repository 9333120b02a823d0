from __future__ import annotations

import io
import json
import random
import threading
from pathlib import Path

import pytest
import sentencepiece
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from nlpkit.core.chat.template import ProtectingTokenizer
from nlpkit.core.errors import InputError, TokenizerError
from nlpkit.core.tokenizers.bpe import HFTokenizer
from nlpkit.core.tokenizers.load import load_tokenizer
from nlpkit.core.tokenizers.sentencepiece import SentencePieceTokenizer
from nlpkit.core.tokenizers.special_tokens import AddedSpec
from nlpkit.core.tokenizers.stream import StreamDecoder
from nlpkit.core.tokenizers.tokenizer import Tokenizer
from nlpkit.core.tokenizers.tokenizer_json import byte_to_char

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.",
    "Über Größe und Maß wird im Straßenverkehr viel gestritten.",
    "日本語の文章です。",
    "if (x < 3) { return x | 7; }  // <tags> and <s> ends",
]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_level() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[AddedToken(s, special=True, normalized=False) for s in SPECIALS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return tokenizer


def llama_style(*, scheme: str = "normalizer") -> tokenizers.Tokenizer:
    """A byte-fallback tokenizer with a leading space, whose merges can spell ``<s>``."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{b:02X}>": b + 3 for b in range(256)}}
    for piece in ["▁", *sorted(set("".join(CORPUS).replace(" ", ""))), "<s", "th", "▁th", "▁the", "▁fox", "/s", "/s>"]:
        vocab.setdefault(piece, len(vocab))
    merges = [("<", "s"), ("<s", ">"), ("t", "h"), ("▁", "th"), ("▁th", "e"), ("/", "s"), ("/s", ">"), ("<", "/s>")]
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab, [m for m in merges if m[0] + m[1] in vocab], byte_fallback=True, unk_token="<unk>")
    )
    strip = [decoders.Strip(" ", 1, 0)]
    if scheme == "normalizer":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        steps += strip if scheme != "never" else []
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in ("<unk>", "<s>", "</s>")])
    return tokenizer


@pytest.fixture(scope="module")
def gpt() -> HFTokenizer:
    return HFTokenizer(byte_level(), bos_id=1, eos_ids=[2])


@pytest.fixture(scope="module")
def llama() -> HFTokenizer:
    return HFTokenizer(llama_style(), bos_id=1, eos_ids=[2])


@pytest.fixture(scope="module")
def spm_bytes() -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 5),
        model_writer=model,
        vocab_size=360,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def spm(spm_bytes: bytes) -> SentencePieceTokenizer:
    added = [AddedSpec(id=500, content="<|im_end|>", special=True), AddedSpec(id=501, content="<tool>", special=False)]
    return SentencePieceTokenizer(spm_bytes, added=added)


@pytest.fixture(params=["gpt", "llama", "spm"])
def any_tokenizer(request: pytest.FixtureRequest) -> HFTokenizer | SentencePieceTokenizer:
    found: HFTokenizer | SentencePieceTokenizer = request.getfixturevalue(request.param)
    return found


def test_protocols(any_tokenizer: HFTokenizer | SentencePieceTokenizer) -> None:
    assert isinstance(any_tokenizer, Tokenizer)
    assert isinstance(any_tokenizer, ProtectingTokenizer)
    assert len(any_tokenizer.fingerprint) == 64
    assert any_tokenizer.bos_id == 1
    assert any_tokenizer.eos_ids == {2}


TEXTS = [
    "The fox",
    "  two  spaces\n\n",
    "Größe 日本語",
    "👩‍👩‍👧 é e\u0301",
    "",
    "<tool>",
    "<think>",
    "a\u2581b",
    "\x00",
]


@pytest.mark.parametrize("text", TEXTS)
def test_round_trip(any_tokenizer: HFTokenizer | SentencePieceTokenizer, text: str) -> None:
    if "\u2581" in text and any_tokenizer.token_to_id("▁") is not None:
        pytest.skip("the space sign itself cannot be told from a space")
    ids = any_tokenizer.encode(text)
    assert any_tokenizer.decode(ids) == text
    assert all(0 <= i < any_tokenizer.vocab_size for i in ids)
    assert all(any_tokenizer.token_bytes(i) for i in ids)
    decoder = StreamDecoder(any_tokenizer)
    assert "".join([decoder.feed(i) for i in ids]) + decoder.flush() == text


@pytest.mark.parametrize("kind", ["gpt", "llama", "spm"])
def test_streams_of_any_ids(kind: str, request: pytest.FixtureRequest) -> None:
    tokenizer: HFTokenizer | SentencePieceTokenizer = request.getfixturevalue(kind)

    @given(ids=st.lists(st.integers(0, tokenizer.vocab_size + 3), max_size=12))
    def check(ids: list[int]) -> None:
        decoder = StreamDecoder(tokenizer)
        parts = [decoder.feed(i) for i in ids] + [decoder.flush()]
        assert "".join(parts) == tokenizer.decode(ids)

    check()


@given(text=st.text(max_size=60))
def test_any_text_survives_byte_level_bpe(text: str) -> None:
    tokenizer = _cached_gpt()
    assert tokenizer.decode(tokenizer.encode(text)) == text


_cache: list[HFTokenizer] = []


def _cached_gpt() -> HFTokenizer:
    if not _cache:
        _cache.append(HFTokenizer(byte_level(), bos_id=1, eos_ids=[2]))
    return _cache[0]


@pytest.mark.parametrize("spelling", [*SPECIALS, "<s>", "</s>"])
def test_typed_special_spellings_are_text(any_tokenizer: HFTokenizer | SentencePieceTokenizer, spelling: str) -> None:
    text = f"a {spelling}{spelling} b{spelling}"
    ids = any_tokenizer.encode(text)
    assert any_tokenizer.special_ids.isdisjoint(ids)
    assert any_tokenizer.decode(ids) == text
    if spelling in any_tokenizer.special_spellings:
        parsed = any_tokenizer.encode(text, parse_special=True)
        assert parsed.count(any_tokenizer.special_spellings[spelling]) == 3
        assert any_tokenizer.encode(text) == ids  # the order of calls plays no part


def test_merges_do_not_arrive_at_a_special_token(llama: HFTokenizer) -> None:
    raw = llama_style()
    raw.encode_special_tokens = True
    assert 1 in raw.encode("<s>", add_special_tokens=False).ids, "the trap is gone"
    assert llama.encode("<s>") == [llama.token_to_id(piece) for piece in ("▁", "<", "s", ">")]


def test_unknown_characters_may_stay_unknown() -> None:
    raw = tokenizers.Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.add_special_tokens([AddedToken("<unk>", special=True)])
    assert HFTokenizer(raw, bos_id=None, eos_ids=[]).encode("a b") == [1, 0]


def test_special_spelling_that_cannot_be_spelled_out_is_an_error() -> None:
    raw = tokenizers.Tokenizer(models.WordLevel({"a": 0, "end": 1}))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = HFTokenizer(raw, bos_id=None, eos_ids=[1], special_ids=[1])
    with pytest.raises(TokenizerError, match="'end'"):
        tokenizer.encode("a end")


def test_bos(gpt: HFTokenizer) -> None:
    assert gpt.encode("The", add_bos=True) == [1, *gpt.encode("The")]
    with pytest.raises(TokenizerError, match="no beginning-of-sequence"):
        HFTokenizer(byte_level(), bos_id=None, eos_ids=[]).encode("x", add_bos=True)


def test_post_processor_adds_nothing() -> None:
    raw = byte_level()
    raw.post_processor = processors.TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)])
    assert 1 not in HFTokenizer(raw, bos_id=1, eos_ids=[]).encode("The fox")


def test_truncation_padding_and_dropout_are_switched_off() -> None:
    raw = byte_level()
    raw.enable_truncation(max_length=2)
    raw.enable_padding(length=50)
    raw.model.dropout = 0.9
    tokenizer = HFTokenizer(raw, bos_id=None, eos_ids=[])
    assert tokenizer.encode(CORPUS[0]) == HFTokenizer(byte_level(), bos_id=None, eos_ids=[]).encode(CORPUS[0])


def test_lone_surrogate(any_tokenizer: HFTokenizer | SentencePieceTokenizer) -> None:
    with pytest.raises(InputError, match=r"U\+D800, at character 1"):
        any_tokenizer.encode("a\ud800")


def test_special_tokens_have_no_bytes_and_are_skipped(any_tokenizer: HFTokenizer | SentencePieceTokenizer) -> None:
    special = sorted(any_tokenizer.special_ids)[-1]
    assert any_tokenizer.token_bytes(special) == b""
    ids = [*any_tokenizer.encode("The"), special, *any_tokenizer.encode("fox")]
    spelling = {i: s for s, i in any_tokenizer.special_spellings.items()}[special]
    assert spelling not in any_tokenizer.decode(ids)
    assert spelling in any_tokenizer.decode(ids, skip_special=False)
    assert any_tokenizer.token_to_id(spelling) == special


def test_ids_outside_the_vocabulary_add_nothing(any_tokenizer: HFTokenizer | SentencePieceTokenizer) -> None:
    assert any_tokenizer.decode([any_tokenizer.vocab_size + 7, -1]) == ""
    assert any_tokenizer.token_to_id("no such token") is None


def test_byte_fallback_is_joined(llama: HFTokenizer) -> None:
    ids = [llama.token_to_id(f"<0x{b:02X}>") for b in "👍".encode()]
    assert None not in ids
    whole = [i for i in ids if i is not None]
    assert llama.decode(whole) == "👍"
    assert llama.decode(whole[:3] + llama.encode("x")) == "\ufffd x"


def test_byte_table_is_a_bijection() -> None:
    assert len(set(byte_to_char())) == 256
    assert set(byte_to_char()) == set(pre_tokenizers.ByteLevel.alphabet())


def test_fingerprint_sees_every_change(gpt: HFTokenizer) -> None:
    prints = {
        gpt.fingerprint,
        HFTokenizer(byte_level(), bos_id=None, eos_ids=[2]).fingerprint,
        HFTokenizer(byte_level(), bos_id=1, eos_ids=[2, 0]).fingerprint,
        HFTokenizer(byte_level(), bos_id=1, eos_ids=[2], special_ids=[5]).fingerprint,
    }
    assert len(prints) == 4
    assert HFTokenizer(byte_level(), bos_id=1, eos_ids=[2]).fingerprint == gpt.fingerprint


def test_threads_do_not_disturb_each_other(gpt: HFTokenizer) -> None:
    text = "The <|im_end|> fox"
    expected = {flag: gpt.encode(text, parse_special=flag) for flag in (False, True)}
    wrong: list[list[int]] = []

    def work(flag: bool) -> None:
        wrong.extend(ids for _ in range(300) if (ids := gpt.encode(text, parse_special=flag)) != expected[flag])

    threads = [threading.Thread(target=work, args=(flag,)) for flag in (False, True) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("kind", ["gpt", "llama", "spm"])
def test_save_and_load(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    tokenizer: HFTokenizer | SentencePieceTokenizer = request.getfixturevalue(kind)
    tokenizer.encode("<|im_end|>")  # leaves the library object in the other mode
    tokenizer.save(tmp_path / "model")
    again = load_tokenizer(tmp_path / "model")
    assert type(again) is type(tokenizer)
    assert again.fingerprint == tokenizer.fingerprint
    assert (again.bos_id, again.eos_ids, again.vocab_size) == (1, {2}, tokenizer.vocab_size)
    for text in ["The <s> fox <|im_end|>", "Größe"]:
        for flag in (False, True):
            assert again.encode(text, parse_special=flag) == tokenizer.encode(text, parse_special=flag)


def write(directory: Path, **files: object) -> None:
    for name, value in files.items():
        (directory / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")


def test_eos_ids_are_the_union_of_all_files(tmp_path: Path) -> None:
    byte_level().save(str(tmp_path / "tokenizer.json"))
    write(
        tmp_path,
        tokenizer_config={"eos_token": {"content": "<|im_end|>"}, "bos_token": None},
        special_tokens_map={"bos_token": "<|im_start|>"},
        generation_config={"eos_token_id": [0, 2]},
        config={"eos_token_id": 7, "bos_token_id": 1},
    )
    tokenizer = HFTokenizer.from_files(tmp_path)
    assert tokenizer.eos_ids == {0, 2, 7}
    assert tokenizer.bos_id is None
    (tmp_path / "tokenizer_config.json").unlink()
    assert HFTokenizer.from_files(tmp_path).bos_id == 1


def test_gpt2_files(tmp_path: Path, gpt: HFTokenizer) -> None:
    state = json.loads(byte_level().to_str())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(state["vocab"]), encoding="utf-8")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in state["merges"]]
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    write(tmp_path, special_tokens_map={"eos_token": "<|endoftext|>"}, added_tokens={"<new>": len(state["vocab"])})
    tokenizer = load_tokenizer(tmp_path)
    assert isinstance(tokenizer, HFTokenizer)
    assert tokenizer.eos_ids == {0}
    for text in CORPUS:
        assert tokenizer.encode(text) == gpt.encode(text)
    assert tokenizer.encode("<|endoftext|>", parse_special=True) == [0]
    assert 0 not in tokenizer.encode("<|endoftext|>")
    assert tokenizer.encode("<new>") == [len(state["vocab"])]


def test_contradicting_added_token(tmp_path: Path) -> None:
    byte_level().save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, tokenizer_config={"added_tokens_decoder": {"7": {"content": "<|im_end|>", "special": True}}})
    with pytest.raises(TokenizerError, match="contradicts itself"):
        HFTokenizer.from_files(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"model": {"type": "BPE"}}', "[" * 100_000, "\x00" * 99, '{"version": "1.0"}']
)
def test_garbage_tokenizer_json(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json", "config.json"])
@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_garbage_settings(tmp_path: Path, name: str, content: bytes) -> None:
    byte_level().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TokenizerError, match=name):
        load_tokenizer(tmp_path)


def test_strange_values_in_settings_are_ignored(tmp_path: Path) -> None:
    byte_level().save(str(tmp_path / "tokenizer.json"))
    write(
        tmp_path,
        tokenizer_config={"eos_token": 7, "bos_token": "", "added_tokens_decoder": {"x": 1, "-1": {"content": "q"}}},
        generation_config={"eos_token_id": [None, -5, True, "2", 10**30]},
    )
    tokenizer = HFTokenizer.from_files(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (None, frozenset())


def test_mutated_tokenizer_files_only_raise_our_error(tmp_path: Path) -> None:
    source = byte_level().to_str().encode()
    dice = random.Random(0)
    path = tmp_path / "tokenizer.json"
    loaded = 0
    for _ in range(100):
        data = bytearray(source)
        for _ in range(dice.randrange(1, 4)):
            data[dice.randrange(len(data))] = dice.choice(b"0123456789abcdefghij")
        path.write_bytes(data)
        try:
            tokenizer = HFTokenizer.from_files(tmp_path)
        except TokenizerError:
            continue
        loaded += 1
        tokenizer.decode(tokenizer.encode("The fox"))
    assert loaded


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="has no tokenizer"):
        load_tokenizer(tmp_path)
    with pytest.raises(TokenizerError, match="no directory"):
        load_tokenizer(tmp_path / "missing")
    (tmp_path / "vocab.json").write_text("{}", encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"merges\.txt"):
        load_tokenizer(tmp_path)


def test_sentencepiece_agrees_with_the_library(spm: SentencePieceTokenizer, spm_bytes: bytes) -> None:
    library = sentencepiece.SentencePieceProcessor(model_proto=spm_bytes)
    for text in [*CORPUS, "  spaces ", "👍"]:
        assert spm.encode(text) == library.encode(text)
        assert spm.decode(spm.encode(text)) == library.decode(library.encode(text)) == text


def test_sentencepiece_added_tokens(spm: SentencePieceTokenizer) -> None:
    assert spm.vocab_size == 502
    ids = spm.encode("The fox<tool>The fox")
    cut = ids.index(501)
    assert spm.decode(ids[:cut]) == "The fox"
    # Only the start of the text gets the prefix space.
    assert spm.token_bytes(ids[0]).startswith(b" ")
    assert not spm.token_bytes(ids[cut + 1]).startswith(b" ")
    assert spm.decode(ids) == "The fox<tool>The fox"


def test_sentencepiece_hf_files(tmp_path: Path, spm_bytes: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(spm_bytes)
    write(tmp_path, added_tokens={"<|end|>": 400, "<extra>": 401}, special_tokens_map={"eos_token": "<|end|>"})
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.eos_ids == {400}
    assert tokenizer.encode("<|end|><extra>", parse_special=True)[0] == 400
    assert 400 not in tokenizer.encode("<|end|>")
    assert tokenizer.encode("<extra>") == [401]


@pytest.mark.parametrize("data", [b"", b"x", b"\0" * 1_000, bytes(range(256))])
def test_garbage_sentencepiece(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(TokenizerError, match="SentencePiece"):
        SentencePieceTokenizer(data)
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(TokenizerError, match=r"tokenizer\.model"):
        load_tokenizer(tmp_path)


def test_truncated_sentencepiece(spm_bytes: bytes) -> None:
    for end in range(1, len(spm_bytes), 997):
        try:
            SentencePieceTokenizer(spm_bytes[:end]).encode("The fox")
        except TokenizerError:
            continue
