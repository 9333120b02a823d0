"""What stands behind a prompt is tokenized as what continues it, in training, asking and scoring alike."""

from __future__ import annotations

import pytest
from spaced_tokenizers import ALL, TEXT, spm

from nlpkit.apps.tasks.encoder import EVERY, PromptEncoder
from nlpkit.apps.tasks.generation import TextGeneration
from nlpkit.apps.tasks.table import load_task
from nlpkit.core.chat.template import ChatTemplate
from nlpkit.core.tokenizers.tokenizer import encode_behind

PAIRS = [("the queen lays", " eggs"), ("the queen", " lays  eggs"), ("qu", "een lays"), ("the hive\n", "is warm")]
EXAMPLE = {"source": "the queen", "target": "die", "source_lang": "en", "target_lang": "de"}


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("add_bos", [True, False])
def test_prompt_and_continuation_are_tokenized_as_one_text(kind: str, add_bos: bool) -> None:
    tokenizer = ALL[kind]()
    for prompt, text in PAIRS:
        ids = tokenizer.encode(prompt, add_bos=add_bos)
        whole = tokenizer.encode(prompt + text, add_bos=add_bos)
        if kind in ("prepend", "always", "first", "never") or text[0] == " " or prompt[-1] == "\n":
            assert [*ids, *encode_behind(tokenizer, ids, text)] == whole
        assert b"".join(map(tokenizer.token_bytes, encode_behind(tokenizer, ids, text))) == text.encode()
    assert encode_behind(tokenizer, [1], TEXT) == encode_behind(tokenizer, [], TEXT) == tokenizer.encode(TEXT)


@pytest.mark.parametrize("kind", ALL)
def test_behind_a_special_token(kind: str) -> None:
    tokenizer = ALL[kind]()
    whole = tokenizer.encode("the</s>eggs", parse_special=True)
    prompt = tokenizer.encode("the</s>", parse_special=True)
    assert [*prompt, *encode_behind(tokenizer, prompt, "eggs")] == whole


@pytest.mark.parametrize("kind", ["sentencepiece", "without_prefix", "prepend", "first"])
@pytest.mark.parametrize("short", [True, False])
def test_training_asking_and_scoring_agree(kind: str, short: bool) -> None:
    tokenizer = ALL[kind]()
    task = load_task("translation")
    encoder = PromptEncoder(tokenizer, None, EVERY if short else frozenset())
    ids, length = encoder.lesson(task, EXAMPLE, "x")
    prepared = task.prepare(EXAMPLE)
    assert ids[:length] == encoder.prompt(task, prepared)
    target = encoder.target(encoder.ask(task, prepared), "die")
    assert ids[length:-1] == target
    assert b"".join(map(tokenizer.token_bytes, target)) == (b" die" if short else b"die")


def test_completions_learn_one_space() -> None:
    tokenizer = spm()
    ids, _ = PromptEncoder(tokenizer, None).lesson(TextGeneration(), {"prompt": "the queen lays", "text": " eggs"}, "x")
    assert ids == [1, *tokenizer.encode("the queen lays eggs"), 2]


def test_without_a_dummy_prefix_nothing_changes() -> None:
    tokenizer = spm(add_dummy_prefix=False)
    ids, length = PromptEncoder(tokenizer, None, EVERY).lesson(load_task("translation"), EXAMPLE, "x")
    assert ids[length:-1] == tokenizer.encode(" die") == tokenizer.encode(" die", at_start=False)


def test_chat_prompts() -> None:
    tokenizer = spm()
    chat = ChatTemplate("{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}")
    ids, length = PromptEncoder(tokenizer, chat).lesson(load_task("translation"), EXAMPLE, "x")
    assert b"".join(map(tokenizer.token_bytes, ids[length:-1])) == b"die"
