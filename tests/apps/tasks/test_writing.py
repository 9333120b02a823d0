"""Writing: prompts of the forms, facts about texts."""

from __future__ import annotations

from typing import Any

import pytest

from nlpkit.apps.pipeline.compose import ModelLines
from nlpkit.apps.pipeline.plan import encoder_of
from nlpkit.apps.pipeline.run import run_task
from nlpkit.apps.tasks.encoder import EncodedPrompt
from nlpkit.apps.tasks.task import Learned
from nlpkit.apps.tasks.writing import FORMS, Writing
from nlpkit.apps.text.forms import acrostic_word, check_form, find_title
from nlpkit.apps.text.verse.search import LineRequest
from nlpkit.apps.text.verse.sounds import count_syllables
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.errors import ConfigError, ContextOverflowError, InputError

HAIKU = "An old silent pond\nA frog jumps into the pond\nSplash! Silence again"

LIMERICK = """There once was a baker called Guy,
Who fell in his own apple pie.
He swam to the rim
And said with a whim:
The crust is as warm as July."""
SONNET = """My mistress' eyes are nothing like the sun;
Coral is far more red than her lips' red;
If snow be white, why then her breasts are dun;
If hairs be wires, black wires grow on her head.
I have seen roses damasked, red and white,
But no such roses see I in her cheeks;
And in some perfumes is there more delight
Than in the breath that from my mistress reeks.
I love to hear her speak, yet well I know
That music hath a far more pleasing sound;
I grant I never saw a goddess go;
My mistress, when she walks, treads on the ground.
And yet, by heaven, I think my love as rare
As any she belied with false compare."""


def write(fake_lm: Any, reply: str, **row: Any) -> Any:
    lm = fake_lm(lambda *_: reply, max_seq_len=2000)
    (result,) = run_task(lm, Writing(), [{"prompt": "the sea", **row}])
    return result, lm


@pytest.mark.parametrize("form", FORMS)
def test_each_form_has_a_prompt_and_a_limit(fake_lm, form: str) -> None:
    result, lm = write(fake_lm, "Waves.", form=form)
    # The fake model has no lines to choose from, so that verse is written in one go after all.
    assert "the sea" in lm.prompts[-1]
    assert lm.requests[-1].config.max_tokens == FORMS[form].max_tokens
    assert lm.requests[-1].config.temperature > 0
    assert result.fields["form"] == form
    assert result.seed is not None


def test_free_writing_sends_the_instruction_as_it_is(fake_lm) -> None:
    _, lm = write(fake_lm, "x", prompt="Describe a storm", keywords=["foam", "gull"])
    assert lm.prompts == ["<user>Describe a storm Use these words: foam, gull.</>"]


def test_acrostics_spell_the_word(fake_lm) -> None:
    result, lm = write(fake_lm, "Calm\nAnd\nTiny", prompt="my CAT", form="acrostic")
    assert "C, A, T" in lm.prompts[0]
    assert result.fields["form_ok"] is True
    assert result.fields["initials"] == "cat"
    result, _ = write(fake_lm, "Calm\nAnd\nBig", prompt="my CAT", form="acrostic")
    assert result.fields["form_ok"] is False
    assert any("form acrostic" in warning for warning in result.warnings)


