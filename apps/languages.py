"""Languages: codes, names, what users call them."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from nlpkit.core.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Language:
    """One language.

    Attributes:
        code: ISO 639-1 code, for Chinese with a script subtag.
        name: English name, as prompts use it.
        native: Its own name for itself.
        script: Unicode script of its usual spelling, such as ``Latin``; ``Han`` for Chinese.
    """

    code: str
    name: str
    native: str
    script: str = "Latin"


_TABLE = """\
af Afrikaans Afrikaans Latin|sq Albanian shqip Latin|am Amharic አማርኛ Ethiopic|ar Arabic العربية Arabic
hy Armenian հայերեն Armenian|az Azerbaijani azərbaycanca Latin|eu Basque euskara Latin
be Belarusian беларуская Cyrillic|bn Bengali বাংলা Bengali|bs Bosnian bosanski Latin|bg Bulgarian български Cyrillic
my Burmese မြန်မာဘာသာ Myanmar|ca Catalan català Latin|zh Chinese 中文 Han|zh-Hans Simplified_Chinese 简体中文 Han
zh-Hant Traditional_Chinese 繁體中文 Han|hr Croatian hrvatski Latin|cs Czech čeština Latin|da Danish dansk Latin
nl Dutch Nederlands Latin|en English English Latin|eo Esperanto Esperanto Latin|et Estonian eesti Latin
fi Finnish suomi Latin|fr French français Latin|gl Galician galego Latin|ka Georgian ქართული Georgian
de German Deutsch Latin|el Greek Ελληνικά Greek|gu Gujarati ગુજરાતી Gujarati|ht Haitian_Creole Kreyòl_ayisyen Latin
ha Hausa Hausa Latin|he Hebrew עברית Hebrew|hi Hindi हिन्दी Devanagari|hu Hungarian magyar Latin
is Icelandic íslenska Latin|ig Igbo Igbo Latin|id Indonesian Bahasa_Indonesia Latin|ga Irish Gaeilge Latin
it Italian italiano Latin|ja Japanese 日本語 Japanese|jv Javanese Jawa Latin|kn Kannada ಕನ್ನಡ Kannada
kk Kazakh қазақша Cyrillic|km Khmer ខ្មែរ Khmer|ko Korean 한국어 Hangul|ku Kurdish kurdî Latin
ky Kyrgyz кыргызча Cyrillic|lo Lao ລາວ Lao|la Latin Latina Latin|lv Latvian latviešu Latin|lt Lithuanian lietuvių Latin
lb Luxembourgish Lëtzebuergesch Latin|mk Macedonian македонски Cyrillic|mg Malagasy Malagasy Latin
ms Malay Bahasa_Melayu Latin|ml Malayalam മലയാളം Malayalam|mt Maltese Malti Latin|mi Maori Māori Latin
mr Marathi मराठी Devanagari|mn Mongolian монгол Cyrillic|ne Nepali नेपाली Devanagari|no Norwegian norsk Latin
nb Norwegian_Bokmål norsk_bokmål Latin|nn Norwegian_Nynorsk norsk_nynorsk Latin|oc Occitan occitan Latin
ps Pashto پښتو Arabic|fa Persian فارسی Arabic|pl Polish polski Latin|pt Portuguese português Latin
pa Punjabi ਪੰਜਾਬੀ Gurmukhi|ro Romanian română Latin|ru Russian русский Cyrillic|gd Scottish_Gaelic Gàidhlig Latin
sr Serbian српски Cyrillic|sn Shona chiShona Latin|sd Sindhi سنڌي Arabic|si Sinhala සිංහල Sinhala
sk Slovak slovenčina Latin|sl Slovenian slovenščina Latin|so Somali Soomaali Latin|es Spanish español Latin
su Sundanese Basa_Sunda Latin|sw Swahili Kiswahili Latin|sv Swedish svenska Latin|tl Tagalog Tagalog Latin
tg Tajik тоҷикӣ Cyrillic|ta Tamil தமிழ் Tamil|tt Tatar татарча Cyrillic|te Telugu తెలుగు Telugu|th Thai ไทย Thai
tr Turkish Türkçe Latin|tk Turkmen Türkmençe Latin|uk Ukrainian українська Cyrillic|ur Urdu اردو Arabic
ug Uyghur ئۇيغۇرچە Arabic|uz Uzbek oʻzbekcha Latin|vi Vietnamese Tiếng_Việt Latin|cy Welsh Cymraeg Latin
fy West_Frisian Frysk Latin|xh Xhosa isiXhosa Latin|yi Yiddish ייִדיש Hebrew|yo Yoruba Yorùbá Latin
zu Zulu isiZulu Latin"""

LANGUAGES: dict[str, Language] = {
    language.code: language
    for line in _TABLE.splitlines()
    for language in [Language(*(word.replace("_", " ") for word in entry.split(" "))) for entry in line.split("|")]
}
"""All known languages by code."""

_ALIASES: dict[str, str] = {
    "zh-cn": "zh-Hans",
    "zh-sg": "zh-Hans",
    "zh-tw": "zh-Hant",
    "zh-hk": "zh-Hant",
    "chinese simplified": "zh-Hans",
    "chinese traditional": "zh-Hant",
    "mandarin": "zh",
    "汉语": "zh",
    "漢語": "zh",
    "简体": "zh-Hans",
    "繁體": "zh-Hant",
    "farsi": "fa",
    "filipino": "tl",
    "fil": "tl",
    "bokmal": "nb",
    "nynorsk": "nn",
    "castellano": "es",
    "flemish": "nl",
    "slovene": "sl",
    "iw": "he",
    "in": "id",
    "eng": "en",
    "deu": "de",
    "ger": "de",
    "fra": "fr",
    "fre": "fr",
    "spa": "es",
    "ita": "it",
    "por": "pt",
    "nld": "nl",
    "zho": "zh",
    "chi": "zh",
    "jpn": "ja",
    "kor": "ko",
    "rus": "ru",
    "ara": "ar",
}


def _key(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name.strip().casefold().replace("_", "-"))
    return "".join(char for char in plain if not unicodedata.combining(char))


_BY_NAME: dict[str, str] = {
    **{_key(alias): code for alias, code in _ALIASES.items()},
    **{_key(name): lang.code for lang in LANGUAGES.values() for name in (lang.native, lang.name, lang.code)},
}


def parse_language(name: str) -> str:
    """Return the code of a language that a user named.

    Args:
        name: A code (``de``, ``zh-TW``, ``en_US``), an English name or the language's own name, in any case and
            with or without accents.

    Returns:
        A key of `LANGUAGES`.

    Raises:
        ConfigError: No such language is known.
    """
    key = _key(name)
    if key in _BY_NAME:
        return _BY_NAME[key]
    base = key.partition("-")[0]
    if "-" in key and len(base) == 2 and base in _BY_NAME:
        return _BY_NAME[base]
    names = [language.name for language in LANGUAGES.values()]
    hint = did_you_mean(name, names)
    if hint.startswith("Known"):
        hint = "Give an ISO 639-1 code such as 'de', or a name such as 'German' or 'Deutsch'."
    raise ConfigError(f"There is no language {name!r}. {hint}")


def language_name(code: str) -> str:
    """Return a language's English name.

    Raises:
        ConfigError: The code is unknown.
    """
    return LANGUAGES[parse_language(code)].name


def same_language(one: str, other: str) -> bool:
    """Tell whether two codes name one language: script subtags and the forms of Norwegian make no difference."""
    return _base(one) == _base(other)


def _base(code: str) -> str:
    return "no" if code in ("nb", "nn") else code.partition("-")[0]
