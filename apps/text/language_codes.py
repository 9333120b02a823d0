"""Further codes and names of languages: ISO 639-2 and 639-3, deprecated and wrong ones, what people and tools say."""

from __future__ import annotations

_ISO = """\
af afr|sq sqi alb als|am amh|ar ara arb|hy hye arm|az aze azj|eu eus baq|be bel|bn ben|bs bos|bg bul|my mya bur|ca cat
zh zho chi cmn|hr hrv scr|cs ces cze|da dan|nl nld dut|en eng|eo epo|et est ekk|fi fin|fr fra fre|gl glg|ka kat geo
de deu ger|el ell gre|gu guj|ht hat|ha hau|he heb iw|hi hin|hu hun|is isl ice|ig ibo|id ind in|ga gle|it ita|ja jpn
jv jav jw|kn kan|kk kaz|km khm|ko kor|ku kur kmr|ky kir|lo lao|la lat|lv lav lvs|lt lit|lb ltz|mk mkd mac|mg mlg plt
ms msa may zsm|ml mal|mt mlt|mi mri mao|mr mar|mn mon khk|ne nep npi|no nor|nb nob|nn nno|oc oci|ps pus pbt
fa fas per pes|pl pol|pt por|pa pan|ro ron rum mo mol|ru rus|gd gla|sr srp scc sh hbs|sn sna|sd snd|si sin|sk slk slo
sl slv|so som|es spa|su sun|sw swa swh|sv swe|tl tgl fil|tg tgk|ta tam|tt tat|te tel|th tha|tr tur|tk tuk|uk ukr|ur urd
ug uig|uz uzb uzn|vi vie|cy cym wel|fy fry|xh xho|yi yid ydd ji|yo yor|zu zul"""

CODES: dict[str, str] = {
    code: codes[0]
    for line in _ISO.splitlines()
    for entry in line.split("|")
    for codes in [entry.split()]
    for code in codes
}
"""ISO 639-1, 639-2 and 639-3 codes and deprecated ones, with the 639-1 code that the catalogue of languages uses."""

WRONG_CODES: dict[str, str] = {
    "cz": "cs", "jp": "ja", "cn": "zh-Hans", "gr": "el", "dk": "da", "kr": "ko", "ua": "uk", "vn": "vi", "ir": "fa",
    "rs": "sr", "gb": "en", "us": "en", "mx": "es", "chs": "zh-Hans", "cht": "zh-Hant", "zhs": "zh-Hans",
    "zht": "zh-Hant", "esp": "es", "ptb": "pt", "ptbr": "pt", "enus": "en", "engb": "en",
    "zhcn": "zh-Hans", "zhtw": "zh-Hant",
}  # fmt: skip
"""Codes of countries and the like that people write for languages, where they mean no other language that is known."""

HINTS: dict[str, str] = {
    "se": "Swedish", "br": "Portuguese", "ee": "Estonian", "tw": "Traditional Chinese", "at": "German", "ch": "German",
    "il": "Hebrew", "al": "Albanian", "by": "Belarusian", "yue": "Traditional Chinese",
    "cantonese": "Traditional Chinese",
    "swiss german": "German", "gsw": "German", "ckb": "Kurdish", "prs": "Persian", "arz": "Arabic", "ary": "Arabic",
}  # fmt: skip
"""What was perhaps meant by codes and names of what is another language or a country."""

_NAMES: dict[str, str] = {
    "zh": "mandarin|mandarin chinese|汉语|漢語|中国语|putonghua|chinesisch|chinois|chino",
    "zh-Hans": "简体|简体字|zh-cn|zh-sg|zh-my",
    "zh-Hant": "繁體|繁体中文|正體中文|zh-tw|zh-hk|zh-mo",
    "en": "englisch|anglais|inglés|inglese",
    "de": "high german|standard german|allemand|alemán|tedesco",
    "fr": "französisch|francés|francese",
    "es": "castellano|castilian|spanisch|espagnol|spagnolo",
    "it": "italienisch|italien",
    "pt": "portugiesisch|portugais|portugués|brazilian|brasileiro",
    "nl": "flemish|holländisch|niederländisch|néerlandais|neerlandés|vlaams",
    "ru": "russisch|russe|ruso",
    "ja": "japanisch|japonais|japonés|nihongo",
    "pl": "polnisch|polonais|polaco",
    "ar": "modern standard arabic|arabisch|arabe|árabe",
    "tr": "türkisch|turc|turco",
    "fa": "farsi|persian farsi|parsi",
    "tl": "filipino|pilipino",
    "nb": "bokmal|bokmål",
    "nn": "nynorsk",
    "sl": "slovene",
    "bn": "bangla",
    "pa": "panjabi",
    "si": "sinhalese",
    "my": "myanmar",
    "ky": "kirghiz|kyrghyz",
    "ug": "uighur|uygur",
    "fy": "frisian|western frisian",
    "ca": "valencian|catalan valencian",
    "ro": "moldovan|moldavian",
    "gd": "scots gaelic|gaelic",
    "ga": "irish gaelic",
    "ku": "kurmanji|northern kurdish",
    "ht": "haitian|creole",
    "km": "cambodian|central khmer",
    "el": "modern greek|greek modern",
    "he": "ivrit",
    "sq": "tosk albanian",
    "az": "azeri|north azerbaijani",
    "lv": "standard latvian|lettish",
    "ms": "standard malay",
    "mn": "halh mongolian",
    "ne": "nepalese",
    "ps": "pushto|southern pashto",
    "uz": "northern uzbek",
    "mg": "plateau malagasy",
    "lb": "letzeburgesch",
    "be": "belorussian|byelorussian",
    "hi": "hindustani",
    "eu": "euskera",
}

NAMES: dict[str, str] = {name: code for code, names in _NAMES.items() for name in names.split("|")}
"""Further names, with the code of the language."""

_QUALIFIERS = (
    "simplified traditional han script latin cyrillic arabic brazil brazilian brasil portugal european europe american "
    "us usa uk british united states kingdom australia australian india indian ireland canada canadian mexico "
    "mexican argentina spain castilian america germany austria austrian switzerland france belgium china mainland "
    "prc singapore taiwan hong kong standard modern macrolanguage individual language neutral international "
    "de del brasileiro"
)
QUALIFIERS: frozenset[str] = frozenset(_QUALIFIERS.split())
"""Words that may stand beside the name of a language: where it is spoken, how it is written."""

SCRIPT_WORDS: dict[str, str] = {
    **dict.fromkeys(("simplified", "china", "mainland", "prc", "singapore", "hans", "cn", "sg"), "Hans"),
    **dict.fromkeys(("traditional", "taiwan", "hong", "hant", "tw", "hk", "mo"), "Hant"),
}
"""What tells how Chinese is written."""
