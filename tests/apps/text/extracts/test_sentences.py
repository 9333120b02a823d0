"""Sentences of texts of all kinds, each in its place."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nlpkit.apps.text.extracts.sentences import common_words, find_sentences

MAIL = """Subject: Budget

Hi all,

we agreed to move the release to 14 March, since the tests are
not done yet. Anna will tell the customers.

- The bridge is closed.
- Trains run late

| a | table |
"""


def texts(text: str) -> list[str]:
    return [one.text for one in find_sentences(text)]


def test_wrapped_lines_are_joined_and_items_stand_apart() -> None:
    assert texts(MAIL) == [
        "Subject: Budget",
        "Hi all,",
        "we agreed to move the release to 14 March, since the tests are not done yet.",
        "Anna will tell the customers.",
        "The bridge is closed.",
        "Trains run late",
        "| a | table |",
    ]
    assert [one.complete for one in find_sentences(MAIL)] == [False, False, True, True, True, False, False]
    assert [one.first for one in find_sentences(MAIL)] == [True, True, True, False, True, False, True]


def test_turns_of_a_conversation_have_speakers() -> None:
    found = find_sentences("#Person1#: How are you?\n#Person2#: Fine. A room for two.\nAnna Lee: It costs 5: a lot.\n")
    assert [(one.speaker, one.text) for one in found] == [
        ("#Person1#", "How are you?"),
        ("#Person2#", "Fine."),
        ("#Person2#", "A room for two."),
        ("Anna Lee", "It costs 5: a lot."),
    ]
    # One colon does not make a conversation.
    assert find_sentences("Note: it is late.\nWe go home now, all of us together, on foot.")[0].speaker == ""


@given(st.text(alphabet=st.sampled_from("aB1.!?:,\n -|#…。ü ")))
def test_places_are_those_of_the_text(text: str) -> None:
    last = 0
    for one in find_sentences(text):
        assert last <= one.start < one.end <= len(text)
        assert one.words
        assert one.text
        # White space aside, it is what stands there, but for signs at its ends.
        assert one.text in " ".join(text[one.start : one.end].split())
        last = one.end


def test_the_language_is_told_by_its_words() -> None:
    german = find_sentences("Das ist nicht die Brücke, und wir haben sie auch nicht gesehen.")
    assert {"und", "nicht"} <= common_words(german)
    assert common_words(find_sentences("xyzzy plugh")) == frozenset()
    assert common_words([]) == frozenset()
