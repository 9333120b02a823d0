"""Numbers follow the target language where they are certainly numbers of quantity, and stay where they may be more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlpkit.apps.text.translation.number_forms import adapt_numbers, number_form
from nlpkit.apps.text.translation.number_values import number_values
from nlpkit.apps.text.translation.protected import compare


@pytest.mark.parametrize(
    ("source_lang", "target_lang", "copied", "expected"),
    [
        ("en", "de", "3.5 km", "3,5 km"),
        ("en", "de", "10.5%", "10,5%"),
        ("en", "de", "$1,299.99", "$1.299,99"),
        ("en", "de", "1,234,567", "1.234.567"),
        ("en", "de", "1,234", "1.234"),
        ("en", "fr", "1,234,567.5", "1\u202f234\u202f567,5"),
        ("en", "es", "-2.5 °C", "-2,5 °C"),
        ("de", "en", "3,5", "3.5"),
        ("de", "en", "1.299,99 €", "1,299.99 €"),
        ("fr", "en", "1 234,5 km", "1,234.5 km"),
        ("fr", "de", "1\u202f234,5", "1.234,5"),
        # What may be a version, a chapter or a time stays.
        ("en", "de", "3.5", "3.5"),
        ("en", "de", "3.14", "3.14"),
        ("de", "en", "12.30", "12.30"),
        ("de", "en", "1.234", "1.234"),
        ("en", "de", "2.0.1", "2.0.1"),
        ("en", "de", "10.0.0.1", "10.0.0.1"),
        ("en", "de", "2024-05-01", "2024-05-01"),
        ("en", "de", "42", "42"),
        ("en", "de", "16:9", "16:9"),
        ("en", "zh-Hans", "3.5 km", "3.5 km"),
        ("de", "es", "3,5 km", "3,5 km"),
        (None, "de", "3.5 km", "3.5 km"),
        ("en", "tlh", "3.5 km", "3.5 km"),
    ],
)
def test_copied_numbers(source_lang: str | None, target_lang: str, copied: str, expected: str) -> None:
    source, translation = f"Look: {copied} here.", f"Siehe: {copied} hier."
    adapted = adapt_numbers(translation, source, source_lang=source_lang, target_lang=target_lang)
    assert adapted == f"Siehe: {expected} hier."
    assert not compare(source, adapted)


def test_only_what_was_copied_is_changed() -> None:
    assert adapt_numbers("3.5 km und 3,5 km", "3.5 km", source_lang="en", target_lang="de") == "3,5 km und 3,5 km"
    assert adapt_numbers("4.5 km", "3.5 km", source_lang="en", target_lang="de") == "4.5 km"
    assert adapt_numbers("a-3.5km.png", "a-3.5km.png", source_lang="en", target_lang="de") == "a-3.5km.png"


@pytest.mark.property
@given(st.decimals(0, 10**9, places=2), st.sampled_from(["de", "fr", "es"]))
def test_a_number_keeps_its_value(value: object, language: str) -> None:
    written = f"{value:,} km"
    adapted = adapt_numbers(written, written, source_lang="en", target_lang=language)
    assert number_values(adapted) == number_values(written)
    form = number_form(language)
    assert form is not None
    assert adapted.count(form.decimal) == 1
    assert adapt_numbers(adapted, adapted, source_lang=language, target_lang="en") == written
