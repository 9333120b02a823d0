"""The tasks from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import nlpkit
from nlpkit.apps.pipeline.result import TaskResult
from nlpkit.apps.toolkit import Toolkit
from nlpkit.core.errors import ConfigError, InputError


@pytest.fixture
def toolkit(fake_lm) -> Toolkit:
    return Toolkit(fake_lm(lambda prompt, _: "1815" if "Question" in prompt else "Some words."))


def test_each_task_is_a_method(toolkit: Toolkit) -> None:
    assert nlpkit.Toolkit is Toolkit
    assert str(toolkit.translate("Hello there", target_lang="German", source_lang="en")) == "Some words."
    assert str(toolkit.summarize("Bees live in colonies. And more.", max_words=4)) == "Bees live in colonies."
    assert str(toolkit.summarize("A long text. And more of it.", max_words=9, mode="abstractive")) == "Some words."
    assert str(toolkit.answer("When?", "It was in 1815.")) == "1815"
    assert toolkit.qa("When?", "It was in 1815.").fields["start"] == 10
    assert toolkit.write("the sea", form="poem", seed=7).seed == 7
    assert str(toolkit.generate("Once")) == "Some words."
    assert toolkit.generate("Once", options={"max_tokens": 1}).finish_reason == "length"


def test_lists_give_lists(toolkit: Toolkit) -> None:
    results = toolkit.translate(["Hello", "World"], target_lang="de", source_lang="en")
    assert [type(result) for result in results] == [TaskResult, TaskResult]
    assert [result.text for result in toolkit.answer(("When?", "What year?"), "In 1815.")] == ["1815", "1815"]
    assert toolkit.summarize([]) == []


def test_rows_and_streams(toolkit: Toolkit) -> None:
    (result,) = toolkit.run("generate", [{"prompt": "x"}], options={"seed": 1})
    assert result.text == "Some words."
    pieces: list[Any] = list(toolkit.stream("write", {"prompt": "x"}))
    assert "".join(pieces[:-1]) == pieces[-1].text


def test_a_document_is_translated_into_another_file(fake_lm: Any, tmp_path: Path) -> None:
    toolkit = Toolkit(fake_lm(lambda prompt, _: "Das Boot ist alt."))
    source, output = tmp_path / "page.md", tmp_path / "page.de.md"
    source.write_text("# The boat is old.\n\n```sh\nrow fast\n```\n")
    done = toolkit.translate_document(source, "German", output=output, source_lang="en")
    assert output.read_bytes() == done.data == b"# Das Boot ist alt.\n\n```sh\nrow fast\n```\n"
    assert done.translation.sentences == 1
    assert toolkit.translate_document(source, "de", source_lang="en").data == done.data
    (tmp_path / "package.json").write_text('{"name": "The boat"}')
    with pytest.raises(InputError, match="must not be translated"):
        toolkit.translate_document(tmp_path / "package.json", "de", output=tmp_path / "no.json")
    assert not (tmp_path / "no.json").exists()


def test_mistakes(toolkit: Toolkit) -> None:
    with pytest.raises(InputError, match="must be a string"):
        toolkit.summarize(3)  # type: ignore[call-overload]
    with pytest.raises(InputError, match="empty"):
        toolkit.summarize(" ")
    with pytest.raises(ConfigError, match="Did you mean"):
        toolkit.write("x", options={"temprature": 1.0})
    with pytest.raises(ConfigError, match="no language"):
        toolkit.translate("x", target_lang="klingon!")
