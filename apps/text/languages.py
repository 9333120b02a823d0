"""Languages: codes, names, what users call them."""

from __future__ import annotations

import contextlib
import difflib
import re
import unicodedata
from dataclasses import dataclass

from nlpkit.apps.text.language_codes import CODES, HINTS, NAMES, QUALIFIERS, SCRIPT_WORDS, WRONG_CODES
from nlpkit.core.errors import ConfigError


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


def _key(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name.strip().casefold().replace("_", "-"))
    return "".join(char for char in plain if not unicodedata.combining(char))


def _words(key: str) -> str:
    return " ".join(_SIGNS.sub(" ", key).split())


_SIGNS = re.compile(r"[-(),;:/|\[\]]")
_BY_NAME: dict[str, str] = {
    **WRONG_CODES,
    **CODES,
    **{_key(name): code for name, code in NAMES.items()},
    **{_key(name): lang.code for lang in LANGUAGES.values() for name in (lang.native, lang.name, lang.code)},
}
_BY_WORDS: dict[str, str] = {_words(name): code for name, code in _BY_NAME.items()}
# What may follow a code: script, region, variants, extensions.
_SUBTAGS = re.compile(
    r"(?:-[a-z]{4}|-[a-z]{2,3}|-\d{3}|-[a-z0-9]{5,8}|-\d[a-z0-9]{3}|-[a-wyz]-[a-z0-9]{2,8}|-x(?:-[a-z0-9]{1,8})+)*"
)
_LOCALE_END = re.compile(r"[.@].*$", re.DOTALL)
_AUTO = frozenset({"auto", "detect", "automatic"})

SIMILARITY = 0.75
"""Below it a known name is no hint for an unknown one."""


def parse_language(name: str) -> str:
    """Return the code of a language that a user named.

    Args:
        name: An ISO 639 code of two or three letters, alone or with script, region and the like (``zh-TW``,
            ``deu_Latn``, ``en_US.UTF-8``), a usual wrong code (``jp``), an English name, also with a country or
            script (``Chinese (Simplified)``, ``Brazilian Portuguese``), or the language's own name; in any case and
            with or without accents.

    Returns:
        A key of `LANGUAGES`.

    Raises:
        ConfigError: No such language is known.
    """
    key = _key(name)
    code = _BY_NAME.get(key) or _by_code(_LOCALE_END.sub("", key)) or _by_words(_words(key))
    if code is None:
        raise ConfigError(f"There is no language {name!r}. {_hint(key)}")
    return code


def language_of_tag(tag: str | None) -> str | None:
    """Return the code of the language of a tag in a file, such as ``EN-us``; None for none and for unknown ones.

    Args:
        tag: The tag. Of Chinese its script is told, if the tag tells it; what else stands behind the first part, and
            what makes no sense there, is left aside.
    """
    tag = (tag or "").replace("_", "-")
    for said in dict.fromkeys((tag, tag.split("-")[0])):
        with contextlib.suppress(ConfigError):
            return parse_language(said)
    return None


def _by_code(key: str) -> str | None:
    base, dash, rest = key.partition("-")
    code = CODES.get(base) or WRONG_CODES.get(base)
    if code is None or not _SUBTAGS.fullmatch(dash + rest):
        return None
    return _written(code, rest.split("-"))


def _by_words(words: str) -> str | None:
    if words in _BY_WORDS:
        return _BY_WORDS[words]
    said = words.split()
    code = _BY_WORDS.get(" ".join(word for word in said if word not in QUALIFIERS))
    return _written(code, said) if code else None


def _written(code: str, said: list[str]) -> str:
    """Return the code of Chinese with its script, if that is told; any other code as it is."""
    script = next((SCRIPT_WORDS[word] for word in said if word in SCRIPT_WORDS), None) if code == "zh" else None
    return f"{code}-{script}" if script else code


def _hint(key: str) -> str:
    if key in _AUTO:
        return "Only the source's language can be detected: name the language to translate into."
    meant = HINTS.get(_words(key))
    if meant is None and len(key) > 3:
        names = {
            _key(known): language.name for language in LANGUAGES.values() for known in (language.name, language.native)
        }
        names |= {_key(known): LANGUAGES[code].name for known, code in NAMES.items()}
        close = difflib.get_close_matches(key[:60], names, n=1, cutoff=SIMILARITY)
        meant = names[close[0]] if close else None
    if meant is None:
        return "Give an ISO 639 code such as 'de', or a name such as 'German' or 'Deutsch'."
    return f"Did you mean {meant!r}?"


def language_name(code: str) -> str:
    """Return a language's English name.

    Raises:
        ConfigError: The code is unknown.
    """
    return LANGUAGES[parse_language(code)].name


def fits_language(wanted: str, said: str) -> bool:
    """Tell whether what is said to be in one language can be taken for another: one of both may leave its script open.

    Args:
        wanted: A code.
        said: Another.
    """
    one, two = wanted.partition("-"), said.partition("-")
    return wanted == said or (one[0] == two[0] and not (one[2] and two[2]))


def same_language(one: str, other: str) -> bool:
    """Tell whether two codes name one language: script subtags and the forms of Norwegian make no difference."""
    return _base(one) == _base(other)


def _base(code: str) -> str:
    return "no" if code in ("nb", "nn") else code.partition("-")[0]
