"""Translation: layout, copies, wrong languages, placeholders, glossary."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.apps.pipeline.plan import PHRASE_BEAMS
from nlpkit.apps.pipeline.run import run_task, stream_task
from nlpkit.apps.tasks.rows import read_completion
from nlpkit.apps.tasks.task import ChunkResult, Prediction, TextBudget
from nlpkit.apps.tasks.translation import LEARNED_BEAMS, Translation
from nlpkit.apps.text.placeholders import missing_placeholders, placeholders
from nlpkit.core.errors import ConfigError


def source_of(prompt: str) -> str:
    return prompt.partition("\n\n")[2].removesuffix("</>")


def translate(fake_lm: Any, text: str, reply: Any = lambda prompt, _: source_of(prompt), **row: Any) -> Any:
    lm = fake_lm(reply, max_seq_len=row.pop("max_seq_len", 2000))
    (result,) = run_task(lm, Translation(), [{"source": text, "target_lang": "de", "source_lang": "en", **row}])
    return result, lm


@pytest.mark.parametrize(
    "text",
    [
        "One line.",
        "One. Two.\n\n\n  Three.\r\n\tFour \n",
        "\n\nTitle\n=====\n\n* item one\n* item two\n\n---\n",
        "a\u2028b\x0bc\x85d",
        "One line without end " * 60,
        "12345\n***\n",
    ],
)
def test_a_model_that_copies_gives_the_text_back_exactly(fake_lm, text: str) -> None:
    result, _ = translate(fake_lm, text)
    assert result.text == text


@pytest.mark.property
@given(text=st.text(alphabet=st.sampled_from("ab. \n\r\t!?。„“*1\u2028"), max_size=120))
@settings(deadline=None)
def test_lines_in_are_lines_out(text: str) -> None:
    task = Translation()
    budget = TextBudget(count_tokens=len, max_prompt_tokens=40, overhead=10)
    example: Any = task.prepare({"source": text, "target_lang": "de", "source_lang": "en"})
    following = example
    while following is not None:
        example = following
        chunks = task.split(example, budget, learned=None)
        said = "Eins\nzwei: \u2028drei"
        results = [ChunkResult(chunk, read_completion(task, said, chunk.example), -1.0) for chunk in chunks]
        following = task.reduce(results, example, learned=None, user_options={})
    merged = task.merge(results, example, learned=None).text
    assert len(merged.splitlines()) == len(text.splitlines())
    assert [not line.strip() for line in merged.splitlines()] == [not line.strip() for line in text.splitlines()]


def test_no_sentence_of_a_long_text_is_lost(fake_lm) -> None:
    text = " ".join(f"Sentence number {n} is here." for n in range(400))
    result, lm = translate(fake_lm, text, max_seq_len=400)
    assert result.chunks > 10
    assert not result.truncated
    assert re.findall(r"number (\d+)", result.text) == [str(n) for n in range(400)]
    assert len(lm.prompts) >= result.chunks


def test_lines_without_letters_are_not_asked_for(fake_lm) -> None:
    result, lm = translate(fake_lm, "Hello\n----\n3.14\nWorld", lambda *_: "Hallo")
    assert result.text == "Hallo\n----\n3.14\nHallo"
    assert len(lm.prompts) == 2


def test_prompts_name_the_languages(fake_lm) -> None:
    _, lm = translate(fake_lm, "Hello there", source_lang="English", target_lang="Deutsch")
    assert lm.prompts == ["<user>Translate from English to German.\n\nHello there</>"]


def test_the_source_language_is_detected(fake_lm) -> None:
    result, lm = translate(
        fake_lm, "The weather is very nice today, and we are here.", lambda *_: "Ja", source_lang="auto"
    )
    assert "from English to German" in lm.prompts[0]
    assert result.fields["source_lang"] == "en"
    assert result.fields["source_lang_confidence"] > 0.5
    result, lm = translate(fake_lm, "xyzzy", lambda *_: "Ja", source_lang="auto")
    assert lm.prompts[0].startswith("<user>Translate to German.")
    assert result.fields["source_lang"] is None
    assert any("--from" in warning for warning in result.warnings)
    result, lm = translate(fake_lm, "Das Wetter ist heute sehr schön und mild.", lambda *_: "Ja", source_lang="auto")
    assert lm.prompts == []
    assert result.text == "Das Wetter ist heute sehr schön und mild."
    assert result.fields["kept"] == 1
    assert result.warnings == ("the text is in German already and stayed as it is",)


def test_languages_are_checked(fake_lm) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'German'"):
        translate(fake_lm, "x", target_lang="germn")
    with pytest.raises(ConfigError, match="both German"):
        translate(fake_lm, "x", source_lang="de", target_lang="Deutsch")


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("Hallo Welt.", "Hallo Welt."),
        ("\n\nHallo Welt.\n\nNote: informal.", "Hallo Welt."),
        ("Here is the translation:\n\nHallo Welt.", "Hallo Welt."),
        ("**Translation:**\n“Hallo Welt.”", "Hallo Welt."),
        ('"Hallo Welt."', "Hallo Welt."),
        ("<think>\nHm.\n</think>\n\nHallo Welt.", "Hallo Welt."),
        ("<think>never ends", ""),
        ("", ""),
        ("Hier steht es:", "Hier steht es:"),
    ],
)
def test_completions_are_cleaned(completion: str, text: str) -> None:
    task = Translation()
    example = task.prepare({"source": "Hello world.", "target_lang": "de"})
    assert read_completion(task, completion, example).text == text


@pytest.mark.parametrize(
    "completion",
    [
        "\n\nHallo Welt.",
        "Here is the translation:\nHallo Welt.",
        "<think>\nHm.\n</think>\n\nHallo Welt.",
        "Hallo Welt.\nNote.",
    ],
)
def test_decoding_stops_after_the_first_line_that_counts(fake_lm, completion: str) -> None:
    result, lm = translate(fake_lm, "Hello world.", lambda *_: completion)
    assert result.text == "Hallo Welt."
    assert [request.config.stop for request in lm.requests] == [("\n",), ()][: len(lm.requests)]
    assert len(lm.requests) == (1 if completion.startswith("Hallo") else 2)
    assert result.output_tokens >= 3
    again = fake_lm(lambda *_: completion)
    row = {"source": "Hello world.", "target_lang": "de", "source_lang": "en"}
    *pieces, streamed = stream_task(again, Translation(), row)
    assert "".join(pieces) == streamed.text == "Hallo Welt."
    result, lm = translate_with_stop(fake_lm, completion)
    assert len(lm.requests) == 1


def translate_with_stop(fake_lm: Any, completion: str) -> Any:
    lm = fake_lm(lambda *_: completion)
    row = {"source": "Hello world.", "target_lang": "de", "source_lang": "en"}
    (result,) = run_task(lm, Translation(), [row], overrides={"stop": ["\n"]})
    return result, lm


def test_quotes_of_the_source_stay() -> None:
    task = Translation()
    example = task.prepare({"source": '"Hello."', "target_lang": "de"})
    assert read_completion(task, "„Hallo.“", example).text == "„Hallo.“"


def test_copies_are_flagged(fake_lm) -> None:
    result, _ = translate(fake_lm, "This is a sentence that nobody translated.\nHello.")
    assert result.fields["untranslated"] == 2
    assert [one["reasons"] for one in result.fields["flagged"]] == [["copied"]]
    assert (
        "1 of 2 sentences are not to be trusted: “This is a sentence that nobody translat…” (the" in result.warnings[0]
    )
    result, _ = translate(fake_lm, "Johann Sebastian Bach")
    assert result.fields["untranslated"] == 0


def test_the_wrong_language_is_flagged(fake_lm) -> None:
    french = "Il fait très beau aujourd'hui et nous allons dans le parc."
    result, _ = translate(fake_lm, "The weather is nice.", lambda *_: french)
    assert result.fields["wrong_language"] == "fr"
    assert any("looks like French, not German" in warning for warning in result.warnings)
    german = "Das Wetter ist heute sehr schön, und wir gehen in den Park."
    result, _ = translate(fake_lm, "The weather is nice.", lambda *_: german)
    assert result.fields["wrong_language"] is None
    # The detector does not know Luxembourgish: taking it for German proves nothing; Latin letters for Russian do.
    result, _ = translate(fake_lm, "The weather is nice.", lambda *_: german, target_lang="lb")
    assert result.fields["wrong_language"] is None
    result, _ = translate(fake_lm, "The weather is nice.", lambda *_: german, target_lang="ru")
    assert result.fields["wrong_language"] == "de"
    norwegian = "Jeg har ikke sett deg etter det som skulle være mye bedre nå, og hva med meg?"
    result, _ = translate(fake_lm, "The weather is nice.", lambda *_: norwegian, target_lang="nb")
    assert result.fields["wrong_language"] is None


def test_facts_are_about_the_text_that_was_read(fake_lm) -> None:
    source = "Hello there. " * 100 + "See {name}."
    lm = fake_lm(lambda prompt, _: source_of(prompt), max_seq_len=300)
    row = {"source": source, "target_lang": "de", "source_lang": "en"}
    (result,) = run_task(lm, Translation(), [row], on_overflow="truncate")
    assert result.truncated
    assert result.fields["placeholders_missing"] == []
    assert result.example == row


def test_placeholders() -> None:
    found = placeholders("Hi {name}, <b>50%</b> of %s at https://a.org/x?y=1. Mail a@b.org, ${x}, %(n)d, 1,234.5!")
    assert found == {
        "{name}": 1, "<b>": 1, "</b>": 1, "50": 1, "%s": 1, "https://a.org/x?y=1": 1, "a@b.org": 1, "${x}": 1,
        "%(n)d": 1, "12345": 1,
    }  # fmt: skip
    assert missing_placeholders("{a} {a} 1,234.50 %s", "{a} 1.234,50") == ["{a}", "%s"]
    assert missing_placeholders("100% safe", "100 % sicher") == []


def test_missing_placeholders_are_reported(fake_lm) -> None:
    result, _ = translate(fake_lm, "Hello {name}, you have %d new mails since 2019.", lambda *_: "Hallo, seit 2019!")
    assert result.fields["placeholders_missing"] == ["{name}", "%d"]
    assert any("lacked {name}, %d" in warning for warning in result.warnings)
    # A text without its placeholders would break a program.
    assert result.text == "Hello {name}, you have %d new mails since 2019."


def test_glossaries_hint_and_report(fake_lm) -> None:
    glossary = {"kernel": "Kern", "cat": "Katze", "机器": "Maschine"}
    result, lm = translate(
        fake_lm, "The Kernel starts. Concatenate. 好机器。", lambda *_: "Der Kern.", glossary=glossary
    )
    assert any('Translate "kernel" as "Kern".' in prompt for prompt in lm.prompts)
    assert not any('"cat"' in prompt for prompt in lm.prompts)
    assert result.fields["glossary_hits"] == {"kernel": "Kern"}
    assert result.fields["glossary_misses"] == {"机器": "Maschine"}
    assert any("机器" in warning for warning in result.warnings)


def test_merging_one_part_is_parsing_it() -> None:
    task = Translation()
    example = task.prepare({"source": "Hi", "target_lang": "de", "source_lang": "en"})
    (chunk,) = task.split(example, TextBudget(count_tokens=len, max_prompt_tokens=40), learned=None)
    assert task.merge([ChunkResult(chunk, Prediction("Hallo"), -1.0)], example, learned=None).text == "Hallo"


class TestShortPrompts:
    """A model that was tuned for the task with short prompts."""

    def translate(self, fake_lm: Any, text: str, reply: Any, **row: Any) -> tuple[Any, Any]:
        lm = fake_lm(reply)
        lm.learned_tasks = frozenset({"translation"})
        (result,) = run_task(lm, Translation(), [{"source": text, "target_lang": "de", **row}])
        return result, lm

    def test_the_prompt_is_the_text_and_the_language(self, fake_lm) -> None:
        result, lm = self.translate(fake_lm, "The dog sleeps.", lambda *_: " Der Hund schläft.")
        assert lm.prompts == ["German: The dog sleeps.\n"]
        assert result.text == "Der Hund schläft."

    def test_sentences_go_together_and_are_of_the_learned_length(self, fake_lm) -> None:
        text = " ".join(f"Number {n} is here." for n in range(40)) + " x, y" * 200 + "."
        result, lm = self.translate(fake_lm, text, lambda prompt, _: f" {prompt[8:-1]}")
        assert lm.calls[0] == result.chunks > 40
        assert max(lm.count_tokens(prompt[8:-1]) for prompt in lm.prompts) <= 120
        assert result.text == text

    def test_what_the_prompt_does_not_need_is_no_matter_of_warning(self, fake_lm) -> None:
        # The language cannot be told, and naming it would change nothing.
        result, _ = self.translate(fake_lm, "Taxi Radio Hotel", lambda *_: " Taxi und Radio und das Hotel")
        assert result.fields["source_lang"] is None
        assert result.warnings == ()
        plain, _ = translate(fake_lm, "Taxi Radio Hotel", lambda *_: "Taxi und Radio und das Hotel", source_lang="auto")
        assert plain.warnings == ("the language of the source could not be told; name it with --from",)
        same, _ = self.translate(fake_lm, "Das ist ein Hund und keine Katze.", lambda *_: " Das ist ein Hund.")
        assert same.warnings == ("the text is in German already and stayed as it is",)

    def test_glossary_terms_are_included_by_beam_search(self, fake_lm) -> None:
        terms = {"dog": "Köter", "hound": "Köter", "cat": "Mieze", "the": "a\nb"}
        _, lm = self.translate(fake_lm, "The dog, a hound.", lambda *_: " Der Köter.", glossary=terms)
        assert lm.requests[0].config.must_include == ("Köter",)
        assert lm.requests[0].config.beam_size == PHRASE_BEAMS
        _, lm = self.translate(fake_lm, "The bird.", lambda *_: " Der Vogel.", glossary=terms)
        assert lm.requests[0].config.must_include == ()
        assert lm.requests[0].config.beam_size == LEARNED_BEAMS

    @pytest.mark.parametrize("overrides", [{"beam_size": 1}, {"temperature": 0.5}, {"n": 3}])
    def test_the_users_own_search_counts(self, fake_lm, overrides: dict[str, Any]) -> None:
        lm = fake_lm(lambda *_: " Der Hund.")
        lm.learned_tasks = frozenset({"translation"})
        row = {"source": "The dog.", "target_lang": "de"}
        list(run_task(lm, Translation(), [row], overrides=overrides))
        assert lm.requests[0].config.beam_size == overrides.get("n", 1)

    @pytest.mark.parametrize(
        ("overrides", "words"),
        [
            ({"must_include": ["Wiese"]}, ("Wiese", "Köter")),
            ({"temperature": 0.7}, ()),
            ({"contrastive_alpha": 0.6}, ()),
            ({"beam_size": 8, "beam_groups": 2}, ()),
        ],
    )
    def test_ways_to_decode_that_include_nothing_stay(
        self, fake_lm, overrides: dict[str, Any], words: tuple[str, ...]
    ) -> None:
        lm = fake_lm(lambda *_: " Der Köter.")
        lm.learned_tasks = frozenset({"translation"})
        row = {"source": "The dog.", "target_lang": "de", "glossary": {"dog": "Köter"}}
        list(run_task(lm, Translation(), [row], overrides=overrides))
        config = lm.requests[0].config
        assert config.must_include == words
        for name, value in overrides.items():
            assert name == "must_include" or getattr(config, name) == value

    def test_glossary_terms_are_reported_though_they_are_not_asked_for(self, fake_lm) -> None:
        terms = {"dog": "Köter", "cat": "Mieze"}
        result, lm = self.translate(
            fake_lm, "The dog and the cat.", lambda *_: " Der Köter und die Katze.", glossary=terms
        )
        assert lm.prompts == ["German: The dog and the cat.\n"] * 2  # a missed term is worth one more try
        assert result.fields["glossary_hits"] == {"dog": "Köter"}
        assert result.warnings == ("glossary terms not followed: cat",)
