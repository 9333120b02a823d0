"""Constrained decoding: what is written satisfies its constraint, whatever the tokenizer, the sampler and the batch."""

from __future__ import annotations

import functools
import gc
import io
import json
import re
import sys
import time
import weakref
from collections.abc import Sequence

import numpy as np
import pytest
import sentencepiece
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import ToyTokenizer, tiny_config, tiny_engine, tiny_gpt

from nlpkit.core.decode import guide as guides
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.constraint import Constraint
from nlpkit.core.decode.engine import Engine
from nlpkit.core.decode.guide import allowed_masks, check_constraint, start_guide
from nlpkit.core.decode.request import Completion, Request
from nlpkit.core.errors import ConfigError
from nlpkit.core.runners.gpt import GPTRunner
from nlpkit.core.tokenizers.sentencepiece import SentencePieceTokenizer
from nlpkit.core.tokenizers.special_tokens import AddedSpec
from nlpkit.core.tokenizers.tokenizer import Tokenizer
from nlpkit.core.tokenizers.train import train_tokenizer

TEXT = (
    'The quick brown fox jumps over the lazy dog. {"name": "Anna", "age": 37, "tags": ["yes", "no"]} '
    "Über Größe und Maß wird viel gestritten. 日本語の文章です。 positive negative neutral "
) * 3
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 3},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "mood": {"enum": ["gut", "schön", "日本"]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 1},
    },
    "required": ["name", "age", "mood"],
    "additionalProperties": False,
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@functools.cache
def tokenizer_of(kind: str) -> Tokenizer:
    if kind == "toy":
        return ToyTokenizer(27)
    if kind == "bpe":
        return train_tokenizer("bpe", [TEXT], vocab_size=360)
    if kind == "sentencepiece":
        return train_tokenizer("sentencepiece", [TEXT], vocab_size=340)
    # Llama 2's kind: a space in front of every text, which the decoder takes off again, and holes in the ids.
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT] * 3),
        model_writer=model,
        vocab_size=340,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return SentencePieceTokenizer(model.getvalue(), added=[AddedSpec(id=400, content="<|end|>", special=True)])


@functools.cache
def engine_of(kind: str, seed: int = 0) -> Engine:
    tokenizer = tokenizer_of(kind)
    # More logits than tokens, as in models that pad their embedding.
    model = tiny_gpt(tiny_config(vocab_size=tokenizer.vocab_size + 5, max_seq_len=512), seed=seed)
    return Engine(lambda: GPTRunner(model), tokenizer)


KINDS = ("toy", "bpe", "sentencepiece", "llama")
FULL = ("bpe", "sentencepiece", "llama")


def write(
    kind: str, constraint: Constraint, *, model: int = 0, prompt_ids: tuple[int, ...] = (3, 4), **options: object
) -> list[Completion]:
    config = DecodeConfig(**{"max_tokens": 200, **options}, constraint=constraint)  # type: ignore[arg-type]
    ((_, generation),) = engine_of(kind, model).generate([Request(prompt_ids=prompt_ids, config=config)])
    return list(generation.completions)


def test_every_sample_fits() -> None:
    """200 seeds, with all that changes logits."""
    patterns = [r"(ab|cd)+x", r"[a-f]{3,5}z?", r"(yes|no|(maybe ?)+).", r"a(b|c)*d", r"[^x\n]{2}", r"x|"]

    @settings(max_examples=200, deadline=None)
    @given(
        seed=st.integers(0, 2**32),
        kind=st.sampled_from(FULL),
        pattern=st.sampled_from(patterns),
        temperature=st.sampled_from([0.0, 0.7, 1.0, 3.0]),
        top_p=st.sampled_from([0.3, 1.0]),
        top_k=st.sampled_from([0, 1, 5]),
        penalty=st.sampled_from([0.5, 1.0, 1.5]),
        ngram=st.sampled_from([0, 2]),
    )
    def run(
        seed: int, kind: str, pattern: str, temperature: float, top_p: float, top_k: int, penalty: float, ngram: int
    ) -> None:
        (done,) = write(
            kind,
            Constraint.regex(pattern),
            seed=seed,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            repetition_penalty=penalty,
            presence_penalty=0.3,
            no_repeat_ngram=ngram,
        )
        if done.finish_reason == "eos":
            assert re.fullmatch(pattern, done.text), done.text
            assert done.token_ids[-1] in tokenizer_of(kind).eos_ids
        else:
            assert done.finish_reason == "length"
            assert len(done.token_ids) == 200

    run()


