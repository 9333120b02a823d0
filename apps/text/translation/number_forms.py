"""How languages write numbers: the decimal mark and what stands between thousands, where a number is certainly one."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from nlpkit.apps.text.translation.protected_grammar import find_protected


@dataclass(frozen=True)
class NumberForm:
    """How a language writes numbers.

    Attributes:
        decimal: Before the decimals.
        group: Between thousands.
    """

    decimal: str
    group: str


_POINT, _COMMA, _SPACED = NumberForm(".", ","), NumberForm(",", "."), NumberForm(",", "\u202f")
_FORMS = (
    (_POINT, "en zh ja ko he th hi bn ms"),
    (_COMMA, "de es it nl pt da id tr el ro hr sl sr vi"),
    (_SPACED, "fr ru uk pl cs sk sv fi no nb nn hu bg lt lv et"),
)
_BY_LANGUAGE = {code: form for form, codes in _FORMS for code in codes.split()}

_BLANKS = "\u00a0\u202f "
_NUMBER = re.compile(rf"\d{{1,3}}(?:([.,{_BLANKS}])\d{{3}}(?:\1\d{{3}})*)?(?!\d)(?:[.,]\d+)?|\d+(?:[.,]\d+)?")
_UNIT = re.compile(r"[^\W\d_]|[%‰°$€£¥₹₽¢₩₺₴]")


def number_form(language: str | None) -> NumberForm | None:
    """Return how a language writes numbers; None where that is not known here.

    Args:
        language: Its code.
    """
    return None if language is None else _BY_LANGUAGE.get(language.partition("-")[0])


def adapt_numbers(translation: str, source: str, *, source_lang: str | None, target_lang: str) -> str:
    """Write numbers as the target language does, where they were copied from the source as they stood.

    Only what is certainly a number of quantity is changed: one with a unit, a currency or a percent sign, one that has
    both marks, and one whose single mark can mean one thing only in its language. ``3.5`` alone may be a version or
    the number of a chapter, and stays.

    Args:
        translation: A translation.
        source: What was translated.
        source_lang: Code of its language; None where it is not known, and nothing is changed.
        target_lang: Code of the translation's language.
    """
    ours, theirs = number_form(source_lang), number_form(target_lang)
    if ours is None or theirs is None or ours == theirs:
        return translation
    copied = Counter(source[span.start : span.end] for span in find_protected(source) if span.kind == "number")
    pieces, done = [], 0
    for span in find_protected(translation):
        written = translation[span.start : span.end]
        if span.kind != "number" or not copied[written]:
            continue
        copied[written] -= 1
        pieces += [translation[done : span.start], _rewritten(written, ours, theirs)]
        done = span.end
    return "".join(pieces) + translation[done:]


def _rewritten(written: str, ours: NumberForm, theirs: NumberForm) -> str:
    """Return a number with its signs and unit in the other form, or as it is where it may be something else."""
    found = _NUMBER.search(written)
    if found is None or _NUMBER.search(written, found.end()):
        return written
    digits = found.group()
    groups, mark, decimals = _parted(digits, ours)
    if not groups:
        return written
    has_unit = _UNIT.search(written) is not None
    # A comma within a number divides or groups, and nothing else; a point stands in versions and chapters too.
    certain = (
        has_unit or (len(groups) > 1 and (bool(mark) or ours.group != ".")) or (bool(mark) and ours.decimal == ",")
    )
    if not certain:
        return written
    whole = theirs.group.join(groups)
    return written[: found.start()] + whole + (theirs.decimal + decimals if mark else "") + written[found.end() :]


def _parted(digits: str, form: NumberForm) -> tuple[list[str], str, str]:
    """Return the groups of a whole number, the decimal mark and the decimals; no groups where it has another form."""
    whole, mark, decimals = digits.partition(form.decimal)
    group = _BLANKS if form.group == "\u202f" else form.group
    groups = re.split(f"[{re.escape(group)}]", whole)
    fits = all(part.isdecimal() for part in groups) and all(len(part) == 3 for part in groups[1:])
    if not fits or (mark and not decimals.isdecimal()) or not (mark or len(groups) > 1):
        return [], "", ""
    return groups, mark, decimals
