"""Texts in capitals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlpkit.apps.text.translation.letter_case import is_all_caps, lower_caps, raise_caps


@pytest.mark.parametrize(
    ("text", "lowered"),
    [
        ("THE DOOR IS OPEN.", "The door is open."),
        ("NO ENTRY", "No entry"),
        ("CANCEL", "Cancel"),
        ("I'M AT NASA. SHE SENDS A PDF!", "I'm at NASA. She sends a PDF!"),
        ("OPEN {Name} OR ⟦1⟧ AT a.txt", "Open {Name} or ⟦1⟧ at a.txt"),
        ("LA PUERTA ESTÁ ABIERTA", "La puerta está abierta"),
        ("DIE TÜR IST OFFEN", "Die tür ist offen"),
        ("NO", "No"),
    ],
)
def test_capitals_are_lowered(text: str, lowered: str) -> None:
    assert is_all_caps(text)
    assert lower_caps(text)[0] == lowered


@pytest.mark.parametrize(
    "text", ["", "The DOOR", "HTML", "USA", "PDF 5", "NATO", "I", "A", "5", "日本語", "%s", "Tom", "UTF-8 H2O"]
)
def test_other_texts_stay(text: str) -> None:
    assert not is_all_caps(text)
    lowered, restore = lower_caps(text)
    assert lowered == text
    assert restore("abc ß") == "abc ß"


def test_translations_are_raised() -> None:
    restore = lower_caps("THE STREET IS %s.")[1]
    assert (
        restore("Die Straße ist %s, größer als {a} und <b>das</b>.")
        == "DIE STRASSE IST %s, GRÖSSER ALS {a} UND <b>DAS</b>."
    )
    assert raise_caps("L'été ⟦1⟧ à a.txt") == "L'ÉTÉ ⟦1⟧ À a.txt"


@pytest.mark.property
@given(
    st.one_of(
        st.text(max_size=100),
        st.lists(st.sampled_from(["THE", " ", "ẞ", "İ", "%s", "I'M", "ǅ", ".", "a"])).map("".join),
    )
)
def test_any_text_is_survived(text: str) -> None:
    lowered, restore = lower_caps(text)
    restore(lowered)
