"""Names of languages, and telling them apart."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlpkit.apps.text.language_codes import CODES, HINTS, NAMES, WRONG_CODES
from nlpkit.apps.text.language_detection import detect_language, dominant_script, sure_language
from nlpkit.apps.text.languages import (
    LANGUAGES,
    fits_language,
    language_name,
    language_of_tag,
    parse_language,
    same_language,
)
from nlpkit.core.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("de", "de"),
        ("DE", "de"),
        ("german", "de"),
        ("Deutsch", "de"),
        ("en_US", "en"),
        ("pt-BR", "pt"),
        ("Francais", "fr"),
        ("français", "fr"),
        ("中文", "zh"),
        ("zh-TW", "zh-Hant"),
        ("zh_Hans", "zh-Hans"),
        ("Traditional Chinese", "zh-Hant"),
        ("norsk bokmål", "nb"),
        ("Haitian Creole", "ht"),
        (" Spanish ", "es"),
        ("pol", "pl"),
        ("ces", "cs"),
        ("cze", "cs"),
        ("ukr", "uk"),
        ("ind", "id"),
        ("deu_Latn", "de"),
        ("zho_Hans", "zh-Hans"),
        ("zho_Hant", "zh-Hant"),
        ("zh-Hant-TW", "zh-Hant"),
        ("zh-CN", "zh-Hans"),
        ("cmn", "zh"),
        ("arb_Arab", "ar"),
        ("srp_Cyrl", "sr"),
        ("sr-Latn-RS", "sr"),
        ("es-419", "es"),
        ("de_DE.UTF-8", "de"),
        ("ca_ES@valencia", "ca"),
        ("en-US-x-private", "en"),
        ("de-1996", "de"),
        ("cz", "cs"),
        ("jp", "ja"),
        ("cn", "zh-Hans"),
        ("gr", "el"),
        ("dk", "da"),
        ("iw", "he"),
        ("Chinese (Simplified)", "zh-Hans"),
        ("Chinese, Traditional", "zh-Hant"),
        ("Chinese (Taiwan)", "zh-Hant"),
        ("Brazilian Portuguese", "pt"),
        ("Portuguese (Brazil)", "pt"),
        ("Latin American Spanish", "es"),
        ("Spanish; Castilian", "es"),
        ("Castilian", "es"),
        ("American English", "en"),
        ("Serbian (Latin)", "sr"),
        ("Latin", "la"),
        ("Modern Greek", "el"),
        ("Farsi", "fa"),
        ("Französisch", "fr"),
        ("allemand", "de"),
    ],
)
def test_names(name: str, code: str) -> None:
    assert parse_language(name) == code


def test_every_name_in_the_table_is_understood() -> None:
    for language in LANGUAGES.values():
        assert parse_language(language.code) == language.code
        assert parse_language(language.name) == language.code
        assert parse_language(language.native) == language.code
        assert language_name(language.code) == language.name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("germn", "Did you mean 'German'"),
        ("Deutch", "Did you mean 'German'"),
        ("Portugese", "Did you mean 'Portuguese'"),
        ("qq", "such as 'de'"),
        ("", "such as 'de'"),
        ("klingon", "such as 'de'"),
        ("de-!!", "such as 'de'"),
        ("Old High Martian", "such as 'de'"),
        ("se", "Did you mean 'Swedish'"),
        ("Swiss German", "Did you mean 'German'"),
        ("auto", "Only the source"),
        ("(Brazil)", "such as 'de'"),
    ],
)
def test_unknown_names(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        parse_language(name)


def test_codes_name_languages_of_the_catalogue() -> None:
    for codes in (CODES, WRONG_CODES, NAMES):
        for name, code in codes.items():
            assert code in LANGUAGES
            assert parse_language(name) == code
    assert {language.code for language in LANGUAGES.values()} - set(CODES) == {"zh-Hans", "zh-Hant"}
    assert all(name in {language.name for language in LANGUAGES.values()} for name in HINTS.values())
    assert not set(HINTS) & {*CODES, *WRONG_CODES, *NAMES}


@pytest.mark.property
@given(st.text(max_size=40))
def test_any_name_is_known_or_refused(name: str) -> None:
    try:
        code = parse_language(name)
    except ConfigError:
        return
    assert code in LANGUAGES


def test_long_names_are_refused_soon() -> None:
    for name in ("de" + "-de" * 30_000 + "!", "german" * 20_000, "(" * 100_000):
        with pytest.raises(ConfigError):
            parse_language(name)


def test_scripts_of_one_language() -> None:
    assert same_language("zh", "zh-Hant")
    assert not same_language("zh", "ja")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("The weather is very nice today, and we are going to the park.", "en"),
        ("Das Wetter ist heute sehr schön, und wir gehen in den Park.", "de"),
        ("Il fait très beau aujourd'hui et nous allons dans le parc.", "fr"),
        ("Hoy hace muy buen tiempo y vamos al parque con los niños.", "es"),
        ("Oggi il tempo è molto bello e andiamo al parco con gli amici.", "it"),
        ("O tempo está muito bom hoje e nós vamos ao parque com você.", "pt"),
        ("Het weer is vandaag heel mooi en wij gaan naar het park.", "nl"),
        ("今天天气很好，我们去公园。", "zh-Hans"),
        ("今天天氣很好，我們說話。", "zh-Hant"),
        ("今日は天気がいいです。", "ja"),
        ("오늘은 날씨가 좋습니다.", "ko"),
        ("Сегодня очень хорошая погода, и мы идём в парк.", "ru"),
        ("Сьогодні дуже гарна погода, і ми йдемо до парку, але ще не зараз.", "uk"),
        ("Ο καιρός είναι καλός σήμερα.", "el"),
    ],
)
def test_sentences_are_recognised(text: str, code: str) -> None:
    found, confidence = detect_language(text)
    assert found == code
    assert 0.5 <= confidence <= 1


@pytest.mark.parametrize(
    "text", ["", "12345 !!!", "ok", "hello handsome", "Tom", "https://example.org/the/and/of", "xyzzy qwrt"]
)
def test_thin_evidence_gives_no_answer(text: str) -> None:
    assert detect_language(text)[0] is None


@pytest.mark.parametrize(
    "text", ["Bom dia", "Ciao bella", "東京", "犬", "北京大学", "Mein Haus", "Le chat", "los niños", "no"]
)
def test_a_word_or_two_never_tell(text: str) -> None:
    found, confidence = detect_language(text)
    assert found is None
    assert confidence < 0.5


@pytest.mark.parametrize(("text", "code"), [("犬は黒い", "ja"), ("你好吗", "zh"), ("Γεια", "el"), ("안녕", "ko")])
def test_scripts_tell_even_then(text: str, code: str) -> None:
    assert detect_language(text)[0] == code


def test_few_words_are_less_certain_than_many() -> None:
    few, many = detect_language("Der und die")[1], detect_language("Der Hund und die Katze sind nicht im Haus.")[1]
    assert few <= 0.7 < many


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Der Hund ist schwarz.", "de"),
        ("Le chien est noir.", "fr"),
        ("El perro es negro.", "es"),
        ("The dog is black.", "en"),
        ("C'est l'heure qu'il a choisie.", "fr"),
        ("Öffnen Sie {file} mit `foo bar` und drücken Sie Ctrl+C.", "de"),
        ("He wrote about the words der, die and das.", "en"),
        ("犬は黒い。", "ja"),
        ("Ο καιρός είναι καλός.", "el"),
    ],
)
def test_sentences_that_are_certain(text: str, code: str) -> None:
    assert sure_language(text) == code


@pytest.mark.parametrize(
    "text",
    [
        "", "OK", "Tom", "Cancel", "Tom Miller", "Mary-Jane McDonald, New York, Boston", "der die das", "12345 67890",
        "The Rolling Stones", "Der Spiegel", "犬", "https://a.org/the/of/and/is", "`the dog is black`", "XYZ ABC DEF GHI",
        "Het weer is vandaag heel mooi en wij gaan naar het park.", "Il tempo è molto bello e andiamo al parco.",
        "Hunden är svart och katten är vit.", "O cachorro não é preto e a gata também não.",
    ],
)  # fmt: skip
def test_what_is_not_certain(text: str) -> None:
    assert sure_language(text) is None


def test_long_texts_are_sampled() -> None:
    for text in ("the dog is black and ", "é", "l'a", "a@", "“", "://", "中"):
        long = text * (400_000 // len(text))
        start = time.perf_counter()
        detect_language(long)
        sure_language(long)
        assert time.perf_counter() - start < 5
    assert sure_language("The dog is black. " * 10_000) == "en"


def test_candidates_restrict_the_choice_but_not_the_script() -> None:
    text = "Das Wetter ist heute sehr schön."
    assert detect_language(text, ["de", "en"])[0] == "de"
    assert detect_language(text, ["zh", "ru", "ja"]) == (None, 0.0)
    assert detect_language("今天天气很好。", ["en", "zh"])[0] == "zh"
    assert detect_language("今天天气很好。", ["en", "ja"])[0] is None


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        *(("EN-us", "en"), ("de_AT", "de"), ("fr", "fr"), ("*all*", None), ("", None), (None, None)),
        *(("zh-Hans", "zh-Hans"), ("zh_TW", "zh-Hant"), ("zh", "zh"), ("de-what-is-this", "de"), ("x-default", None)),
    ],
)
def test_tags_in_files(tag: str | None, code: str | None) -> None:
    assert language_of_tag(tag) == code


def test_a_script_that_is_left_open_fits() -> None:
    assert fits_language("zh", "zh-Hans")
    assert fits_language("zh-Hans", "zh")
    assert not fits_language("zh-Hans", "zh-Hant")
    assert not fits_language("de", "en")
    assert not fits_language("nb", "nn")


def test_dominant_script() -> None:
    assert dominant_script("Hello 你") == ("Latin", 5 / 6)
    assert dominant_script("123") == (None, 0.0)


LATIN = [chr(i) for i in range(0x250) if chr(i).isalpha() and "LATIN" in unicodedata.name(chr(i), "")]


@pytest.mark.property
@given(st.text(alphabet=st.sampled_from([*LATIN, " ", ".", "'"]), max_size=200))
def test_latin_text_is_never_another_script(text: str) -> None:
    found, confidence = detect_language(text)
    assert found is None or LANGUAGES[found].script == "Latin"
    assert 0 <= confidence <= 1


@pytest.mark.property
@given(st.text(max_size=200))
def test_any_text_is_survived(text: str) -> None:
    assert sure_language(text) in {None, *LANGUAGES}
    found, confidence = detect_language(text)
    assert found is None or found in LANGUAGES
    assert 0 <= confidence <= 1
