"""Whether what a summary says stands in its source: numbers, names and negations."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nlpkit.apps.text.language_words import COMMON_WORDS

_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
_WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")
_NOT = """
not no never none nobody nothing neither nor without cannot nicht kein keine keinen keinem keiner nie niemand
nichts ohne ne pas jamais aucun aucune personne rien sans nunca ningún ninguna nadie nada sin
"""
_NEGATIONS = frozenset(_NOT.split())
_NUMBER_WORDS = {
    word: str(value)
    for value, words in enumerate(
        (
            "zero null zéro cero", "eins", "two zwei deux dos", "three drei trois tres",
            "four vier quatre cuatro", "five fünf cinq cinco", "six sechs seis", "seven sieben sept siete",
            "eight acht huit ocho", "nine neun neuf nueve", "ten zehn dix diez", "eleven elf onze once",
            "twelve zwölf douze doce",
        )
    )
    for word in words.split()
}  # fmt: skip
_COMMON = frozenset().union(*COMMON_WORDS.values())


def unsupported(summary: str, source: str) -> list[str]:
    """Return what a summary says that its source does not: numbers, capitalised words and negations.

    What is missing of a source is no fault of a summary; a number or a name that it lacks was invented. Words of
    another form of the same stem are taken for the source's.

    Args:
        summary: The summary.
        source: What it is of.

    Returns:
        The pieces, in order, each once; none where everything stands in the source.
    """
    lowered = [word.lower() for word in _WORD.findall(source)]
    words = set(lowered)
    stems = {_stem(word) for word in words}
    numbers = {_plain(number) for number in _NUMBER.findall(source)}
    numbers |= {_NUMBER_WORDS[word] for word in words & _NUMBER_WORDS.keys()}
    negated = any(_negates(word) for word in words)
    found: dict[str, None] = {}
    for number in _NUMBER.findall(summary):
        if _plain(number) not in numbers:
            found[number] = None
    for word, begins in _words(summary):
        lower = word.lower()
        if lower in words:
            continue
        if lower in _NUMBER_WORDS:
            invented = _NUMBER_WORDS[lower] not in numbers
        elif _negates(lower):
            invented = not negated
        else:
            invented = word[0].isupper() and _stem(lower) not in stems and not (begins and lower in _COMMON)
        if invented:
            found[word] = None
    return list(found)


def _negates(word: str) -> bool:
    return word in _NEGATIONS or word.endswith(("n't", "n’t"))


def _words(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the words of a text, and whether each begins a sentence."""
    begins = True
    at = 0
    for match in _WORD.finditer(text):
        between = text[at : match.start()]
        begins = at == 0 or any(sign in between for sign in ".!?:…\n")
        yield match.group(), begins
        at = match.end()


def _stem(word: str) -> str:
    """Return a word without its ending, as far as that is one in most languages."""
    word = re.sub(r"['’]\w+$", "", word)
    return word[: max(4, len(word) - 3)] if len(word) > 4 else word


def _plain(number: str) -> str:
    """Return a number without the signs that group its digits."""
    return re.sub(r"[.,](?=\d{3}(?!\d))", "", number).replace(",", ".")