def check_against_schema(text: str) -> None:
    value = json.loads(text)
    assert list(value) == [name for name in SCHEMA["properties"] if name in value]  # type: ignore[attr-defined]
    assert {"name", "age", "mood"} <= set(value)
    assert isinstance(value["name"], str)
    assert len(value["name"]) <= 3
    assert isinstance(value["age"], int)
    assert 0 <= value["age"] <= 120
    assert value["mood"] in ("gut", "schön", "日本")
    assert all(isinstance(tag, bool) for tag in value.get("tags", []))
    assert len(value.get("tags", [])) <= 1
    assert "\n" not in text


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(FULL), temperature=st.sampled_from([0.5, 1.0, 2.0]))
def test_every_sample_is_valid_json(seed: int, kind: str, temperature: float) -> None:
    # Side by side eight samples take little longer than one.
    for done in write(kind, Constraint.json_schema(SCHEMA), seed=seed, temperature=temperature, n=8):
        assert done.finish_reason == "eos"
        check_against_schema(done.text)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(FULL), temperature=st.sampled_from([0.0, 1.0, 3.0]))
def test_characters_of_many_tokens(seed: int, kind: str, temperature: float) -> None:
    (done,) = write(kind, Constraint.regex("[äøß日本🙂é]{1,4}"), seed=seed, temperature=temperature)
    assert re.fullmatch("[äøß日本🙂é]{1,4}", done.text)
    assert len(done.token_ids) > len(done.text)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(KINDS))
def test_nested_grammar(seed: int, kind: str) -> None:
    grammar = Constraint.grammar('start: pair\npair: "x" pair "y" | "z" | "w" pair?')
    (done,) = write(kind, grammar, seed=seed, temperature=1.0, max_tokens=60)
    if done.finish_reason == "length":
        return
    text = done.text
    while text not in ("z", "w"):
        if text[0] == "x":
            assert text[-1] == "y"
            text = text[1:-1]
        else:
            assert text[0] == "w"
            text = text[1:]


short = st.text(alphabet=LETTERS[:6], min_size=1, max_size=5)


def is_prefix(options: Sequence[str], data: bytes) -> bool:
    return any(option.encode().startswith(data) for option in options)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text(alphabet='ab é日"\\\n<|', min_size=1, max_size=5), min_size=1, max_size=5, unique=True),
    st.sampled_from(("bpe", "sentencepiece")),
    st.randoms(use_true_random=False),
)
def test_only_what_can_be_completed_is_allowed(options: list[str], kind: str, random: object) -> None:
    """Follow random allowed tokens; each mask lies inside what can become one of the choices, and is never empty."""
    tokenizer = tokenizer_of(kind)
    guide = start_guide(Constraint.choice(*options), tokenizer)
    data = b""
    while True:
        (mask,) = allowed_masks([guide], torch.zeros(1, tokenizer.vocab_size + 3))
        assert mask is not None
        allowed = mask.nonzero()[:, 0].tolist()
        assert allowed
        for token_id in allowed:
            if token_id in tokenizer.eos_ids:
                assert data.decode("utf-8", "replace") in options
            else:
                piece = tokenizer.token_bytes(token_id)
                assert piece
                assert is_prefix(options, data + piece)
        if data.decode("utf-8", "replace") in options:
            assert tokenizer.eos_ids <= set(allowed)
        token_id = random.choice(allowed)  # type: ignore[attr-defined]
        if token_id in tokenizer.eos_ids:
            break
        data += tokenizer.token_bytes(token_id)
        guide.accept(token_id)
    assert data.decode() in options


@settings(max_examples=100, deadline=None)
@given(st.lists(short, min_size=1, max_size=6, unique=True))
def test_all_that_can_be_completed_is_allowed(options: list[str]) -> None:
    """Where each character is a token, the mask is exactly what follows."""
    tokenizer = ToyTokenizer(27)
    for option in options:
        guide = start_guide(Constraint.choice(*options), tokenizer)
        for end in range(len(option) + 1):
            (mask,) = allowed_masks([guide], torch.zeros(1, 27))
            assert mask is not None
            wanted = {ord(o[end]) - 96 for o in options if o[:end] == option[:end] and len(o) > end}
            if option[:end] in options:
                wanted.add(0)
            assert set(mask.nonzero()[:, 0].tolist()) == wanted
            if end < len(option):
                guide.accept(ord(option[end]) - 96)


