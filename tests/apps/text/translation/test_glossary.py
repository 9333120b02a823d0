"""Terms of glossaries in texts and translations."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlpkit.apps.text.translation.glossary import Match, find_terms, followed


def terms(text: str, *glossary: str, language: str | None = None) -> list[str]:
    matches = find_terms(text, dict.fromkeys(glossary, "x"), language=language)
    return [text[match.start : match.end] for match in matches]


def test_the_longest_term_wins() -> None:
    matches = find_terms("The big house and the house.", {"house": "Haus", "big house": "Villa"})
    assert matches == (Match(4, 13, "big house", "Villa"), Match(22, 27, "house", "Haus"))


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("the don’t knows", "don't know"),
        ("a well‑known man", "well-known"),
        ("the big\n  house", "big house"),
        ("The KERNEL IS NEW", "kernel"),
        ("The Kernel starts.", "kernel"),
        ("好机器。", "机器"),
        ("Cafe\u0301 Central", "café"),
        ("I like C++ and C#.", "C++"),
        ("the dog's tail", "dog"),
        ("Die STRASSE IST LANG", "Straße"),
    ],
)
def test_spelling_makes_no_difference(text: str, term: str) -> None:
    assert len(terms(text, term)) == 1


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("Concatenate the files", "cat"),
        ("Thehound barks", "hound"),
        ("a hot-dog", "dog"),
        ("IT support", "it"),
        ("it is here", "IT"),
        ("take care", "car"),
        ("a plane", "plan"),
        ("", "x"),
        ("Anything", ""),
        ("a b", "   "),
    ],
)
def test_other_words_are_not_found(text: str, term: str) -> None:
    assert terms(text, term) == []


@pytest.mark.parametrize(
    ("language", "term", "forms"),
    [
        ("en", "house", "houses house's housing housed"),
        ("en", "city", "cities"),
        ("en", "stop", "stopping stopped stops"),
        ("en", "knife", "knives"),
        ("en", "PDF", "PDFs PDF's"),
        ("en", "houses", "house"),
        ("de", "Hund", "Hunde Hunden Hundes Hunds"),
        ("de", "Haus", "Häuser Häusern Hauses Hause"),
        ("de", "Baum", "Bäume Bäumen"),
        ("de", "Lehrerin", "Lehrerinnen"),
        ("de", "klein", "kleine kleiner kleines kleinem kleinen"),
        ("fr", "cheval", "chevaux"),
        ("fr", "grand", "grande grandes grands"),
        ("fr", "actif", "active actives"),
        ("es", "luz", "luces"),
        ("es", "canción", "canciones"),
        ("es", "pequeño", "pequeña pequeños pequeñas"),
        (None, "house", "houses"),
        (None, "Hund", "Hunde Hunden Hundes"),
    ],
)
def test_inflected_forms_are_found(language: str | None, term: str, forms: str) -> None:
    for form in forms.split():
        assert len(terms(f"So {form} da", term, language=language)) == 1, form


@pytest.mark.parametrize(
    ("target", "translation", "wanted"),
    [
        ("Haus", "Das Haus ist alt.", True),
        ("Haus", "Die Häuser sind alt.", True),
        ("Haus", "Der Haustürschlüssel", False),
        ("hound", "Thehound is here", False),
        ("hound", "Two hounds", True),
        ("Gebäude", "In den Gebäuden", True),
        ("grüner Tee", "Wir trinken grünen\nTee.", True),
        ("grüner Tee", "Grün ist der Tee.", False),
        ("Kern", "Das Kern-Modul", True),
        ("IT", "und it", False),
        ("installieren", "Sie installiert es", True),
        ("nlpkit", "Mit nlpkit", True),
        ("", "Etwas", True),
        ("Katze", "", False),
        ("机器", "好机器", True),
    ],
)
def test_following_a_term(target: str, translation: str, wanted: bool) -> None:
    assert followed(Match(0, 1, "x", target), translation) is wanted


WORDS = st.text(alphabet="abäs '-’好 IT\n", max_size=12)


@pytest.mark.property
@given(WORDS, st.dictionaries(WORDS, WORDS, max_size=5), st.sampled_from([None, "en", "de", "fr", "es", "ja"]))
def test_matches_are_in_order_and_whole(text: str, glossary: dict[str, str], language: str | None) -> None:
    done = 0
    for match in find_terms(text, glossary, language=language):
        assert done <= match.start < match.end <= len(text)
        assert glossary[match.term] == match.target
        done = match.end
        followed(match, text, language=language)


@pytest.mark.property
@given(st.text(max_size=100), st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=4))
def test_any_text_is_survived(text: str, glossary: dict[str, str]) -> None:
    for match in find_terms(text, {**glossary, text: text}):
        followed(match, text)


@pytest.mark.property
@pytest.mark.parametrize("atom", ["a", "a ", "dog-", "好", "'", "ää", "houses ", "\u0301"])
def test_long_texts_take_linear_time(atom: str) -> None:
    text = (atom * 100_000)[:100_000]
    start = time.perf_counter()
    find_terms(text, {"dog": "Hund", "big house": "Villa", "a a a b": "x", "好": "gut"})
    followed(Match(0, 1, "x", "a a a b"), text)
    assert time.perf_counter() - start < 10
