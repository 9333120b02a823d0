"""Sounds of English words: syllables and rhymes, by the CMU pronouncing dictionary.

A word that the dictionary lacks is counted by two rules that err in different ways, its vowel groups and its
hyphenation; where they disagree, both counts are possible, and `is_certain` says no.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
from types import ModuleType
from typing import Any

from nlpkit.core.errors import ConfigError

_VOWELS = re.compile(r"[aeiouyäöüàâéèêëîïôùûáíóúñœæ]+", re.IGNORECASE)
_SILENT = re.compile(r"(?:[^aeiouycghsxz]es|[^aeioulyt]ed|[^aeiouyl]e)$", re.IGNORECASE)
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_SIBILANT = ("s", "z", "x", "ch", "sh", "ge", "ce", "se", "ze")


def count_syllables(word: str) -> int:
    """Estimate the syllables of an English word from its vowel groups and silent endings.

    A rough rule, not a dictionary: it miscounts words such as "poem" or "evening". A Chinese character or kana
    counts one.

    Args:
        word: One word.
    """
    unspaced = sum("\u3040" <= char <= "\u30ff" or "\u3400" <= char <= "\u9fff" for char in word)
    groups = len(_VOWELS.findall(word))
    if groups > 1 and _SILENT.search(word):
        groups -= 1
    return unspaced + groups if unspaced else max(1, groups)


@functools.cache
def has_sounds() -> bool:
    """Tell whether the dictionaries are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("pronouncing", "pyphen"))


@functools.cache
def can_search() -> bool:
    """Tell whether lines can be searched for: the dictionaries are installed, and so is what constrains decoding."""
    return has_sounds() and importlib.util.find_spec("llguidance") is not None


def words_of(line: str) -> list[str]:
    """Return the words of a line, in small letters, with straight apostrophes."""
    return [word.casefold().replace("’", "'") for word in WORD.findall(line)]


def is_known(word: str) -> bool:
    """Tell whether the dictionary has a word."""
    return bool(_phones(word.casefold()))


def syllables(line: str) -> frozenset[int]:
    """Return the numbers of syllables that a line may have.

    Args:
        line: Words; what is no word has no syllables.

    Returns:
        One number, or several where words are pronounced, or counted, in several ways. An estimate where the
        dictionaries are not installed.
    """
    totals = {0}
    for word in words_of(line):
        totals = {total + count for total in totals for count in _counts(word)}
    return frozenset(totals)


def nearest(line: str, wanted: int) -> int:
    """Return that number of syllables of a line which is the nearest to a wanted one."""
    return min(syllables(line), key=lambda count: (abs(count - wanted), count))


def is_certain(word: str) -> bool:
    """Tell whether a word's syllables are certain: the dictionary has it, or both rules agree."""
    return is_known(word) or len(_counts(word.casefold())) == 1


def rhyme_parts(word: str) -> frozenset[str]:
    """Return how a word sounds from its last stressed vowel on, a text for each pronunciation; none if unknown."""
    part = _library("pronouncing").rhyming_part
    return frozenset(part(phones) for phones in _phones(word.casefold()))


def rhymes(one: str, other: str) -> bool:
    """Tell whether two different words rhyme: they sound alike from the last stressed vowel on, and not before it."""
    one, other = one.casefold(), other.casefold()
    if one == other or not rhyme_parts(one) & rhyme_parts(other):
        return False
    return not set(_phones(one)) & set(_phones(other))


@functools.lru_cache(maxsize=4096)
def rhyming_words(word: str) -> tuple[str, ...]:
    """Return the words of the dictionary that rhyme with one, in alphabetical order."""
    word = word.casefold()
    found = {other for other in _library("pronouncing").rhymes(word) if other.isalpha()}
    return tuple(sorted(other for other in found if rhymes(word, other)))


@functools.lru_cache(maxsize=65536)
def _phones(word: str) -> tuple[str, ...]:
    return tuple(_library("pronouncing").phones_for_word(word))


@functools.lru_cache(maxsize=65536)
def _counts(word: str) -> frozenset[int]:
    if not (word.isascii() and has_sounds()):
        return frozenset({count_syllables(word)})
    phones = _phones(word)
    if phones:
        # The first one is the usual one. Others may be those of another word, such as the letters U and S for "us".
        first, *others = map(_library("pronouncing").syllable_count, phones)
        return frozenset({first, *(count for count in others if count == count_syllables(word))})
    stem, apostrophe, end = word.rpartition("'")
    if apostrophe and end == "s" and stem:
        # A possessive has one syllable more behind a hiss alone.
        more = stem.endswith(_SIBILANT)
        return frozenset(count + more for count in _counts(stem))
    return frozenset({count_syllables(word), _hyphens(word) + 1})


def _hyphens(word: str) -> int:
    return len(_hyphenation().positions(word))


@functools.cache
def _hyphenation() -> Any:
    # One letter may stand alone: what is asked is where syllables meet, not where a line may end.
    return _library("pyphen").Pyphen(lang="en_US", left=1, right=2)


@functools.cache
def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"The sounds of words need the library {name}, which is not installed: pip install 'nlpkit[writing]'."
        ) from error
