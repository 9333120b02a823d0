"""Terms of a glossary: where a text uses them, also inflected, and whether a translation follows them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

# Scripts without blanks between words count character by character.
_TOKEN = re.compile(
    "[\u2e80-\U0003ffff][\u0300-\u036f]*|(?:(?![\u2e80-\U0003ffff])\\w[\u0300-\u036f\u00ad]*)+|\\s+|[^\\w\\s]"
)
_SIGNS = {**dict.fromkeys("’‘ʼ´`", "'"), **dict.fromkeys("‐‑‒–−\u00ad", "-")}
_UNSPACED = "\u2e80"

# (ending of a form, ending of its base, shortest base); a form may have several bases, only shared ones count.
_RULES: dict[str, tuple[tuple[str, str, int], ...]] = {
    "en": (
        ("s", "", 3), ("es", "", 3), ("ies", "y", 3), ("ves", "f", 3), ("ves", "fe", 3), ("ing", "", 3),
        ("ing", "e", 3), ("ed", "", 3), ("ed", "e", 3), ("ied", "y", 3), ("men", "man", 4), ("children", "child", 5),
        ("mice", "mouse", 5),
    ),
    "de": (
        ("e", "", 3), ("en", "", 3), ("er", "", 3), ("es", "", 3), ("em", "", 3), ("ern", "", 3), ("s", "", 3),
        ("n", "", 3), ("ens", "", 3), ("nen", "", 4), ("sse", "s", 3), ("se", "", 4), ("te", "", 4), ("t", "", 4),
        ("st", "", 4), ("en", "um", 4), ("en", "us", 4), ("a", "um", 4),
    ),
    "fr": (
        ("s", "", 3), ("x", "", 3), ("e", "", 3), ("es", "", 3), ("aux", "al", 4), ("aux", "ail", 4), ("ve", "f", 3),
        ("ves", "f", 3), ("euse", "eux", 4), ("euses", "eux", 4), ("ère", "er", 4), ("ères", "er", 4), ("nne", "n", 4),
        ("nnes", "n", 4), ("lle", "l", 3), ("lles", "l", 3), ("trice", "teur", 5), ("euse", "eur", 4),
    ),
    "es": (
        ("s", "", 3), ("es", "", 3), ("a", "o", 4), ("as", "o", 4), ("os", "o", 4), ("a", "", 4), ("as", "", 4),
        ("ces", "z", 3), ("ones", "ón", 4), ("anes", "án", 4), ("ines", "ín", 4), ("enes", "en", 4), ("ana", "ano", 4),
    ),
}  # fmt: skip
_UMLAUTS = (("äu", "au"), ("ä", "a"), ("ö", "o"), ("ü", "u"))
_DOUBLED = re.compile(r"([bdfglmnprt])\1(?:ing|ed|er)$")
_ANY = tuple(dict.fromkeys(rule for rules in _RULES.values() for rule in rules))
# Where the language is not known, rules that make other words of English ones (car, care) are left to German nouns.
_CAREFUL = tuple(dict.fromkeys((*_RULES["en"], ("x", "", 4), ("ces", "z", 3), ("aux", "al", 4), ("ones", "ón", 4))))


@dataclass(frozen=True, slots=True)
class Match:
    """A term of a glossary in a text.

    Attributes:
        start: Offset of its first character.
        end: Offset behind its last character.
        term: The term as the glossary has it.
        target: How the glossary wants it translated.
    """

    start: int
    end: int
    term: str
    target: str


class _Token(NamedTuple):
    start: int
    end: int
    written: str
    key: str


def find_terms(text: str, glossary: Mapping[str, str], *, language: str | None = None) -> tuple[Match, ...]:
    """Find the terms of a glossary in a text.

    White space, line ends, ’ and ', ‑ and - make no difference, nor does the case, but for terms in capitals (``IT``).
    Terms stand at word edges, a hyphen being none; in Chinese and Japanese anywhere. Inflected forms are found by the
    endings of the language: rules, not a dictionary, so a form may be missed and a rare word taken for one.

    Args:
        text: The source text.
        glossary: Terms and their translations.
        language: Code of the text's language; None uses endings that are safe in any of en, de, fr, es.

    Returns:
        Matches in order that do not overlap; of several at one place the longest.
    """
    entries: dict[str, list[tuple[list[_Token], str, str]]] = {}
    for term, target in glossary.items():
        tokens = _tokens(term.strip())
        for base in _bases(tokens[0], language) if tokens else ():
            entries.setdefault(base, []).append((tokens, term, target))
    words = _tokens(text) if entries else []
    shouting = text == text.upper()
    matches: list[Match] = []
    done = 0
    for index, word in enumerate(words):
        if index < done:
            continue
        if word.key == " ":
            continue
        fitting = (
            entry
            for base in _bases(word, language)
            for entry in entries.get(base, ())
            if _fits(entry[0], words, index, language, shouting)
        )
        found = max(fitting, key=lambda entry: len(entry[0]), default=None)
        if found is not None:
            done = index + len(found[0])
            matches.append(Match(word.start, words[done - 1].end, found[1], found[2]))
    return tuple(matches)


def followed(match: Match, translation: str, *, language: str | None = None) -> bool:
    """Tell whether a translation uses the glossary's translation of a term.

    Args:
        match: The term as `find_terms` found it.
        translation: The whole translation.
        language: Code of the translation's language; None accepts the endings of en, de, fr and es.

    Returns:
        Whether the wanted words stand there as words, possibly inflected and with other white space; true if the
        glossary wants none.
    """
    wanted = _tokens(match.target.strip())
    words = _tokens(translation)
    return not wanted or any(
        all(_inflected(one, two, language) for one, two in zip(wanted, words[index : index + len(wanted)], strict=True))
        for index in range(len(words) - len(wanted) + 1)
    )


def _inflected(wanted: _Token, word: _Token, language: str | None) -> bool:
    if _is_caps(wanted.written):
        return word.written in (wanted.written, wanted.written + "s")
    if wanted.key == word.key or not wanted.key[0].isalpha():
        return wanted.key == word.key
    if _keys(wanted.key, _RULES.get(language or "", _ANY)) & _keys(word.key, _RULES.get(language or "", _ANY)):
        return True
    # Verbs and rarer endings: the same beginning, and no more than an ending behind it.
    shared = max(4, len(wanted.key) - 2)
    return len(word.key) <= len(wanted.key) + 3 and wanted.key[:shared] == word.key[:shared]


def _fits(term: Sequence[_Token], words: Sequence[_Token], index: int, language: str | None, shouting: bool) -> bool:
    here = words[index : index + len(term)]
    if len(here) < len(term) or not all(
        _same(one, two, language, shouting) for one, two in zip(term, here, strict=True)
    ):
        return False
    return _is_edge(words, index - 1, index - 2, term[0]) and _is_edge(
        words, index + len(term), index + len(term) + 1, term[-1]
    )


def _is_edge(words: Sequence[_Token], beside: int, beyond: int, token: _Token) -> bool:
    """Whether a match may end here: hot-dog holds no dog."""
    if not token.key[-1:].isalnum() or token.key >= _UNSPACED or not 0 <= beside < len(words):
        return True
    compound = words[beside].key == "-" and 0 <= beyond < len(words) and words[beyond].key[:1].isalnum()
    return not compound


def _same(term: _Token, word: _Token, language: str | None, shouting: bool) -> bool:
    if _is_caps(term.written):
        return word.written in (term.written, term.written + "s")
    if _is_caps(word.written) and not shouting and len(word.written) < 4:
        return False
    return term.key == word.key or bool(_bases(term, language) & _bases(word, language))


def _is_caps(written: str) -> bool:
    return len(written) > 1 and written.isupper()


def _bases(token: _Token, language: str | None) -> frozenset[str]:
    rules = _RULES.get(language or "", _CAREFUL)
    german_noun = language is None and token.written[:1].isupper() and not token.written.isupper()
    return _keys(token.key, (*rules, *_RULES["de"]) if german_noun else rules)


@lru_cache(maxsize=16384)
def _keys(key: str, rules: tuple[tuple[str, str, int], ...]) -> frozenset[str]:
    """Return a word and what it may be a form of."""
    if not key[:1].isalpha() or key >= _UNSPACED:
        return frozenset([key])
    bases = {key}
    for ending, base, shortest in rules:
        if key.endswith(ending) and len(key) - len(ending) + len(base) >= shortest:
            bases.add(key[: len(key) - len(ending)] + base)
    doubled = _DOUBLED.search(key)
    if doubled and rules[:1] == _RULES["en"][:1]:
        bases.add(key[: doubled.start() + 1])
    for umlaut, plain in _UMLAUTS:
        if umlaut in key and _RULES["de"][0] in rules:
            bases |= {plain.join(base.rsplit(umlaut, 1)) for base in bases}
            break
    return frozenset(bases)


def _tokens(text: str) -> list[_Token]:
    return [_Token(*match.span(), match.group(), _key(match.group())) for match in _TOKEN.finditer(text)]


@lru_cache(maxsize=16384)
def _key(written: str) -> str:
    if written.isspace():
        return " "
    plain = unicodedata.normalize("NFC", written.replace("\u00ad", "") or "-").casefold()
    return _SIGNS.get(plain, plain)