@pytest.mark.parametrize("prompt_ids", [(1,), (3, 4)])
def test_a_space_that_the_decoder_takes_off(prompt_ids: tuple[int, ...]) -> None:
    """Only behind nothing (1 is bos): there the tokens spell it, the text does not hold it."""
    tokenizer = tokenizer_of("llama")
    for options in (("yes", "no"), (" yes", "  no"), ("yes", " yes")):
        constraint = Constraint.choice(*options)
        got = {}
        for seed in range(30):
            done = write("llama", constraint, seed=seed, temperature=5.0, prompt_ids=prompt_ids)[0]
            got[done.text] = b"".join(map(tokenizer.token_bytes, done.token_ids)).decode()
        assert got == {option: f" {option}" if prompt_ids == (1,) else option for option in options}


def test_a_guide_branches() -> None:
    tokenizer = ToyTokenizer(27)
    start = start_guide(Constraint.choice("ab", "ac"), tokenizer)
    first = start.after(1)
    masks = allowed_masks([start, None, first, first.after(2)], torch.zeros(4, 30))
    assert masks[1] is None
    assert [set(m.nonzero()[:, 0].tolist()) for m in masks if m is not None] == [{1}, {2, 3}, {0}]


def test_constrained_rows_beside_free_ones() -> None:
    engine = engine_of("bpe")
    schema, choice = Constraint.json_schema(SCHEMA), Constraint.choice("positive", "negative", "neutral")
    configs = [
        DecodeConfig(max_tokens=200, temperature=1.0, seed=1, constraint=schema, n=3),
        DecodeConfig(max_tokens=20, temperature=1.0, seed=2),
        DecodeConfig(max_tokens=20, constraint=choice),
        DecodeConfig(max_tokens=30, beam_size=3, n=3, constraint=choice),
        DecodeConfig(max_tokens=12),
    ]
    requests = [Request(prompt_ids=(5 + i,) * (1 + i), config=config) for i, config in enumerate(configs)]
    together = {i: [c.token_ids for c in g.completions] for i, g in engine.generate(requests)}
    for i, request in enumerate(requests):
        ((_, alone),) = engine.generate([request])
        assert together[i] == [completion.token_ids for completion in alone.completions]
    backwards = {i: [c.token_ids for c in g.completions] for i, g in engine.generate(requests[::-1], batch_tokens=300)}
    assert backwards == {len(requests) - 1 - i: ids for i, ids in together.items()}


def test_streamed_text_is_the_same() -> None:
    config = DecodeConfig(max_tokens=200, temperature=1.0, seed=3, constraint=Constraint.json_schema(SCHEMA))
    for kind in FULL:
        pieces = list(engine_of(kind).stream(Request(prompt_ids=(3, 4), config=config)))
        last = pieces[-1].completion
        assert last is not None
        assert "".join(piece.text for piece in pieces) == last.text
        check_against_schema(last.text)


@pytest.mark.parametrize("kind", KINDS)
def test_beams_find_the_best_choices(kind: str) -> None:
    """A wide beam over few choices orders them by their probability under the masked distribution."""
    options = ("positive", "negative", "neutral", "none", "so")
    constraint = Constraint.choice(*options)
    found = write(kind, constraint, beam_size=200, n=5, length_penalty=0.0)
    totals: dict[str, float] = {}
    texts = [completion.text for completion in found]
    for completion in found:
        assert completion.finish_reason == "eos"
        guide = start_guide(constraint, tokenizer_of(kind), prompt_ids=(3, 4))
        model = tiny_gpt(tiny_config(vocab_size=tokenizer_of(kind).vocab_size + 5, max_seq_len=512), seed=0)
        total = 0.0
        for step, token_id in enumerate(completion.token_ids):
            logits = model(torch.tensor([[3, 4, *completion.token_ids[:step]]]))[0, -1]
            (mask,) = allowed_masks([guide], logits[None])
            assert mask is not None
            total += float(torch.log_softmax(logits.masked_fill(~mask, -torch.inf), -1)[token_id])
            if token_id not in tokenizer_of(kind).eos_ids:
                guide.accept(token_id)
        totals[completion.text] = total
        assert completion.score == pytest.approx(total, abs=1e-3)
    assert set(texts) <= set(options)
    if kind == "toy":
        assert set(texts) == set(options)
        assert sum(np.exp(list(totals.values()))) == pytest.approx(1.0, abs=1e-4)


