"""The contract that every task keeps."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.apps.pipeline.result import RESERVED
from nlpkit.apps.tasks.rows import check_row, like_of, read_completion, resolve_aliases
from nlpkit.apps.tasks.table import TASKS, load_task, task_names
from nlpkit.apps.tasks.task import (
    Chunk,
    ChunkResult,
    Field,
    Lack,
    Learned,
    Prediction,
    Prompt,
    Row,
    Splits,
    Target,
    Task,
    TextBudget,
    as_splits,
    check_task,
    value_of,
)
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
    "classification": [
        {"text": "My card was lost.", "labels": ["card", "weather"], "label": "card"},
        {"text": "It rains.", "label": "weather"},
    ],
    "sentiment": [
        {"text": "Good film.", "label": "positive"},
        {"text": "Bad.", "labels": ["no", "yes"], "label": "no"},
    ],
    "generation": [{"prompt": "Once upon", "text": " a time \n"}],
    "chat": [{"prompt": "Hello!", "text": " Hi \n"}],
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
    assert set(EXAMPLES) == set(TASKS) <= set(task_names())


@pytest.mark.parametrize("name", EXAMPLES)
def test_declarations(name: str) -> None:
    task = load_task(name)
    assert task.name == name
    assert task.version >= 1
    assert task.metrics
    assert set(task.metrics) <= set(metric_names())
    assert all(field.help for field in task.fields)
    assert task.text_field in {field.name for field in task.fields}
    check_task(task, where=name)
    assert not [field.name for field in task.fields if field.required and field.role == "reference"]


@pytest.mark.parametrize(("name", "example"), CASES)
def test_prompts(name: str, example: dict[str, Any]) -> None:
    task = load_task(name)
    check_row(task, example, where="row 1")
    prepared = task.prepare(example)
    first, second = task.prompt(prepared), task.prompt(prepared)
    assert first == second
    assert all(message.content.strip() for message in first.messages)
    assert str(example[task.text_field]).strip() in first.messages[-1].content
    assert task.text(prepared) == example[task.text_field]
    assert task.text(task.with_text(prepared, "other")) == "other"
    assert task.with_text(task.with_text(prepared, "other"), task.text(prepared)) == prepared
    for learned in (None, Learned()):
        decoding = task.decoding(prepared, learned=learned)
        assert 0 < decoding.limit(10) <= decoding.limit(100)
    assert task.lack(prepared, Learned()) is None


@pytest.mark.parametrize(("name", "example"), CASES)
def test_nothing_is_smuggled_in_notes(name: str, example: dict[str, Any]) -> None:
    """What a task knows of an example has a field: neither its example nor its prediction has private keys."""
    task = load_task(name)
    prepared = task.prepare(example)
    known = {field.name for field in task.fields}
    assert not isinstance(prepared, dict) or set(prepared) <= known
    fields = read_completion(task, "Ada", prepared).fields
    assert not [key for key in fields if key.startswith("_")]


@pytest.mark.parametrize(("name", "example"), CASES)
def test_a_target_is_parsed_as_itself(name: str, example: dict[str, Any]) -> None:
    task = load_task(name)
    prepared = task.prepare(example)
    target = task.target(prepared)
    assert target is not None
    prediction = read_completion(task, target.text, prepared)
    if name == "qa" and not example["answers"]:
        assert prediction.text == ""
        assert prediction.fields["answerable"] is False
        assert target.accepted == ()
    else:
        assert prediction.text == target.text
        assert target.text in target.accepted


@pytest.mark.parametrize(("name", "example"), CASES)
@given(completion=completions)
@settings(max_examples=60, deadline=None)
def test_parsing_never_fails_and_streams_consistently(name: str, example: dict[str, Any], completion: str) -> None:
    task = load_task(name)
    prepared = task.prepare(example)
    prediction = read_completion(task, completion, prepared)
    assert prediction == read_completion(task, completion, prepared)
    merged = prediction
    splits = as_splits(task)
    if splits is not None and name != "translation":  # which may want one more try, or keep the source
        merged = splits.merge([ChunkResult(Chunk(prepared), prediction, -0.5)], prepared, learned=None)
        assert merged.text == prediction.text
    json.dumps(dict(merged.fields))
    assert not set(merged.fields) & RESERVED
    cleaning, like = task.cleaning, like_of(task, prepared)
    shown = ""
    for end in range(len(completion) + 1):
        preview = cleaning.preview(completion[:end], like=like)
        if cleaning.ended_too_soon(completion[:end], "stop", like=like):
            # Nothing of what is tried again was shown.
            assert not cleaning.shows or preview == ""
        if cleaning.shows:
            assert prediction.text.startswith(preview)
            assert preview.startswith(shown) or not preview
            shown = max(shown, preview, key=len)


@pytest.mark.parametrize(("name", "example"), [case for case in CASES if as_splits(load_task(case[0])) is not None])
@given(text=st.text(max_size=150), budget=st.integers(5, 60))
@settings(max_examples=30, deadline=None)
def test_splitting_loses_nothing(name: str, example: dict[str, Any], text: str, budget: int) -> None:
    task = as_splits(load_task(name))
    assert task is not None
    room = TextBudget(count_tokens=len, max_prompt_tokens=budget)
    prepared = task.with_text(task.prepare(example), text)
    chunks = task.split(prepared, room, learned=None)
    if name == "translation":
        # What is asked may be lowered; a model that copies gives back the text itself.
        following: Any = prepared
        while following is not None:
            prepared = following
            asked = task.split(prepared, room, learned=None)
            results = [ChunkResult(chunk, Prediction(task.text(chunk.example)), -0.1) for chunk in asked]
            following = task.reduce(results, prepared, learned=None, user_options={})
        assert task.merge(results, prepared, learned=None).text.casefold() == text.casefold()
    elif name == "qa":
        covered = 0
        for chunk in chunks:
            context = task.text(chunk.example)
            assert chunk.offset <= covered
            assert text[chunk.offset : chunk.offset + len(context)] == context
            covered = max(covered, chunk.offset + len(context))
        assert covered == len(text) or not text.strip()
    else:
        texts = [task.text(chunk.example) for chunk in chunks]
        assert "".join("".join(texts).split()) == "".join(text.split())


def test_rows_are_checked() -> None:
    task = load_task("translate")
    good = {"source": "Hi", "target_lang": "de"}
    check_row(task, {**good, "glossary": {"a": "b"}}, where="x:1")
    for bad, words in (
        ({"target_lang": "de"}, "no 'source'"),
        ({**good, "source": " "}, "empty"),
        ({**good, "source": 3}, "must be a string"),
        ({**good, "references": "one"}, "list of strings"),
        ({**good, "glossary": {"a": 1}}, "object of strings"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            check_row(task, bad, where="x:1")
        assert str(caught.value).startswith("x:1: ")
    summarization = load_task("summarize")
    check_row(summarization, {"document": "x", "max_words": "12"}, where="x:1")
    with pytest.raises(InputError, match="whole number"):
        check_row(summarization, {"document": "x", "max_words": "many"}, where="x:1")


def test_unknown_tasks_get_a_hint() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'translation'"):
        load_task("translatoin")


class Echo(Task[Row]):
    name = "echo"
    fields = (
        Field("text", help="any", aliases=("body", "words")),
        Field("tone", required=False, role="option", help="how"),
    )
    metrics = ("exact_match",)

    def prompt(self, example: Row) -> Prompt:
        return Prompt(str(example["text"]))


def test_a_task_needs_little() -> None:
    task = Echo()
    assert task.prepare({"text": "x"}) == {"text": "x"}
    assert read_completion(task, " a ", {}).text == "a"
    assert task.target({}) is None
    assert as_splits(task) is None
    assert check_task(task, where="echo.py") is task
    assert Target("a").accepted == ("a",)
    assert Target("a", ()).accepted == ()


def test_what_was_learned_is_compared_by_the_names_of_options() -> None:
    task, learned = Echo(), Learned(({"tone": "dry"}, {"tone": "warm"}))
    assert task.lack({"text": "x", "tone": "warm"}, learned) is None
    assert task.lack({"text": "x"}, learned) is None
    assert task.lack({"text": "x", "tone": "loud"}, learned) == Lack("learned the tones dry, warm, not loud")
    assert task.lack({"text": "x", "tone": "loud"}, Learned(({"other": "dry"},))) is None


def test_other_names_of_columns() -> None:
    fields = Echo().fields
    assert resolve_aliases(fields, {"body": "x"})["text"] == "x"
    assert resolve_aliases(fields, {"text": "y", "body": "x"})["text"] == "y"
    assert "text" not in resolve_aliases(fields, {"body": "x", "words": "y"})
    assert "text" not in resolve_aliases(fields, {"body": 3})
    assert value_of({"text": "x"}, "tone") is None


def test_chunks_are_joined_with_what_stood_around_them() -> None:
    class Whole(Splits[Row]):
        name = "whole"

    results = [
        ChunkResult(Chunk({}, before="- "), Prediction("a"), -1.0),
        ChunkResult(Chunk({}, before="\n- ", after="."), Prediction("b"), -1.0),
    ]
    assert Whole().merge(results, {}, learned=None).text == "- a\n- b."


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (object(), "is no task: it must be a subclass of nlpkit.Task"),
        (type("NoName", (Echo,), {"name": ""})(), "has no name"),
        (type("NoText", (Echo,), {"fields": (Field("a", role="option"),)})(), "no field with the role text"),
    ],
)
def test_what_is_no_task_is_refused(task: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_task(task, where="x.py")
