"""The contract that every task keeps."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.apps.pipeline.result import RESERVED
from nlpkit.apps.tasks.table import load_task, task_names
from nlpkit.apps.tasks.task import BaseTask, Budget, Field, Part, Prediction, check_example
from nlpkit.core.errors import ConfigError, InputError
from nlpkit.eval.metrics.registry import metric_names

EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "translation": [
        {"source": "Hello, {name}!", "target": "Hallo, {name}!", "source_lang": "en", "target_lang": "de"},
        {"source": "Two lines.\nHere.", "target": "Zwei Zeilen.\nHier.", "source_lang": "en", "target_lang": "German"},
        {"source": "“Stop!”", "target": "„Halt!“", "target_lang": "de"},
        {"source": "Translation: yes:", "target": "Übersetzung: ja:", "source_lang": "auto", "target_lang": "de"},
    ],
    "qa": [
        {"context": "Ada was born in 1815. She wrote programs.", "question": "When?", "answers": ["1815"]},
        {"context": "Ada was born in 1815.", "question": "Who was Bob?", "answers": []},
        {"context": "价格是 $3.50，不贵。", "question": "多少钱？", "answers": ["$3.50"]},
    ],
    "summarization": [
        {"document": "It rained. It rained a lot.", "summary": "Rain.", "length": "short"},
        {"document": "It rained. It rained a lot.", "summary": "Line one.\nLine two.", "max_words": 5},
    ],
    "writing": [
        {"prompt": "the sea", "form": form, "text": "Waves\nand waves.", "keywords": ["foam"]}
        for form in ("free", "story", "poem", "haiku", "sonnet", "limerick", "acrostic", "dialogue")
    ],
    "generation": [{"prompt": "Once upon", "text": " a time \n"}],
}
CASES = [(name, example) for name, examples in EXAMPLES.items() for example in examples]
completions = st.one_of(
    st.text(max_size=200),
    st.lists(
        st.sampled_from(
            ["Here is the translation:", "\n", " ", '"', "„", "“", "<think>", "</think>", "<th", "Sure", "**", "Ada",
             "1815", "unanswerable", "Answer:", "Waves", ".", ":", "Title: X", "\u2028", "\r\n", "\x1c", "don't know",
             "x" * 90, "好"]
        ),
        max_size=14,
    ).map("".join),
)  # fmt: skip


def test_all_tasks_are_covered() -> None:
    assert set(EXAMPLES) <= set(task_names())


@pytest.mark.parametrize("name", EXAMPLES)
def test_declarations(name: str) -> None:
    task = load_task(name)
    assert task.name == name
    assert task.version >= 1
    assert task.metrics
    assert set(task.metrics) <= set(metric_names())
    assert all(field.help for field in task.fields)
    assert task.text_field in {field.name for field in task.fields}
    assert task.on_overflow in {"error", "chunk", "truncate"}


@pytest.mark.parametrize(("name", "example"), CASES)
def test_prompts(name: str, example: dict[str, Any]) -> None:
    task = load_task(name)
    check_example(task, example, where="row 1")
    prepared = task.prepare(example)
    assert task.prepare(prepared) == prepared
    first, second = task.prompt(prepared), task.prompt(prepared)
    assert first == second
    assert all(message.content.strip() for message in first)
    assert str(example[task.text_field]).strip() in first[-1].content
    assert all(isinstance(task.max_tokens(prepared, n), int) for n in (1, 100))
    assert task.max_tokens(prepared, 10) <= task.max_tokens(prepared, 100)


@pytest.mark.parametrize(("name", "example"), CASES)
def test_a_target_is_parsed_as_itself(name: str, example: dict[str, Any]) -> None:
    task = load_task(name)
    prepared = task.prepare(example)
    target = task.target(prepared)
    assert target is not None
    prediction = task.parse(target, prepared)
    if name == "qa" and not example["answers"]:
        assert prediction.text == ""
        assert prediction.fields["answerable"] is False
    else:
        assert prediction.text == target
        assert target in task.references(prepared)


@pytest.mark.parametrize(("name", "example"), CASES)
@given(completion=completions)
@settings(max_examples=60, deadline=None)
def test_parsing_never_fails_and_streams_consistently(name: str, example: dict[str, Any], completion: str) -> None:
    task = load_task(name)
    prepared = task.prepare(example)
    prediction = task.parse(completion, prepared)
    assert prediction == task.parse(completion, prepared)
    merged = task.merge([Part(prepared, prediction, -0.5)], prepared)
    if name != "translation":  # which may want one more try, or keep the source
        assert merged.text == prediction.text
    public = {key: value for key, value in merged.fields.items() if not key.startswith("_")}
    json.dumps(public)
    assert not set(public) & RESERVED
    for end in range(len(completion) + 1):
        if task.second_try(completion[:end], prepared, "stop") and task.streams:
            assert task.preview(completion[:end], prepared) == ""
    if task.streams:
        shown = ""
        for end in range(len(completion) + 1):
            preview = task.preview(completion[:end], prepared)
            assert prediction.text.startswith(preview)
            assert preview.startswith(shown) or not preview
            shown = max(shown, preview, key=len)


@pytest.mark.parametrize(("name", "example"), CASES)
@given(text=st.text(max_size=150), budget=st.integers(5, 60))
@settings(max_examples=30, deadline=None)
def test_splitting_loses_nothing(name: str, example: dict[str, Any], text: str, budget: int) -> None:
    task = load_task(name)
    prepared = {**task.prepare(example), task.text_field: text}
    chunks = task.split(prepared, Budget(count_tokens=len, max_prompt_tokens=budget))
    texts = [str(chunk[task.text_field]) for chunk in chunks]
    if name == "translation":
        # What is asked may be lowered; a model that copies gives back the text itself.
        example_left: dict[str, Any] | None = prepared
        while example_left is not None:
            asked = task.split(example_left, Budget(count_tokens=len, max_prompt_tokens=budget))
            parts = [Part(chunk, Prediction(str(chunk["source"])), -0.1) for chunk in asked]
            merged = task.merge(parts, example_left)
            example_left = task.reduce(merged, example_left)
        assert merged.text.casefold() == text.casefold()
    elif name == "qa":
        covered = 0
        for chunk in chunks:
            offset = chunk.get("_offset", 0)
            assert offset <= covered
            assert text[offset : offset + len(chunk["context"])] == chunk["context"]
            covered = max(covered, offset + len(chunk["context"]))
        assert covered == len(text) or not text.strip()
    else:
        assert "".join("".join(texts).split()) == "".join(text.split())


def test_rows_are_checked() -> None:
    task = load_task("translate")
    good = {"source": "Hi", "target_lang": "de"}
    check_example(task, {**good, "glossary": {"a": "b"}}, where="x:1")
    for bad, words in (
        ({"target_lang": "de"}, "no 'source'"),
        ({**good, "source": " "}, "empty"),
        ({**good, "source": 3}, "must be a string"),
        ({**good, "references": "one"}, "list of strings"),
        ({**good, "glossary": {"a": 1}}, "object of strings"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            check_example(task, bad, where="x:1")
        assert str(caught.value).startswith("x:1: ")
    summarization = load_task("summarize")
    check_example(summarization, {"document": "x", "max_words": "12"}, where="x:1")
    with pytest.raises(InputError, match="whole number"):
        check_example(summarization, {"document": "x", "max_words": "many"}, where="x:1")


def test_unknown_tasks_get_a_hint() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'translation'"):
        load_task("translatoin")


def test_the_base_task_needs_little() -> None:
    class Echo(BaseTask):
        name = "echo"
        fields = (Field("text", help="any"),)
        metrics = ("exact_match",)

    task = Echo()
    assert task.prepare({"text": "x"}) == {"text": "x"}
    assert task.parse(" a ", {}).text == "a"
    assert task.merge([], {}).text == ""
    assert task.target({}) is None
    assert task.frame({}) is None