def test_whole_texts_come_before_cut_ones() -> None:
    found = write("toy", Constraint.regex("a+b"), beam_size=4, n=4, max_tokens=6, length_penalty=-1.0)
    reasons = [completion.finish_reason for completion in found]
    assert reasons == sorted(reasons)
    assert reasons[0] == "eos"
    for completion in found:
        assert re.fullmatch("a+b" if completion.finish_reason == "eos" else "a+b?", completion.text)


def test_the_limit_cuts() -> None:
    (done,) = write("toy", Constraint.choice("abcdefgh"), max_tokens=5)
    assert (done.text, done.finish_reason) == ("abcde", "length")


def test_a_minimum_gives_way_to_the_end() -> None:
    (done,) = write("toy", Constraint.choice("abc"), min_tokens=8)
    assert (done.text, done.finish_reason) == ("abc", "eos")
    (longer,) = write("toy", Constraint.regex("a*"), min_tokens=8, logit_bias={0: 90.0})
    assert (longer.text, longer.finish_reason) == ("aaaaaaaa", "eos")


def test_bans_and_biases_go_with_a_constraint() -> None:
    (done,) = write("toy", Constraint.choice("ab", "cd"), logit_bias={1: -100.0})
    assert done.text == "cd"
    with pytest.raises(ConfigError, match="together leave no token"):
        write("toy", Constraint.choice("ab"), logit_bias={1: -100.0})
    only_b = torch.tensor([False, False, True] + [False] * 29)
    request = Request(
        prompt_ids=(1,),
        config=DecodeConfig(max_tokens=3, constraint=Constraint.choice("ab")),
        token_filter=lambda ids: only_b,
    )
    with pytest.raises(ConfigError, match="together leave no token"):
        list(engine_of("toy").generate([request]))


@pytest.mark.parametrize("pattern", ["aBc", "a(B|C)", "Ab", "b?A"])
def test_a_dead_end_is_told(pattern: str) -> None:
    """The toy vocabulary has no capitals."""
    with pytest.raises(ConfigError, match=r"came to a dead end: no token of this model's vocabulary"):
        write("toy", Constraint.regex(pattern), logit_bias={1: 5.0})
    write("toy", Constraint.regex("ab"))
    # Where it is the first token that is missing, before anything runs.
    with pytest.raises(ConfigError, match="dead end"):
        check_constraint(Constraint.regex("A"), tokenizer_of("toy"))


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        (Constraint.regex("("), "unclosed group"),
        (Constraint.regex("a(?=b)"), "look-around"),
        (Constraint.grammar("start: other"), "unknown name"),
        (Constraint.grammar('begin: "a"'), "no start rule"),
        (Constraint.grammar('start: "a'), "lexer error"),
        (Constraint.json_schema({"not": {"type": "string"}}), "Unimplemented"),
        (Constraint.json_schema({"type": "object", "properties": {"a": {"type": "objekt"}}}), "Invalid type"),
        (Constraint.json_schema({"$ref": "#/$defs/x"}), "does not exist"),
    ],
)
def test_what_cannot_be_used_is_told_before_anything_runs(constraint: Constraint, said: str) -> None:
    good = Request(prompt_ids=(1,), config=DecodeConfig(max_tokens=2))
    bad = Request(prompt_ids=(1,), config=DecodeConfig(max_tokens=2, constraint=constraint))
    engine = engine_of("bpe")
    began = time.thread_time()
    with pytest.raises(ConfigError, match=said) as caught:
        engine.generate([good, bad])
    # Others may be at the same engine.
    assert time.thread_time() - began < 1.5
    assert "\n" not in str(caught.value)
    assert f"The {constraint.kind} constraint" in str(caught.value)


