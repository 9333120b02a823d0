"""What the numbers of a text are worth, however English, German, French and Spanish write them."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from functools import lru_cache

_WORDS = {
    0: "zero null zéro cero",
    1: "one ein eine einen einem einer eines eins un une uno una a an first once erste ersten erster erstes einmal "
    "premier première primero primera primer",
    2: "two zwei deux dos second twice zweite zweiten zweiter zweites zweimal beide deuxième seconde segundo segunda",
    3: "three drei trois tres third dritte dritten dritter drittes dreimal troisième tercero tercera tercer",
    4: "four vier quatre cuatro fourth vierte vierten vierter viertes quatrième cuarto cuarta",
    5: "five fünf cinq cinco fifth fünfte fünften fünfter cinquième quinto quinta",
    6: "six sechs seis sixth sechste sechsten sechster sixième sexto sexta",
    7: "seven sieben sept siete seventh siebte siebten siebter septième séptimo séptima",
    8: "eight acht huit ocho eighth achte achten achter huitième octavo octava",
    9: "nine neun neuf nueve ninth neunte neunten neunter neuvième noveno novena",
    10: "ten zehn dix diez tenth zehnte zehnten zehnter dixième décimo décima",
    11: "eleven elf onze once eleventh elfte elften elfter onzième undécimo",
    12: "twelve zwölf douze doce twelfth zwölfte zwölften zwölfter douzième dozen dutzend douzaine docena",
}
NUMBER_WORDS: dict[str, frozenset[int]] = {}
"""Number words of four languages, lower-cased, with the values each may have (Spanish ``once`` is eleven)."""
for _value, _words in _WORDS.items():
    for _word in _words.split():
        NUMBER_WORDS[_word] = NUMBER_WORDS.get(_word, frozenset()) | {_value}

_MONTHS = (
    "january januar jänner janvier enero jan",
    "february februar février febrero feb febr févr",
    "march märz mars marzo mar mär",
    "april avril abril apr avr abr",
    "may mai mayo",
    "june juni juin junio jun",
    "july juli juillet julio jul juil",
    "august août agosto aug ago",
    "september septembre septiembre setiembre sep sept",
    "october oktober octobre octubre oct okt",
    "november novembre noviembre nov",
    "december dezember décembre diciembre dec dez déc dic",
)
MONTHS: dict[str, int] = {word: number for number, words in enumerate(_MONTHS, 1) for word in words.split()}
"""Names of months in four languages, lower-cased, with their numbers."""

_MONTH_NAMES = "|".join(sorted(map(re.escape, MONTHS), key=len, reverse=True))
_DATED = re.compile(
    rf"(?<!\w)\d{{1,2}}(?:st|nd|rd|th|er|\.|º)?\s{{1,3}}(?:of\s|de\s|de\sl')?\s?(?P<after>{_MONTH_NAMES})(?!\w)"
    rf"|(?<!\w)(?P<before>{_MONTH_NAMES})\.?,?\s{{1,3}}(?:de\s|del\s)?(?:\d{{1,2}}(?:st|nd|rd|th)?(?:,\s?\d{{4}})?|\d{{4}})(?!\w)",
    re.IGNORECASE,
)
_ROMAN = re.compile(r"(?<!\w)(?=[IVXLC])(X{0,3}|XL|L)(IX|IV|V?I{0,3})(?:e|er|ème|th)?(?!\w)")
_ROMAN_DIGITS = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}
_COMPOUND = re.compile("zwei|drei|vier|fünf|sechs|sieben|acht|neun|zehn|elf|zwölf")
_LETTERS = re.compile(r"[^\W\d_]+")
_MINUS = "-−"
_GROUPING = re.compile("[\u00a0\u202f '’]")


@lru_cache(maxsize=4096)
def number_values(written: str) -> frozenset[Decimal]:
    """Return what a number as written may be worth.

    Args:
        written: One number, possibly with a sign, thousands separators, a decimal part and signs around it.

    Returns:
        One value, or two where a single separator before three digits may group or divide (``1,234``); empty
        without digits. A leading minus counts.
    """
    found = re.search(r"\d[\d.,'’\u00a0\u202f ]*", written)
    if not found:
        return frozenset()
    digits = _GROUPING.sub("", found.group().rstrip(".,'’\u00a0\u202f "))
    negative = written[: found.start()].strip()[:1] in tuple(_MINUS)
    readings = {_decimal(reading) for reading in _readings(digits)}
    return frozenset(-value if negative else value for value in readings if value is not None)


def _readings(digits: str) -> tuple[str, ...]:
    dots, commas = digits.count("."), digits.count(",")
    if dots and commas:
        head, decimal, tail = digits.rpartition(max(".,", key=digits.rfind))
        if decimal in head:
            return (re.sub(r"\D", "", digits),)
        return (f"{re.sub('[.,]', '', head)}.{tail}",)
    separator = "." if dots else ","
    if dots + commas > 1:
        return (digits.replace(separator, ""),)
    head, _, tail = digits.partition(separator)
    if len(tail) == 3 and 1 <= len(head) <= 3 and head.strip("0"):
        return (head + tail, f"{head}.{tail}")
    return (f"{head}.{tail}" if tail else head,)


def _decimal(reading: str) -> Decimal | None:
    try:
        return Decimal(reading).normalize()
    except InvalidOperation:
        return None


def dated_months(text: str) -> list[tuple[str, int]]:
    """Return the months of the dates in a text that spell them: ``3 March``, ``am 3. März``, ``May 2024``.

    Returns:
        Each month as written and its number, in order. A month without a day or year is none: "may" is a verb.
    """
    found = ((match.group("after") or match.group("before")) for match in _DATED.finditer(text))
    return [(name, MONTHS[name.lower()]) for name in found if name.lower() in MONTHS and name != "may"]


def worded_values(text: str) -> dict[Decimal, int]:
    """Count the values that a text may spell in words, Roman numerals or names of months.

    Returns:
        How often each value may stand there; a word of two meanings counts for both.
    """
    counts: dict[Decimal, int] = {}
    for word in _LETTERS.findall(text):
        lowered = word.lower()
        month = MONTHS.get(lowered)
        head = _COMPOUND.match(lowered)
        meanings = NUMBER_WORDS.get(lowered) or NUMBER_WORDS.get(head.group() if head else "") or frozenset()
        for value in meanings | ({month} if month else frozenset()):
            counts[Decimal(value)] = counts.get(Decimal(value), 0) + 1
    for match in _ROMAN.finditer(text):
        value = _roman(match.group(1) + match.group(2))
        counts[Decimal(value)] = counts.get(Decimal(value), 0) + 1
    return counts


def _roman(letters: str) -> int:
    values = [_ROMAN_DIGITS[letter] for letter in letters]
    return sum(-one if one < two else one for one, two in zip(values, [*values[1:], 0], strict=True))
