"""Summarization: lengths, pieces, rounds."""

from __future__ import annotations

import re
from typing import Any

import pytest

from nlpkit.apps.pipeline.run import run_task, stream_task
from nlpkit.apps.tasks.summarization import Summarization
from nlpkit.apps.text.words import count_words
from nlpkit.core.errors import ConfigError, ContextOverflowError, InputError, NlpkitError

DOCUMENT = "\n\n".join(f"Paragraph {n} tells of many things. It goes on about them for a while." for n in range(120))


def summarize(fake_lm: Any, document: str = DOCUMENT, reply: Any = lambda *_: "A short summary.", **row: Any) -> Any:
    lm = fake_lm(reply, max_seq_len=row.pop("max_seq_len", 4000))
    (result,) = run_task(lm, Summarization(), [{"document": document, **row}])
    return result, lm


def test_a_short_document_takes_one_prompt(fake_lm) -> None:
    result, lm = summarize(fake_lm, "It rained all day. The streets were wet and people stayed inside.", length="short")
    assert result.text == "A short summary."
    assert lm.prompts[0].startswith("<user>Summarize this text in one sentence.\n\nIt rained")
    assert lm.requests[0].config.max_tokens == 64
    assert result.fields == {
        "mode": "abstractive",
        "document_words": 12,
        "summary_words": 3,
        "compression": 0.25,
        "rounds": 1,
    }


def test_a_long_document_is_summarized_in_pieces_then_as_a_whole(fake_lm) -> None:
    result, lm = summarize(fake_lm, max_seq_len=800)
    assert result.chunks > 3
    assert result.fields["rounds"] == 2
    assert result.text == "A short summary."
    assert result.fields["document_words"] == count_words(DOCUMENT)
    seen = {int(number) for prompt in lm.prompts[: result.chunks] for number in re.findall(r"Paragraph (\d+)", prompt)}
    assert seen == set(range(120))
    assert len(lm.prompts) == result.chunks + 1
    assert lm.prompts[-1].count("A short summary.") == result.chunks
    assert result.to_dict()["chunks"] == result.chunks
    assert "_parts" not in result.to_dict()


def test_rounds_end_even_if_summaries_do_not_shrink(fake_lm) -> None:
    result, lm = summarize(fake_lm, reply=lambda prompt, _: prompt, max_seq_len=800)
    assert result.text
    assert len(lm.prompts) < 500


def test_streaming_shows_the_last_round_only(fake_lm) -> None:
    lm = fake_lm(lambda *_: "A rather short summary.", max_seq_len=800)
    pieces = list(stream_task(lm, Summarization(), {"document": DOCUMENT}))
    assert "".join(pieces[:-1]) == pieces[-1].text == "A rather short summary."
    assert pieces[-1].fields["rounds"] == 2


def test_overflow_can_be_refused(fake_lm) -> None:
    with pytest.raises(ContextOverflowError, match="--on-overflow chunk"):
        list(
            run_task(
                fake_lm(lambda *_: "x", max_seq_len=800), Summarization(), [{"document": DOCUMENT}], on_overflow="error"
            )
        )


def test_lengths_in_words(fake_lm) -> None:
    result, lm = summarize(fake_lm, "Many words stand here. " * 5, max_words=2)
    assert "in at most 2 words" in lm.prompts[0]
    assert any("3 words, 2 were asked for" in warning for warning in result.warnings)
    result, _ = summarize(fake_lm, "Many words stand here. " * 5, max_words="3")
    assert result.warnings == ()


@pytest.mark.parametrize(
    ("row", "error", "match"),
    [
        ({"length": "shrt"}, ConfigError, "Did you mean 'short'"),
        ({"length": "short", "max_words": 5}, ConfigError, "not both"),
        ({"max_words": 0}, InputError, "1 to 10,000"),
        ({"max_words": "some"}, InputError, "whole number"),
        ({"document": " "}, InputError, "empty"),
    ],
)
def test_bad_options(fake_lm, row: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        summarize(fake_lm, **{"document": "x", **row})


def test_summaries_that_do_not_shorten_are_flagged(fake_lm) -> None:
    result, _ = summarize(fake_lm, "It rained.")
    assert any("no shorter" in warning for warning in result.warnings)


def test_words_are_counted_in_all_scripts() -> None:
    assert count_words("one two, three – four") == 4
    assert count_words("我们 go 公园") == 5
    assert count_words("") == 0


MEETING = (
    "Good morning. The council met on Monday and decided to close the old bridge for nine months. The repairs of the "
    "bridge cost two million euros. Some members asked for a second bridge. It rained."
)


def test_an_extract_is_made_of_sentences_of_the_text(fake_lm) -> None:
    result, lm = summarize(fake_lm, MEETING, mode="extractive", sentences=2)
    assert lm.requests == []
    assert result.fields["mode"] == "extractive"
    places = result.fields["sentences"]
    assert [MEETING[one["start"] : one["end"]] for one in places] == [one["text"] for one in places]
    assert result.text == " ".join(one["text"] for one in places)
    assert len(places) == 2
    assert result.fields["document_words"] == count_words(MEETING)


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        ({"length": "short"}, lambda text, places: len(places) == 1),
        ({}, lambda text, places: len(places) == 3),
        ({"max_words": 14}, lambda text, places: count_words(text) <= 14),
        ({"sentences": 99}, lambda text, places: text == MEETING),
        ({"max_words": 500}, lambda text, places: text == MEETING),
    ],
)
def test_an_extract_is_as_long_as_asked(fake_lm, row: dict[str, Any], kept: Any) -> None:
    result, _ = summarize(fake_lm, MEETING, mode="extractive", **row)
    assert kept(result.text, result.fields["sentences"])
    assert not result.warnings