def test_constraints_of_some_size_can_be_used() -> None:
    fields = {f"field {i}": {"type": "string", "pattern": f"^[A-Z]{{2,5}}[0-9]{{1,{i + 3}}}$"} for i in range(100)}
    schema = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    for constraint in (
        Constraint.json_schema(schema),
        Constraint.json_schema({"enum": [f"value number {i} of many" for i in range(2000)]}),
        Constraint.choice(*[f"choice number {i} of many" for i in range(2000)]),
        Constraint.regex("([0-9a-f]{4}:){500}[a-z]{1,2000}"),
    ):
        check_constraint(constraint, tokenizer_of("bpe"))


def test_values() -> None:
    choice = Constraint.choice("a", 'é"\n')
    assert choice.options == ("a", 'é"\n')
    assert Constraint.regex("a").options == ()
    config = DecodeConfig(constraint=choice, must_include=(), stop=("x",))
    record = json.loads(json.dumps(config.to_dict()))
    assert record["constraint"] == {"kind": "choice", "text": choice.text}
    assert Constraint.from_dict(record["constraint"]) == choice
    assert config.replace(constraint=None).to_dict()["constraint"] is None
    assert Constraint.json_schema('{"type": "null"}') == Constraint.json_schema({"type": "null"})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Constraint(kind="regexp", text="a"), "Did you mean 'regex'"),  # type: ignore[arg-type]
        (lambda: Constraint.regex(" "), "not blank"),
        (lambda: Constraint.regex("\ud800"), "lone surrogate"),
        (lambda: Constraint.choice(), "one or more"),
        (lambda: Constraint.choice("a", ""), "non-empty"),
        (lambda: Constraint.choice("a", "a"), "different"),
        (lambda: Constraint(kind="choice", text="nonsense"), "no JSON"),
        (lambda: Constraint(kind="choice", text='{"a": 1}'), "one or more"),
        (lambda: Constraint.json_schema("[1]"), "must be a JSON object"),
        (lambda: Constraint.json_schema("{"), "no JSON"),
        (lambda: Constraint.json_schema({"a": {1, 2}}), "cannot be written as JSON"),
        (lambda: Constraint.from_dict({"kind": "regex"}), "'kind' and 'text'"),
        (lambda: DecodeConfig(constraint="a+"), "must be a Constraint"),  # type: ignore[arg-type]
        (lambda: DecodeConfig(constraint=Constraint.regex("a"), ignore_eos=True), "never be complete"),
        (lambda: DecodeConfig(constraint=Constraint.regex("a"), must_include=("a",), beam_size=2), "must_include"),
    ],
)
def test_wrong_values(make: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()  # type: ignore[operator]


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ConfigError, match=r"pip install 'nlpkit\[constrain\]'"):
        tiny_engine(vocab_size=9).check(
            Request(prompt_ids=(1,), config=DecodeConfig(max_tokens=1, constraint=Constraint.regex("a")))
        )


def test_tokenizers_that_cannot_be_constrained() -> None:
    endless = ToyTokenizer(9)
    endless.eos_ids = frozenset()
    with pytest.raises(ConfigError, match="end-of-sequence token"):
        start_guide(Constraint.regex("a"), endless)
    pieces = ToyTokenizer(9)
    pieces.is_concatenative = False  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="bytes of its tokens"):
        start_guide(Constraint.regex("a"), pieces)


def test_compiled_constraints_are_kept_but_not_for_ever() -> None:
    tokenizer = ToyTokenizer(27)
    for i in range(guides.MAX_COMPILED + 20):
        start_guide(Constraint.regex("a" * (i + 1)), tokenizer)
    assert len(guides._vocabularies[tokenizer]._compiled) == guides.MAX_COMPILED
    start_guide(Constraint.regex("ab"), tokenizer)
    with pytest.raises(ConfigError, match="dead end"):
        allowed_masks([start_guide(Constraint.regex("A"), tokenizer)], torch.zeros(1, 27))
    assert (Constraint.regex("A"), False) not in guides._vocabularies[tokenizer]._compiled
    gone = weakref.ref(tokenizer)
    del tokenizer
    gc.collect()
    assert gone() is None


def test_several_ends() -> None:
    """Each end-of-sequence token may end the text, and none of them earlier."""
    tokenizer = ToyTokenizer(27)
    tokenizer.eos_ids = frozenset({0, 26})
    guide = start_guide(Constraint.regex("az?"), tokenizer)
    masks = allowed_masks([guide, guide.after(1)], torch.zeros(2, 27))
    assert [set(mask.nonzero()[:, 0].tolist()) for mask in masks if mask is not None] == [{1}, {0, 26}]
