"""Answers among signs: what they are, where they begin, and whether all of them was found."""

from __future__ import annotations

import time

import pytest

from nlpkit.apps.tasks.qa import QuestionAnswering
from nlpkit.apps.text.answer_spans import find_span, overlap


@pytest.mark.parametrize(
    ("text", "said", "answer", "exact"),
    [
        ("Tom knows C++ and Mary knows C#.", "C#", "C#", True),
        ("Tom knows C# and Mary knows C++.", "C++", "C++", True),
        ("Tom knows C++ and Mary knows C.", "C", "C", True),
        ("Tom knows C++, C# and C.", "C", "C", True),
        ("Tom knows C++ and Mary knows F#.", "C#", "C", False),
        ("Tom knows C++.", "C", "C", False),
        ("Her emoji is 🦄.", "🦄", "🦄", True),
        ("Her emoji is 🦄.", "“🦄”.", "🦄", True),
        ("Her emoji is 🦄.", "Her favourite is 🦄!", "🦄", False),
        ("The flags are 🇫🇷 and 🇩🇪.", "🇩🇪", "🇩🇪", True),
        ("She sent ❤️ and left.", "❤", "❤️", True),
        ("She sent ❤ and left.", "❤️", "❤", True),
        ("She sent 👍🏽 and left.", "👍", "👍🏽", True),
        ("A 👩‍🔬 works here.", "👩‍🔬", "👩‍🔬", True),
        ("Press 5️⃣ now.", "5️⃣", "5️⃣", True),
        ("The sign of the euro is €.", "€", "€", True),
        ("The limit is ∞, she says.", "∞", "∞", True),
        ("In C++ the sign + adds.", "+", "+", True),
        ("It was -5.5 °C on Monday.", "5.5 °C", "-5.5 °C", True),
        ("It was -5.5 °C on Monday.", "-5.5 °C", "-5.5 °C", True),
        ("It was −5 on Monday.", "-5", "−5", True),
        ("It was 5 on Monday.", "-5", "5", False),
        ("It was 5 or -5.", "-5", "-5", True),
        ("It costs $3.50.", "3.50", "$3.50", True),
        ("It costs US$3.50.", "3.50", "$3.50", True),
        ("It lost -$3.", "3", "-$3", True),
        ("It costs 3.50 €.", "3.50€", "3.50 €", True),
        ("It costs $3 or 3 percent.", "$3", "$3", True),
        ("It costs 3 percent, or $3.", "$3", "$3", True),
        ("It costs 3.", "$3", "3", False),
        ("Call +49 30 now.", "49 30", "+49 30", True),
        ("He is #1.", "1", "#1", True),
        ("It weighs 1.5 kg, and 5 are here.", "5", "5", True),
        ("It weighs 12,000 kg.", "12", "12", False),
        ("From 10-15 people.", "15", "15", True),
        ("The F-16 flew.", "16", "16", True),
        ("It has 3,50 or 3.50.", "3.50", "3.50", True),
        ("She lives in London (Ontario).", "(Ontario)", "(Ontario)", True),
        ("She lives in London.", "- London", "London", True),
        ("She lives in London.", "**London**", "London", True),
        ("The choice - 5 apples.", "-5", "5", False),
        ("It costs $ 3.50.", "$3.50", "$ 3.50", True),
        ("She said 90% or so.", "90%", "90%", True),
    ],
)  # fmt: skip
def test_signs_are_part_of_answers(text: str, said: str, answer: str, exact: bool) -> None:
    span = find_span(text, said)
    assert span is not None
    assert (text[span.start : span.end], span.exact) == (answer, exact)


def test_the_place_whose_signs_fit() -> None:
    text = "Tom knows C++ and Mary knows C#."
    span = find_span(text, "C#", question="What does Tom know?")
    assert span is not None
    assert span.start == 29
    text = "It was 5 degrees, then -5."
    span = find_span(text, "-5", question="How many degrees was it?")
    assert span is not None
    assert span.start == 23
    span = find_span("It weighs 1.5 kg. There are 5.", "5", question="What does it weigh?")
    assert span is not None
    assert span.start == 28


@pytest.mark.parametrize(
    ("text", "said", "answer"),
    [
        ("Tom knows C++ and Mary knows C#.", "C++ and C#", "C++"),
        ("Mary knows C# and Tom knows C++.", "C++ or C#", "C#"),
        ("She has 1.5 liters.", "5 litres", "1.5"),
        ("It was -5 there.", "about 5 degrees", "-5"),
        ("It costs $12,500 in all.", "12 thousand", "$12,500"),
        ("We pay 3.", "3 euros", "3"),
    ],
)
def test_the_longest_run_is_never_a_part_of_a_name_or_number(text: str, said: str, answer: str) -> None:
    span = find_span(text, said)
    assert span is not None
    assert (text[span.start : span.end], span.exact) == (answer, False)


@pytest.mark.parametrize("said", ["", ".", "...", "?", "“”", "-", "🐎", "The answer is 🐎."])
def test_no_place(said: str) -> None:
    assert find_span("Is it so? - Her emoji is 🦄.", said, question="What is the answer?") is None


def test_answers_that_are_signs_differ() -> None:
    assert overlap("🦄", "🐎") == 0
    assert overlap("🦄", "🦄") == 1
    assert overlap("", "") == 1
    assert overlap("$3", "3") == 1


def test_a_question_about_a_sign() -> None:
    context = "The code is 42. Mary's favourite emoji is 🦄. She lives in Leeds."
    fields = QuestionAnswering().parse("🦄", {"context": context, "question": "What is Mary's favourite emoji?"}).fields
    assert (fields["answer"], fields["exact"], fields["answerable"]) == ("🦄", True, True)
    assert context[fields["start"] : fields["end"]] == "🦄"


def test_a_word_that_occurs_everywhere_takes_no_time() -> None:
    text = "The dog was here. It saw another dog. " * 4000
    started = time.process_time()
    span = find_span(text, "dog", question="Where was the dog?")
    assert span is not None
    assert (span.start, span.end) == (4, 7)
    assert time.process_time() - started < 10
