"""Translation: faults that were found once, each with the kind that it stands for. The model is a fake dictionary."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from nlpkit.apps.pipeline.choice import best_choices
from nlpkit.apps.pipeline.run import run_task
from nlpkit.apps.tasks.translation import RETRY_BEAMS, RETRY_NGRAM, Translation
from nlpkit.apps.text.translation.confidence import COEFFICIENTS, LOW, REASONS, Signals, confidence, features

PAIRS = tuple(pair for other in ("de", "fr", "es") for pair in (("en", other), (other, "en")))
LEARNED = tuple({"source_lang": source, "target_lang": target} for source, target in PAIRS)
MASKS = frozenset(f"⟦{number}⟧" for number in range(1, 9))
_PROMPT = re.compile(r"(\w+): (.*)\n", re.DOTALL)


def asked(prompt: str) -> tuple[str, str]:
    """The language and the text of a prompt."""
    match = _PROMPT.fullmatch(prompt)
    assert match is not None
    return match.group(1), match.group(2)


class Model:
    """Answers with a dictionary by language; what it does not know comes back with a foreign word in front."""

    def __init__(self, fake_lm: Any, known: Mapping[str, Mapping[str, str]], *, masks: bool = False) -> None:
        self.known = known
        self.lm = fake_lm(self.reply)
        self.lm.learned_tasks = frozenset({"translation"})
        self.lm.learned_options = LEARNED
        self.lm.vocabulary = MASKS if masks else frozenset()

    def reply(self, prompt: str, request: Any) -> str:
        language, text = asked(prompt)
        return " " + self.known.get(language, {}).get(text, f"Ähm {text}")

    def __call__(self, text: str, to: str = "de", options: Mapping[str, Any] | None = None, **row: Any) -> Any:
        rows = [{"source": text, "target_lang": to, **row}]
        (result,) = run_task(self.lm, Translation(), rows, overrides=options)
        return result

    @property
    def texts(self) -> list[tuple[str, str]]:
        return [asked(prompt) for prompt in self.lm.prompts]


@pytest.fixture
def model(fake_lm: Any) -> Any:
    def build(known: Mapping[str, Mapping[str, str]], *, masks: bool = False) -> Model:
        return Model(fake_lm, known, masks=masks)

    return build


class TestSameLanguage:
    def test_a_text_in_the_language_wanted_stays(self, model: Any) -> None:
        text = "Der Hund ist weiß und schläft nicht.\nDas Wetter ist heute sehr schön.\n"
        lm = model({})
        result = lm(text)
        assert (result.text, lm.texts) == (text, [])
        assert (result.fields["kept"], result.fields["confidence"]) == (2, 1.0)
        assert result.warnings == ("the text is in German already and stayed as it is",)

    def test_piece_by_piece(self, model: Any) -> None:
        lm = model({"German": {"The dog is black and the cat is white.": "Der Hund ist schwarz, die Katze weiß."}})
        result = lm("Das Wetter ist heute sehr schön. The dog is black and the cat is white.")
        assert result.text == "Das Wetter ist heute sehr schön. Der Hund ist schwarz, die Katze weiß."
        assert result.fields["kept"] == 1
        assert "1 of 2 sentences are in German already and stayed as they are" in result.warnings

    def test_what_is_surely_in_it_stays_though_another_was_named(self, model: Any) -> None:
        lm = model({"German": {"OK, thank you.": "OK, danke."}})
        result = lm("OK, thank you. Das Wetter ist heute sehr schön.", source_lang="en")
        assert result.text == "OK, danke. Das Wetter ist heute sehr schön."


class TestLanguages:
    KNOWN: Mapping[str, Mapping[str, str]] = {
        "English": {"El perro de mi hermana es muy negro.": "My sister's dog is very black."},
        "German": {
            "My sister's dog is very black.": "Der Hund meiner Schwester ist sehr schwarz.",
            "The cat is white.": "Die Katze ist weiß.",
        },
    }

    def test_through_english(self, model: Any) -> None:
        lm = model(self.KNOWN)
        result = lm("El perro de mi hermana es muy negro.", source_lang="es")
        assert result.text == "Der Hund meiner Schwester ist sehr schwarz."
        assert [language for language, _ in lm.texts] == ["English", "German"]
        assert result.fields["via"] == "en"
        assert "the way from Spanish to German leads through English, which costs accuracy" in result.warnings

    def test_a_certain_language_counts_as_given(self, model: Any) -> None:
        text = "¿Dónde está? Nosotros no tenemos nada que hacer y el niño está muy cansado."
        lm = model({})
        result = lm(text, to="fr")
        assert result.fields["via"] == "en"
        assert {language for language, _ in lm.texts} == {"English", "French"}

    def test_both_ways_in_one_text_are_asked_together(self, model: Any) -> None:
        lm = model(self.KNOWN)
        text = "¿Dónde está? Nosotros no tenemos nada que hacer y el niño está muy cansado. The cat is white."
        result = lm(text)
        assert result.text.endswith(" Die Katze ist weiß.")
        assert lm.lm.calls[0] == 2  # the Spanish sentences; the others wait
        assert 3 in lm.lm.calls
        assert ("German", "The cat is white.") in lm.texts

    def test_what_was_given_wins(self, model: Any) -> None:
        lm = model({"German": {"The cat is white.": "Die Katze ist weiß."}})
        assert lm("The cat is white.", source_lang="fr").fields["via"] == "en"
        assert lm("The cat is white.", source_lang="en").fields["via"] is None

    def test_a_sentence_in_a_language_that_nobody_learned_stays_and_is_said(self, model: Any) -> None:
        lm = model(self.KNOWN)
        result = lm("The cat is white. الكلب أسود والقطة بيضاء جدا.")
        assert result.text == "Die Katze ist weiß. الكلب أسود والقطة بيضاء جدا."
        assert [one["reasons"] for one in result.fields["flagged"]] == [["unlearned"]]
        assert any("English to and from German, French and Spanish" in warning for warning in result.warnings)


class TestLayout:
    def test_wrapped_lines_are_joined_and_wrapped_again(self, model: Any) -> None:
        text = (
            "My sister bought bread and milk and some apples in the big old shop at the\n"
            "corner of our street, and then she went home to her two small children in\n"
            "the house by the river.\n"
        )
        lm = model({"German": {" ".join(text.split()): " ".join(f"Wort{chr(97 + n)}" for n in range(26)) + " Ende."}})
        result = lm(text)
        assert len(lm.texts) == 1
        lines = result.text.splitlines()
        assert len(lines) >= 3
        assert max(map(len, lines)) <= 74
        assert result.text.endswith("Ende.\n")

    @pytest.mark.parametrize(
        ("source", "wanted"),
        [
            ("2) Close the window.", "2) Schließe das Fenster."),
            ("- Close the window.\n\n  * Close the window.", "- Schließe das Fenster.\n\n  * Schließe das Fenster."),
            ("# Close the window.\n> Close the window.", "# Schließe das Fenster.\n> Schließe das Fenster."),
            ("  Close the window. \t\r\n12345\n***\n", "  Schließe das Fenster. \t\r\n12345\n***\n"),
            ("1. 3.\n2. 4.", "1. 3.\n2. 4."),
        ],
    )
    def test_marks_and_numbers_stay(self, model: Any, source: str, wanted: str) -> None:
        lm = model({"German": {"Close the window.": "Schließe das Fenster."}})
        assert lm(source).text == wanted
        assert {text for _, text in lm.texts} <= {"Close the window."}

    def test_capitals_are_lowered_and_raised(self, model: Any) -> None:
        lm = model(
            {"German": {"The door is open.": "Die Tür ist offen.", "Press the USB key.": "Drück die USB-Taste."}}
        )
        assert lm("THE DOOR IS OPEN.").text == "DIE TÜR IST OFFEN."
        assert lm("PRESS THE USB KEY.").text == "DRÜCK DIE USB-TASTE."


class TestProtected:
    def test_spans_are_masked_and_come_back(self, model: Any) -> None:
        lm = model({"German": {"Hello ⟦1⟧, open ⟦2⟧.": "Öffne ⟦2⟧, ⟦1⟧."}}, masks=True)
        result = lm("Hello {name}, open https://a.org/x?y=1.")
        assert result.text == "Öffne https://a.org/x?y=1, {name}."
        assert result.fields["flagged"] == []

    def test_nothing_is_asked_where_there_are_spans_only(self, model: Any) -> None:
        lm = model({}, masks=True)
        assert lm("{name}: %s\nhttps://a.org/x").text == "{name}: %s\nhttps://a.org/x"
        assert lm.texts == []

    def test_a_lost_mask_is_tried_again_without(self, model: Any) -> None:
        lm = model({"German": {"Hello ⟦1⟧.": "Hallo.", "Hello {name}.": "Hallo {name}."}}, masks=True)
        result = lm("Hello {name}.")
        assert result.text == "Hallo {name}."
        assert [text for _, text in lm.texts] == ["Hello ⟦1⟧.", "Hello {name}."]
        assert lm.lm.requests[1].config.must_include == ("{name}",)
        assert result.fields["flagged"] == []

    @pytest.mark.parametrize("answer", ["Hallo.", "Hallo {Name}.", "Hallo {name} {name}.", "⟦1⟧ ⟦1⟧"])
    def test_at_last_the_text_stays(self, model: Any, answer: str) -> None:
        lm = model({"German": {"Hello ⟦1⟧.": answer, "Hello {name}.": answer}}, masks=True)
        result = lm("Hello {name}.")
        assert result.text == "Hello {name}."
        (flag,) = result.fields["flagged"]
        assert "placeholders" in flag["reasons"]
        assert flag["confidence"] < LOW
        assert "⟦" not in result.text

    def test_many_masks(self, model: Any) -> None:
        text = "Use " + " and ".join(f"{{name{n}}}" for n in range(20)) + "."
        lm = model({}, masks=True)
        result = lm(text)
        assert re.findall(r"\{\w+\}", result.text) == re.findall(r"\{\w+\}", text)

    @pytest.mark.parametrize(
        ("source", "answer", "changed"),
        [
            ("It costs 1,234.50 euros.", "Es kostet 1.234,50 Euro.", False),
            ("We have 3 cats.", "Wir haben drei Katzen.", False),
            ("It is -5 degrees.", "Es sind 5 Grad.", True),
            ("We need 1.5 litres.", "Wir brauchen 15 Liter.", True),
            ("Come at 5 pm.", "Komm um 17 Uhr.", False),
        ],
    )
    def test_numbers_are_compared_by_value(self, model: Any, source: str, answer: str, changed: bool) -> None:
        lm = model({"German": {source: answer}})
        result = lm(source)
        assert bool(result.fields["numbers_changed"]) is changed
        assert bool(result.fields["flagged"]) is changed
        assert len(lm.texts) == 1 + changed


class TestShortTexts:
    def test_a_word_that_becomes_a_sentence_is_flagged(self, model: Any) -> None:
        lm = model({"German": {"File": "Dieses Paket enthält das Dateimanager.", "Save": "Speichern", "OK": "OK"}})
        assert lm("File").fields["flagged"][0]["reasons"] == ["length"]
        assert lm("Save").fields["flagged"] == []

    def test_a_copied_word_is_counted(self, model: Any) -> None:
        lm = model({"German": {"Cancel": "Cancel"}})
        result = lm("Cancel")
        assert (result.text, result.fields["untranslated"], result.fields["flagged"]) == ("Cancel", 1, [])


class TestGlossary:
    def test_the_longest_term_wins_and_stands_in_words(self, model: Any) -> None:
        lm = model({"German": {"The big house is old.": "Die Villa ist alt."}})
        result = lm("The big house is old.", glossary={"house": "Haus", "big house": "Villa"})
        assert lm.lm.requests[0].config.must_include == ("Villa",)
        assert result.fields["glossary_hits"] == {"big house": "Villa"}
        assert result.fields["glossary_misses"] == {}

    def test_inflected_terms_are_seen_and_forced_only_if_they_were_missed(self, model: Any) -> None:
        glossary = {"house": "Haus"}
        lm = model({"German": {"My sister has two houses.": "Meine Schwester hat zwei Häuser."}})
        result = lm("My sister has two houses.", glossary=glossary)
        assert result.fields["glossary_hits"] == glossary
        assert [request.config.must_include for request in lm.lm.requests] == [()]
        lm = model({"German": {"My sister has two houses.": "Meine Schwester hat zwei Wohnungen."}})
        result = lm("My sister has two houses.", glossary=glossary)
        assert result.fields["glossary_misses"] == glossary
        assert [request.config.must_include for request in lm.lm.requests] == [(), ("Haus",)]

    def test_a_hit_is_a_word(self, model: Any) -> None:
        lm = model({"English": {"Der Hund ist im Haus.": "Thehound is in the house."}})
        result = lm("Der Hund ist im Haus.", to="en", glossary={"Hund": "hound"})
        assert result.fields["glossary_misses"] == {"Hund": "hound"}
        lm = model({"German": {"Ask IT support.": "Frag den IT-Support."}})
        assert "glossary_hits" not in lm("Ask IT support.", glossary={"it": "es"}).fields

    def test_through_english_the_terms_are_for_the_last_step(self, model: Any) -> None:
        lm = model({"English": {"El perro es negro.": "The dog is black."}})
        lm("El perro es negro.", source_lang="es", glossary={"perro": "Köter"})
        assert [request.config.must_include for request in lm.lm.requests][:2] == [(), ("Köter",)]


class TestDoubts:
    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            ("Ja ja ja " * 30, "loop"),
            ("Nous sommes allés dans le parc avec les enfants et les chiens.", "wrong_language"),
            ("We went to the park with the children.", "copied"),
            ("Ja.", "length"),
            ("", "empty"),
        ],
    )
    def test_what_is_certainly_wrong_is_tried_again_and_flagged(self, model: Any, answer: str, reason: str) -> None:
        text = "We went to the park with the children."
        lm = model({"German": {text: answer}})
        result = lm(text, source_lang="en")
        (flag,) = result.fields["flagged"]
        assert reason in flag["reasons"]
        assert flag["confidence"] < LOW
        assert len(lm.texts) == 2
        assert lm.lm.requests[1].config.beam_size == RETRY_BEAMS
        assert (lm.lm.requests[1].config.no_repeat_ngram == RETRY_NGRAM) is (reason == "loop")
        assert any(REASONS[reason] in warning for warning in result.warnings)
        assert not any("--max-tokens" in warning for warning in result.warnings)

    def test_the_better_try_is_kept(self, fake_lm: Any) -> None:
        answers = iter([" Ja.", " Wir gingen mit den Kindern in den Park."])
        lm = fake_lm(lambda *_: next(answers))
        lm.learned_tasks, lm.learned_options = frozenset({"translation"}), LEARNED
        row = {"source": "We went to the park with the children.", "target_lang": "de"}
        (result,) = run_task(lm, Translation(), [row])
        assert result.text == "Wir gingen mit den Kindern in den Park."
        assert result.fields["flagged"] == []
        assert result.warnings == ()

    def test_users_options_are_not_second_guessed(self, model: Any) -> None:
        lm = model({"German": {"We went to the park with the children.": "Ja."}})
        result = lm("We went to the park with the children.", options={"beam_size": 1})
        assert len(lm.texts) == 1
        assert result.fields["flagged"]

    def test_warnings_quote_few(self, model: Any) -> None:
        text = " ".join(f"We went to park number {n} with all of the children of the whole family." for n in range(9))
        lm = model({})
        lm.lm.reply = lambda *_: " Ja."
        (warning,) = [one for one in lm(text).warnings if "trusted" in one]
        assert warning.startswith(
            "9 of 9 sentences are not to be trusted: “We went to park number 0 with all of th…” ("
        )
        assert warning.endswith(", and 6 more (--json has them all)")

    def test_a_good_sentence_has_facts(self, model: Any) -> None:
        lm = model({"German": {"The cat is white.": "Die Katze ist weiß."}})
        (sentence,) = lm("The cat is white.").fields["sentences"]
        assert sentence["confidence"] > LOW
        assert (sentence["logprob"], sentence["reasons"]) == (-0.1, [])


class TestConfidence:
    def test_it_falls_with_every_doubt(self) -> None:
        good = Signals(logprob=-0.1, min_logprob=-0.8, ratio=1.1)
        assert confidence(good) > 0.8
        for worse in (
            Signals(logprob=-1.0, min_logprob=-0.8, ratio=1.1),
            Signals(logprob=-0.1, min_logprob=-6.0, ratio=1.1),
            Signals(logprob=-0.1, min_logprob=-0.8, ratio=0.4),
            Signals(logprob=-0.1, min_logprob=-0.8, ratio=1.1, pivot=True),
        ):
            assert confidence(worse) < confidence(good)
        for reason in REASONS:
            if reason != "unsure":
                doubted = Signals(logprob=-0.1, min_logprob=-0.8, ratio=1.1, reasons=(reason,))
                assert confidence(doubted) < LOW, reason

    def test_extremes_have_a_confidence(self) -> None:
        for value in (float("-inf"), -1e9, 0.0):
            assert 0.0 <= confidence(Signals(logprob=value, min_logprob=value, ratio=0.0)) <= 1.0
        assert set(features(Signals(logprob=0, min_logprob=0, ratio=1, reasons=tuple(REASONS)))) - {"unsure"} == set(
            COEFFICIENTS
        )


class TestAlternatives:
    def test_the_best_ways_in_order(self) -> None:
        scores = [[0.0, -1.0, -5.0], [-0.5, -0.75]]
        assert best_choices(scores, 4) == [(0, 0), (0, 1), (1, 0), (1, 1)]
        assert best_choices(scores, 100)[-1] == (2, 1)
        assert len(best_choices(scores, 100)) == 6
        assert best_choices([], 3) == [()]

    def test_alternatives_of_several_sentences_differ_in_one(self, model: Any) -> None:
        lm = model({"German": {"The cat is white.": "Die Katze ist weiß.", "I see.": "Ich sehe."}})
        result = lm("The cat is white. I see.", options={"n": 3})
        texts = [one.text for one in result.alternatives]
        assert texts[0] == result.text == "Die Katze ist weiß. Ich sehe."
        assert len(set(texts)) == 3
        assert "Die Katze ist weiß. Ich sehe.!" in texts
        scores = [one.score for one in result.alternatives]
        assert scores == sorted(scores, reverse=True)