@pytest.mark.parametrize(
    ("layout", "lines"),
    [
        (["bullets"], ["- The bridge is closed.", "- It is old."]),
        (["cited"], ["The bridge is closed. (line 1)", "It is old. (line 3)"]),
        (["bullets", "cited"], ["- The bridge is closed. (line 1)", "- It is old. (line 3)"]),
    ],
)
def test_an_extract_is_laid_out_as_asked(fake_lm, layout: list[str], lines: list[str]) -> None:
    result, lm = summarize(fake_lm, "The bridge is\nclosed.\nIt is old.", mode="auto", sentences=2, layout=layout)
    assert result.text.split("\n") == lines
    assert lm.requests == []


def test_names_of_speakers_count(fake_lm) -> None:
    talk = "Anna Maria Lee: The bridge over the river is closed now.\nBob: All the cars use the long tunnel today.\n"
    result, _ = summarize(fake_lm, talk, mode="extractive", max_words=10)
    assert result.text == "Bob: All the cars use the long tunnel today."
    assert count_words(result.text) <= 10


def test_no_sentence_is_cut(fake_lm) -> None:
    result, _ = summarize(
        fake_lm, "The council met on Monday. The bridge is closed now.", mode="extractive", max_words=3
    )
    assert result.text == ""
    assert result.warnings == ("no sentence has at most 3 words: the shortest has 5",)


@pytest.mark.parametrize(
    ("written", "mode", "warning"),
    [
        ("The council decided to close the bridge.", "abstractive", ""),
        ("The council closed 3 bridges.", "extractive", "the model wrote 3, of which the text says nothing"),
        ("Paris closed the bridge.", "extractive", "the model wrote Paris"),
        ("The council never met.", "extractive", "the model wrote never"),
        ("", "extractive", "the model wrote nothing"),
    ],
)
def test_what_a_tuned_model_invents_is_not_shown(fake_lm, written: str, mode: str, warning: str) -> None:
    lm = fake_lm(lambda *_: written, max_seq_len=4000)
    lm.learned_tasks = frozenset({"summarization"})
    (result,) = run_task(lm, Summarization(), [{"document": MEETING, "mode": "auto"}])
    assert len(lm.requests) == 1
    assert result.fields["mode"] == mode
    if mode == "abstractive":
        assert (result.text, result.warnings) == (written, ())
    else:
        assert result.text in MEETING
        assert warning in " ".join(result.warnings)


def test_parts_are_checked_against_the_whole(fake_lm) -> None:
    """What stands in no part of the text is not shown, though the summaries of the parts hold it."""
    for written, mode in (("Atlantis is far.", "extractive"), ("Paragraph 7 tells of many things.", "abstractive")):
        lm = fake_lm(lambda *_, written=written: written, max_seq_len=800)
        lm.learned_tasks = frozenset({"summarization"})
        (result,) = run_task(lm, Summarization(), [{"document": DOCUMENT, "mode": "auto"}])
        assert result.chunks > 3
        assert result.fields["mode"] == mode
        assert result.fields["document_words"] == count_words(DOCUMENT)
        assert all(DOCUMENT[one["start"] : one["end"]] == one["text"] for one in result.fields.get("sentences", []))


def test_a_model_that_was_not_tuned_writes_only_when_asked(fake_lm) -> None:
    for row, asked in (({"mode": "auto"}, 0), ({"mode": "auto", "length": "long"}, 0), ({}, 1)):
        result, lm = summarize(fake_lm, MEETING, **row)
        assert len(lm.requests) == asked
        assert result.fields["mode"] == ("abstractive" if asked else "extractive")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"mode": "extractve"}, "did you mean 'extractive'|extractive"),
        ({"mode": "auto", "sentences": 0}, "from 1 to 1,000"),
        ({"mode": "auto", "sentences": 2, "length": "short"}, "not both"),
        ({"sentences": 2}, "auto or extractive"),
        ({"layout": ["cited"]}, "auto or extractive"),
        ({"layout": ["bulets"], "mode": "auto"}, "Did you mean 'bullets'"),
    ],
)
def test_contradictions_are_refused(fake_lm, row: dict[str, Any], message: str) -> None:
    with pytest.raises(NlpkitError, match=message):
        summarize(fake_lm, MEETING, **row)
