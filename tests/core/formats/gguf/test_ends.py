"""What GGUF files leave unsaid about their tokens: which end a text, which are text, which swallow white space."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece

from nlpkit.apps.tasks.encoder import PromptEncoder
from nlpkit.core.chat.message import Message
from nlpkit.core.chat.template import ChatTemplate
from nlpkit.core.errors import TokenizerError
from nlpkit.core.formats.gguf.export_vocabulary import tokenizer_metadata
from nlpkit.core.tokenizers.bpe import HFTokenizer
from nlpkit.core.tokenizers.gguf_vocab import ENDS, build_tokenizer
from nlpkit.core.tokenizers.sentencepiece import SentencePieceTokenizer
from nlpkit.core.tokenizers.special_tokens import AddedSpec
from nlpkit.core.tokenizers.spm_model import PieceType
from nlpkit.core.tokenizers.tokenizer_json import byte_to_char

BYTES = [*byte_to_char()]


def byte_level(special: list[str], kind: PieceType = PieceType.CONTROL, **more: Any) -> dict[str, Any]:
    tokens = [*BYTES, "ab", *special]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array([1] * 257 + [kind] * len(special), np.int32),
        "tokenizer.ggml.merges": ["a b"],
        **{f"tokenizer.ggml.{key}": value for key, value in more.items()},
    }


def spm(extra: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the queen lays eggs in a day and the hive is warm and full of honey"] * 3),
        model_writer=out, vocab_size=300, model_type="bpe", byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
        normalization_rule_name="identity", remove_extra_whitespaces=False, unk_id=0, bos_id=1, eos_id=2, num_threads=1,
    )  # fmt: skip
    model = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    ids = range(model.vocab_size())
    types = [2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1 for i in ids]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [*map(model.id_to_piece, ids), *extra],
        "tokenizer.ggml.token_type": np.array([*types, *[3] * len(extra)], np.int32),
        "tokenizer.ggml.scores": np.array([*map(model.get_score, ids), *[-1e3] * len(extra)], np.float32),
        **{key if key.startswith("general.") else f"tokenizer.ggml.{key}": value for key, value in more.items()},
    }


def build(values: dict[str, Any]) -> Any:
    return build_tokenizer(values, vocab_size=2000, source="x.gguf")


@pytest.mark.parametrize("kind", [PieceType.CONTROL, PieceType.NORMAL, PieceType.USER_DEFINED])
@pytest.mark.parametrize("spelling", sorted(ENDS))
def test_every_known_end_ends_whatever_its_type(spelling: str, kind: PieceType, tmp_path: Path) -> None:
    tokenizer = build(byte_level(["<|start|>", spelling], kind, eos_token_id=257))
    assert tokenizer.eos_ids == {257, 258}
    assert tokenizer.token_bytes(258) == b""
    assert 258 not in tokenizer.encode(f"a{spelling}b")
    assert tokenizer.decode(tokenizer.encode(f"a{spelling}b")) == f"a{spelling}b"
    assert tokenizer.encode(f"a{spelling}", parse_special=True)[-1] == 258
    # What a text ends with is still what the file says, also in what is made of it.
    assert PromptEncoder(tokenizer, None).end_id(chat=False) == 257
    tokenizer = build(byte_level([spelling, "<|start|>"], kind, eos_token_id=258))
    tokenizer.save(tmp_path)
    back = HFTokenizer.from_files(tmp_path)
    assert back.eos_ids == tokenizer.eos_ids == {257, 258}
    assert [PromptEncoder(one, None).end_id(chat=False) for one in (tokenizer, back)] == [258, 258]
    assert tokenizer_metadata(tokenizer, vocab_size=259, chat=None)["tokenizer.ggml.eos_token_id"] == 258


@pytest.mark.parametrize("pair", [("<|return|>", "<|call|>"), ("<|calls|>", "<|flush|>")])
def test_the_end_of_a_message_of_several_ends_no_text(pair: tuple[str, str]) -> None:
    assert build(byte_level(["<|end|>", *pair], eos_token_id=258)).eos_ids == {258, 259}
    assert build(byte_level(["<|end|>", *pair], eos_token_id=257)).eos_ids == {257, 258, 259}
    assert build(byte_level(["<|end|>", pair[0]], eos_token_id=258)).eos_ids == {257, 258}


def test_sentencepiece_files_that_name_no_ids_mean_llama_s() -> None:
    tokenizer = build(spm())
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.eos_id) == (1, {2}, 2)
    values = spm()
    values["tokenizer.ggml.token_type"][1:3] = PieceType.NORMAL
    tokenizer = build(values)
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (1, {2})
    assert not {1, 2} & set(tokenizer.encode("<s>a</s>"))
    assert tokenizer.decode([*tokenizer.encode("the"), 2]) == "the"
    assert build(byte_level([])).eos_ids == frozenset()


@pytest.mark.parametrize("key", ["padding", "unknown", "eot", "eom"])
def test_ids_out_of_range_that_a_tokenizer_can_do_without_are_left_out(key: str) -> None:
    tokenizer = build(byte_level(["<|im_end|>"], eos_token_id=257, **{f"{key}_token_id": 99999}))
    assert tokenizer.eos_ids == {257}
    assert len(tokenizer.notes) == 1
    assert f"{key}_token_id" in tokenizer.notes[0]
    for needed in ("eos", "bos"):
        with pytest.raises(TokenizerError, match="99999"):
            build(byte_level([], **{f"{needed}_token_id": 99999}))


def test_empty_pieces_of_sentencepiece_files_are_never_used() -> None:
    values = spm(("", "", "<|x|>"))
    n = len(values["tokenizer.ggml.tokens"])
    values["tokenizer.ggml.token_type"][n - 3 : n - 1] = PieceType.NORMAL
    tokenizer = build(values)
    assert tokenizer.vocab_size == n
    assert tokenizer.encode("the<|x|>", parse_special=True)[-1] == n - 1
    for text in (f"[EMPTY_{n - 3}]", "the queen"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert not {n - 3, n - 2} & set(tokenizer.encode(text))


PHI = ("<|endoftext|>", "<|assistant|>", "<|end|>", "<|user|>")
TEMPLATE = (
    "{% for m in messages %}{{'<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n'}}{% endfor %}<|assistant|>\n"
)


@pytest.mark.parametrize(
    "named",
    [
        {"general.name": "Phi3"},
        {"general.name": "Phi-3.5-mini-instruct"},
        {"general.name": "A Phi-3 of mine", "general.architecture": "llama"},
        {"general.name": "tuned", "general.architecture": "phi3"},
    ],
)
def test_phi_3_swallows_white_space_behind_its_tokens(named: dict[str, str], tmp_path: Path) -> None:
    tokenizer = build(spm(PHI, **named))
    messages = [Message("user", "the"), Message("assistant", " \n"), Message("user", "hive <|end|>\n")]
    ids = ChatTemplate(TEMPLATE).render_tokens(messages[:1], tokenizer)
    assert [tokenizer.id_to_token(i) for i in ids] == ["<|user|>", "▁the", "<|end|>", "<|assistant|>"]
    ids = ChatTemplate(TEMPLATE).render_tokens(messages, tokenizer)
    assert [tokenizer.id_to_token(i) for i in ids[:6]] == [
        "<|user|>", "▁the", "<|end|>", "<|assistant|>", "<|end|>", "<|user|>",
    ]  # fmt: skip
    assert tokenizer.decode(ids[6:-2]) == "hive <|end|>\n"
    # Not behind the end of a text, as in the original tokenizer.
    assert tokenizer.encode("<|endoftext|>\n", parse_special=True)[1:] != []
    tokenizer.save(tmp_path)
    back = SentencePieceTokenizer.from_files(tmp_path)
    assert ChatTemplate(TEMPLATE).render_tokens(messages, back) == ids


def test_other_models_keep_white_space() -> None:
    tokenizer = build(spm(PHI, **{"general.name": "Llama", "general.architecture": "llama"}))
    ids = tokenizer.encode("<|user|>\nthe", parse_special=True)
    assert [tokenizer.id_to_token(i) for i in ids[:3]] == ["<|user|>", "▁", "<0x0A>"]


def test_phi_s_byte_level_tokens_swallow_too() -> None:
    tokenizer = build({**byte_level(["<|user|>"]), "general.name": "phi-3-small"})
    assert tokenizer.encode("<|user|> \n ab", parse_special=True) == [257, 256]


def test_flags_of_added_tokens() -> None:
    values = spm()
    base = build(values)
    n = base.vocab_size
    added = [
        AddedSpec(id=n, content="<l>", special=True, lstrip=True),
        AddedSpec(id=n + 1, content="<r>", special=True, rstrip=True),
        AddedSpec(id=n + 2, content="WORD", special=False, single_word=True),
    ]
    tokenizer = SentencePieceTokenizer(base._proto, bos_id=1, eos_ids=[2], added=added)
    the, day = base.encode("the"), base.encode("day", at_start=False)
    assert tokenizer.encode("the \n<l>day", parse_special=True) == [*the, n, *day]
    assert tokenizer.encode("the<r> \n day", parse_special=True) == [*the, n + 1, *day]
    assert n + 2 in tokenizer.encode("the WORD day")
    for text in ("the SWORD day", "WORDS", "_WORD", "1WORD"):
        assert n + 2 not in tokenizer.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text
    plain = [AddedSpec(id=spec.id, content=spec.content, special=spec.special) for spec in added]
    assert SentencePieceTokenizer(base._proto, added=plain).fingerprint != tokenizer.fingerprint
