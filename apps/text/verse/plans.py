"""Plans of forms of verse: what each line must be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nlpkit.apps.text.verse.sounds import has_sounds, is_known, rhymes, syllables, words_of


@dataclass(frozen=True, kw_only=True)
class LinePlan:
    """What one line must be.

    Attributes:
        syllables: Fewest and most.
        rhyme: Letter of the rhyme scheme; lines with the same one rhyme. Empty where it rhymes with none.
        initial: Letter that it begins with, in capitals; empty where any will do.
        stanza: Whether a blank line comes before it.
    """

    syllables: tuple[int, int]
    rhyme: str = ""
    initial: str = ""
    stanza: bool = False


def _scheme(letters: str, counts: tuple[int, int]) -> tuple[LinePlan, ...]:
    """Return lines of one length with a rhyme scheme; a space is between stanzas."""
    plans: list[LinePlan] = []
    for stanza in letters.split():
        plans += [
            LinePlan(syllables=counts, rhyme=letter, stanza=bool(plans) and place == 0)
            for place, letter in enumerate(stanza)
        ]
    return tuple(plans)


_LONG, _SHORT = (7, 10), (5, 7)
PLANS: dict[str, tuple[LinePlan, ...]] = {
    "haiku": tuple(LinePlan(syllables=(count, count)) for count in (5, 7, 5)),
    "limerick": tuple(LinePlan(syllables=_LONG if letter == "A" else _SHORT, rhyme=letter) for letter in "AABBA"),
    "quatrain": _scheme("ABAB", (7, 9)),
    "couplets": _scheme("AABBCC", (7, 10)),
    "sonnet": _scheme("ABAB CDCD EFEF GG", (9, 11)),
}
"""The plans by which forms that are always the same are written. The sonnet's rhymes are Shakespeare's."""
_OTHERS = {
    "sonnet": ("ABBA ABBA CDE CDE", "ABBA ABBA CDC DCD", "ABAB BCBC CDCD EE"),
    "quatrain": ("AABB", "ABBA", "ABCB"),
}

ACROSTIC_SYLLABLES = (4, 10)


def plan_of(form: str, *, acrostic: str = "") -> tuple[LinePlan, ...]:
    """Return the lines of a form; none where it has no plan.

    Args:
        form: Its name.
        acrostic: The word that the initials of an acrostic spell.
    """
    if form == "acrostic":
        letters = [char.upper() for char in acrostic.casefold() if char.isalpha()]
        return tuple(LinePlan(syllables=ACROSTIC_SYLLABLES, initial=letter) for letter in letters)
    return PLANS.get(form, ())


def form_faults(lines: Sequence[str], form: str) -> list[str]:
    """Say where lines do not keep a form of `PLANS`, by that of its rhyme schemes which they come nearest to.

    Args:
        lines: Without blank ones.
        form: Its name.
    """
    plan = PLANS[form]
    others = (_scheme(scheme, plan[0].syllables) for scheme in _OTHERS.get(form, ()))
    return min((faults(lines, one) for one in (plan, *others)), key=len)


def faults(lines: Sequence[str], plan: Sequence[LinePlan]) -> list[str]:
    """Say where lines do not keep a plan; empty where they do.

    Where the dictionaries of sounds are not installed, syllables are estimated and rhymes are not checked; rhymes of
    words that they lack are not, either.

    Args:
        lines: Without blank ones.
        plan: What they should be.
    """
    if len(lines) != len(plan):
        return [f"{len(lines)} lines instead of {len(plan)}"]
    found = []
    ends: dict[str, list[str]] = {}
    for number, (line, wanted) in enumerate(zip(lines, plan, strict=True), start=1):
        words = words_of(line)
        fewest, most = wanted.syllables
        counts = syllables(line)
        if not any(fewest <= count <= most for count in counts):
            asked = str(fewest) if fewest == most else f"{fewest} to {most}"
            found.append(f"line {number} has {' or '.join(map(str, sorted(counts)))} syllables, not {asked}")
        if wanted.initial and not line.lstrip(" \"'“‘").casefold().startswith(wanted.initial.casefold()):
            found.append(f"line {number} does not begin with {wanted.initial}")
        if wanted.rhyme and words and has_sounds() and is_known(words[-1]):
            before = ends.setdefault(wanted.rhyme, [])
            if before and not rhymes(words[-1], before[0]):
                found.append(f"line {number} does not rhyme: {words[-1]!r} and {before[0]!r}")
            before.append(words[-1])
    return found