def test_missing_keywords_are_reported(fake_lm) -> None:
    result, _ = write(fake_lm, "Foam everywhere.", keywords=["foam", "gull"])
    assert result.fields["keywords_missing"] == ["gull"]
    assert any("gull" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("row", "error", "match"),
    [
        ({"form": "hiku"}, ConfigError, "Did you mean 'haiku'"),
        ({"prompt": " "}, InputError, "nothing to write about"),
        ({"prompt": "42", "form": "acrostic"}, InputError, "no word"),
    ],
)
def test_bad_rows(fake_lm, row: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        write(fake_lm, "x", **row)


def test_a_small_context_leaves_room_for_the_prompt(fake_lm) -> None:
    lm = fake_lm(lambda *_: "Waves.", max_seq_len=300)
    (result,) = run_task(lm, Writing(), [{"prompt": "the sea", "form": "story"}])
    assert result.text == "Waves."
    assert 0 < lm.requests[0].config.max_tokens <= 200


def test_long_prompts_are_refused(fake_lm) -> None:
    with pytest.raises(ContextOverflowError):
        write(fake_lm, "x", prompt="word " * 2000)


@pytest.mark.parametrize(
    ("text", "form", "facts"),
    [
        (HAIKU, "haiku", {"syllables": [5, 7, 5], "faults": [], "form_ok": True, "lines": 3}),
        ("One\nline\nshort", "haiku", {"form_ok": False, "syllables": [1, 1, 1]}),
        ("An old pond\n" + HAIKU.partition("\n")[2], "haiku", {"faults": ["line 1 has 3 syllables, not 5"]}),
        ("# The Pond\n\n" + HAIKU, "haiku", {"form_ok": True, "lines": 3, "stanzas": 1}),
        (SONNET, "sonnet", {"form_ok": True, "faults": [], "stanzas": 1}),
        ("line\n" * 13, "sonnet", {"form_ok": False, "faults": ["13 lines instead of 14"]}),
        (SONNET.replace("ground", "floor"), "sonnet", {"form_ok": False}),
        (LIMERICK, "limerick", {"form_ok": True}),
        (LIMERICK.replace("pie", "cake"), "limerick", {"form_ok": False}),
        (
            "Anna: Hi!\n**Bob:** Hello.\n- And me?",
            "dialogue",
            {"turns": 3, "speakers": ["Anna", "Bob"], "form_ok": True},
        ),
        (
            "ANNA:\nWho is there?\n\nFRIAR JOHN:\nA friend,\nno more.",
            "dialogue",
            {"turns": 2, "speakers": ["ANNA", "FRIAR JOHN"], "form_ok": True},
        ),
        ("ANNA:\nBOB:\nWho is there?", "dialogue", {"turns": 1, "form_ok": False}),
        ("ANNA:", "dialogue", {"turns": 0, "form_ok": False}),
        ("He spoke.", "dialogue", {"form_ok": False}),
        ("Once. Upon.", "story", {"form_ok": None, "words": 2}),
        ("", "haiku", {"form_ok": False, "lines": 0}),
    ],
)
def test_facts_about_forms(text: str, form: str, facts: dict[str, Any]) -> None:
    found = check_form(text, form)
    assert {key: found[key] for key in facts} == facts


@pytest.mark.parametrize(
    ("word", "syllables"),
    [
        ("pond", 1),
        ("silence", 2),
        ("jumped", 1),
        ("wanted", 2),
        ("table", 2),
        ("again", 2),
        ("the", 1),
        ("roses", 2),
        ("山", 1),
    ],
)
def test_syllables(word: str, syllables: int) -> None:
    assert count_syllables(word) == syllables


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Title: The Sea\n\nWaves", "The Sea"),
        ("**The Sea**\nWaves", "The Sea"),
        ("# Sea", "Sea"),
        ("Waves\nroll", None),
        ("", None),
    ],
)
def test_titles(text: str, title: str | None) -> None:
    assert find_title(text) == title


@pytest.mark.parametrize(
    ("prompt", "word"),
    [
        ("HOPE", "HOPE"),
        ('a poem on "spring" days', "spring"),
        ("the sea", "sea"),
        ("for my friend NINA", "NINA"),
        ("12", ""),
    ],
)
def test_acrostic_words(prompt: str, word: str) -> None:
    assert acrostic_word(prompt) == word


def test_only_forms_have_short_prompts() -> None:
    task = Writing()
    row = {"prompt": "the sea", "keywords": ["foam", "salt"]}
    assert task.prompt(task.prepare({**row, "form": "Haiku"})).short == "Haiku about the sea; foam, salt:"
    assert task.prompt(task.prepare(row)).short is None


@pytest.mark.parametrize(
    ("options", "searched"),
    [({}, True), ({"seed": 3, "top_p": 0.9}, True), ({"max_tokens": 9}, False), ({"temperature": 0.0}, False)],
)
def test_options_for_writing_in_one_go_are_obeyed(fake_lm, options: dict[str, Any], searched: bool) -> None:
    lm = fake_lm(lambda *_: "Waves.", max_seq_len=2000)
    list(run_task(lm, Writing(), [{"prompt": "the sea", "form": "haiku"}], overrides=options))
    assert any(request.config.constraint is not None for request in lm.requests) is searched
    assert lm.requests[-1].config.max_tokens == options.get("max_tokens", FORMS["haiku"].max_tokens)


def test_banned_tokens_stay_banned_where_they_would_rhyme(fake_lm) -> None:
    lm = fake_lm(lambda *_: "Waves.", max_seq_len=2000)
    night = lm.tokenizer.encode(" night")[0]
    config = DecodeConfig(logit_bias={night: -100.0})
    lines = ModelLines(lm, encoder_of(lm), EncodedPrompt([1], False, False), config)
    lines.write([LineRequest(before=(), pattern="x", tries=1, seed=0, favoured=("night",))])
    assert lm.requests[-1].config.logit_bias == config.logit_bias


def test_verse_of_an_adapter_is_used_for_other_forms_only_where_it_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    learned, row = Learned(({"form": "poem"},)), {"prompt": "x", "form": "sonnet"}
    assert Writing().lack(row, learned) is None
    assert Writing().lack({**row, "form": "story"}, learned) is not None
    monkeypatch.setattr("nlpkit.apps.tasks.writing.can_search", lambda: False)
    assert Writing().lack(row, learned) is not None
