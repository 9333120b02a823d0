"""Texts all in capitals: telling them, lowering them for a model, raising its answer again."""

from __future__ import annotations

import re
from collections.abc import Callable

from nlpkit.apps.text.translation.protected_grammar import find_protected

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_VOWEL = re.compile("[AEIOUYÄÖÜÀÂÆÉÈÊËÍÎÏÓÔŒÚÙÛ]")
_ACRONYM_WORDS = (
    "USA UNO EU UE NATO OTAN NASA UNESCO UNICEF FIFA UEFA OPEC IKEA AIDS COVID HIV DNA ADN RNA USB URL URI UTF ASCII "
    "API CPU GPU RAM ROM SIM IP ID AI IT UI UX OS IOS IBM SAP BMW VW ARD ZDF BBC CNN CEO CIA FBI KGB USD EUR GPS LED "
    "LCD OLED ISO IEEE HTTP JPEG GIF JSON YAML TOML LAN WLAN VPN SQL UK UAE AG TÜV EDV EAN ISBN IBAN BIC SEPA OECD ONU "
    "ONG ETA UFO VIP"
)
_ACRONYMS = frozenset(_ACRONYM_WORDS.split())
_SHORT_WORDS = (
    "NO YES OFF ON UP IN OUT END ALL NEW ADD SET GO THE AND NOT FOR YOU TO OF IS IT AT BY ME WE HE BUY OLD RUN SEE TOP "
    "MY JA AN AUS ZU UND DER DIE DAS EIN IST NEU ALT WO ER SIE OUI NON ET LE LA LES UN UNE DES SUR SI SÍ EL LOS LAS DE "
    "UNA POR CON AL DEL QUE MÁS DO IF OR MEN"
)
_SHORT = frozenset(_SHORT_WORDS.split())


def is_all_caps(text: str) -> bool:
    """Tell whether a text is set in capitals, so that a translator would take its words for names.

    Placeholders, codes and links do not count; nor does a text of nothing but acronyms.
    """
    words = [word for word, _ in _words(text)]
    letters = "".join(words)
    if len(letters) < 2 or letters != letters.upper() or letters == letters.lower():
        return False
    return any(not _is_acronym(word) for word in words)


def lower_caps(text: str) -> tuple[str, Callable[[str], str]]:
    """Lower a text that is set in capitals, and say how to raise its translation.

    Args:
        text: A text for which `is_all_caps` is true; others come back as they are, with a function that changes
            nothing.

    Returns:
        The text as a sentence would be written, acronyms and protected spans kept, and a function that raises a
        translation to capitals (``ß`` becomes ``SS``) but leaves protected spans and masks as they are.
    """
    if not is_all_caps(text):
        return text, str
    pieces, done, first = [], 0, True
    for word, at in _words(text):
        lowered = word if _is_acronym(word) else word.lower()
        capital = first or word == "I" or word.startswith(("I'", "I’"))
        pieces += [text[done:at], lowered[:1].upper() + lowered[1:] if capital else lowered]
        done = at + len(word)
        first = text[done : done + 1] in tuple(".!?")
    lowered_text = "".join(pieces) + text[done:]
    return lowered_text, raise_caps


def raise_caps(text: str) -> str:
    """Return a text in capitals; placeholders, codes, links and masks stay as they are."""
    pieces, done = [], 0
    for span in find_protected(text):
        pieces += [text[done : span.start].upper(), text[span.start : span.end]]
        done = span.end
    return "".join(pieces) + text[done:].upper()


def _words(text: str) -> list[tuple[str, int]]:
    """Return the words outside protected spans, and where they begin."""
    words, done = [], 0
    for start, end in [*((span.start, span.end) for span in find_protected(text)), (len(text), len(text))]:
        words += [(match.group(), match.start()) for match in _WORD.finditer(text, done, start)]
        done = end
    return words


def _is_acronym(word: str) -> bool:
    if len(word) == 1:
        return False
    return word in _ACRONYMS or (len(word) <= 5 and not _VOWEL.search(word)) or (len(word) <= 2 and word not in _SHORT)
