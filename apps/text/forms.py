"""Checkable facts about forms of writing: lines, letters, syllables, rhymes. Facts, not a judgement of quality."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

from nlpkit.apps.text.verse.plans import PLANS, form_faults
from nlpkit.apps.text.verse.sounds import WORD, nearest

_TITLE = re.compile(
    r"^\s*(?:title\s*:\s*(?P<label>.+)|#+\s*(?P<heading>.+)|\*\*(?P<bold>[^*]+)\*\*)\s*$", re.IGNORECASE
)
_TURN = re.compile(r"^\s*(?:[*_]*(?P<speaker>[^\W\d_][\w .'’-]{0,30}?)[*_]*\s*:[*_]*\s*\S|[-–—\"“„«]\s*\S)")
_NAME_ALONE = re.compile(r"^\s*[*_]*(?P<speaker>[^\W\d_][\w .'’-]{0,30}?)[*_]*\s*:[*_]*\s*$")
_QUOTED = re.compile(r"[\"“„«'‘](?P<word>[^\W\d_]{2,30})[\"”“»'’]")

HAIKU_SYLLABLES = (5, 7, 5)


def find_title(text: str) -> str | None:
    """Return the title that a text opens with (``Title: X``, ``# X`` or ``**X**``), or None."""
    match = _TITLE.match(text.strip().partition("\n")[0])
    if match is None:
        return None
    return next(part.strip(' *"“”') for part in match.groups() if part)


def acrostic_word(prompt: str) -> str:
    """Return the word that an acrostic on a prompt spells: one in quotes or capitals, else the longest.

    Of words of equal length the last one is taken: in ``the sea`` it is the sea.

    Args:
        prompt: Such as ``HOPE``, ``a poem on "spring"`` or ``the sea``.

    Returns:
        The word; empty if the prompt has no letters.
    """
    quoted = _QUOTED.search(prompt)
    if quoted:
        return quoted.group("word")
    words = WORD.findall(prompt)
    capitals = [word for word in words if len(word) > 1 and word.isupper()]
    return capitals[0] if capitals else max(reversed(words), key=len, default="")


def check_form(text: str, form: str, *, acrostic: str = "") -> dict[str, Any]:
    """Collect checkable facts about a text of a given form.

    Args:
        text: The text, with or without a title line.
        form: One of the writing task's forms.
        acrostic: The word that an acrostic should spell.

    Returns:
        ``lines``, ``stanzas``, ``words``, and, for forms with rules, ``form_ok`` (True or False) beside what it was
        decided on, such as ``faults``; ``form_ok`` is None for forms without checkable rules. Syllables are those of
        the dictionary of sounds, or an estimate where it is not installed; then rhymes are not checked.
    """
    body = text.strip()
    if find_title(body) is not None:
        body = body.partition("\n")[2].strip()
    lines = [line.strip() for line in body.splitlines() if line.strip()]
    facts: dict[str, Any] = {
        "lines": len(lines),
        "stanzas": len([part for part in re.split(r"\n\s*\n", body) if part.strip()]),
        "words": len(WORD.findall(body)),
        "form_ok": None,
    }
    if form in PLANS:
        facts.update(_planned(lines, form))
    elif form in _CHECKS:
        facts.update(_CHECKS[form](lines, acrostic))
    return facts


def _planned(lines: list[str], form: str) -> dict[str, Any]:
    """Hold verse against the plan of its form: lines, syllables and, with the dictionary of sounds, rhymes."""
    wrong = form_faults(lines, form)
    facts: dict[str, Any] = {"form_ok": not wrong, "faults": wrong}
    if form == "haiku":
        wanted = (*HAIKU_SYLLABLES, *(0 for _ in lines))
        facts["syllables"] = [nearest(line, count) for line, count in zip(lines, wanted, strict=False)]
    return facts


def _acrostic(lines: list[str], acrostic: str) -> dict[str, Any]:
    letters = "".join(next((char for char in line if char.isalnum()), "") for line in lines).casefold()
    wanted = "".join(char for char in acrostic.casefold() if char.isalnum())
    return {"initials": letters, "acrostic": wanted, "form_ok": bool(wanted) and letters == wanted}


def _dialogue(lines: list[str], acrostic: str) -> dict[str, Any]:
    turns = [match for match in map(_TURN.match, lines) if match]
    # As in plays: the name has a line of its own, and what is said follows.
    for line, following in itertools.pairwise(lines):
        name = _NAME_ALONE.match(line)
        if name and not _NAME_ALONE.match(following):
            turns.append(name)
    speakers = sorted({match.group("speaker").strip() for match in turns if match.group("speaker")})
    return {"turns": len(turns), "speakers": speakers, "form_ok": len(turns) >= 2}


_CHECKS: dict[str, Callable[[list[str], str], dict[str, Any]]] = {
    "acrostic": _acrostic,
    "dialogue": _dialogue,
}
