"""Where sentences end."""

from __future__ import annotations

import pytest

from nlpkit.apps.text.chunking import cut_long, cut_to_fit, split_paragraphs, split_sentences, split_to_fit


@pytest.mark.parametrize(
    "sentences",
    [
        ["Dr. Smith went to Washington. ", "He arrived at 3.30 p.m. on Jan. 5. ", "It cost $3.50! ", "Done."],
        ['"Really?" she asked. ', "Yes. ", "No... ", "Wait... what?"],
        ["Visit https://a.b/c.html?d=e. now. ", "Mail a.b@c.de. ", "Version 2.0.1 is out."],
        ["U.S. troops left. ", "J. R. R. Tolkien wrote e.g. this one."],
        ["Am 3. Mai kam er an. ", "Das war z. B. schön. ", "Die 2. Auflage erschien 1999. ", "Danach nichts."],
        ["„Kommst du?“, fragte er. ", "„Nein.“ ", "Er ging."],
        ["Il a dit « Bonjour. » ", "Puis il est parti. ", "M. Dupont est là !"],
        ["¿Qué pasa? ", "¡Nada! ", "El Sr. López llegó."],
        ["我来了。", "你好！", "“真的吗？”", "他说。"],
        ["これはペンです。", "そうですか？"],
        ["यह किताब है। ", "वह नहीं है।"],
        ["1. Open the file.\n", "2. Close it.\n\n", "Next paragraph"],
        ["A heading without a stop\n\n", "Then text."],
        ["It has 12. ", "You have 13. "],
    ],
)
def test_sentences(sentences: list[str]) -> None:
    assert split_sentences("".join(sentences)) == sentences


def test_paragraphs_keep_their_blank_lines() -> None:
    assert split_paragraphs("one\ntwo\n\n \nthree\n") == ["one\ntwo\n\n \n", "three\n"]


def test_long_sentences_are_cut_at_clauses_then_words_then_characters() -> None:
    def words(text: str) -> int:
        return len(text.split())

    assert cut_long("one two three, four five six seven eight", 4, words)[0] == "one two three, "
    assert cut_long("one two three four five", 2, words) == ["one two ", "three four ", "five"]
    assert cut_long("abcdefg", 3, len) == ["abc", "def", "g"]


def test_cut_to_fit_prefers_the_end_of_a_sentence() -> None:
    assert cut_to_fit("One two. Three four five six", 16, len) == "One two. "
    assert cut_to_fit("short", 16, len) == "short"
    assert cut_to_fit("ab", 0, len) == ""


def test_paragraphs_that_fit_stay_whole() -> None:
    text = "One. Two.\n\nThree. Four.\n\nFive."
    assert split_to_fit(text, 15, len) == ["One. Two.\n\n", "Three. Four.\n\n", "Five."]


def test_long_texts_take_linear_time() -> None:
    calls = 0

    def count(text: str) -> int:
        nonlocal calls
        calls += len(text)
        return len(text) // 4 + 1

    text = "This is a sentence of a long text. " * 4000 + "x" * 100_000
    chunks = split_to_fit(text, 200, count)
    assert "".join(chunks) == text
    assert calls < 60 * len(text)
