"""Which strings of a file are for people, and which for programs."""

from __future__ import annotations

import re

from nlpkit.apps.documents.formats.strings.messages import has_cases
from nlpkit.apps.text.translation.layout import copies_as_is

_PROGRAM_KEYS = (
    "id uuid type url uri href src link image img icon class style color colour lang language locale version license "
    "format encoding path file filename email key slug code charset target rel method css selector regex pattern "
    "$schema $id $ref schema sha sha256 hash date datetime timestamp created updated host hostname port user username "
    "password token secret command cmd shell script entrypoint runs-on uses"
)
PROGRAM_KEYS = frozenset(_PROGRAM_KEYS.split())
"""Keys whose strings are for programs, unless there are blanks in them."""

_SETTINGS = frozenset(["true", "false", "yes", "no", "on", "off", "none", "null", "auto", "default", "utf-8", "utf8"])
_WORD_LIKE = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?[.!?…:]*")


def is_for_people(text: str, *, key: str = "", settings: bool = False) -> bool:
    """Tell whether a string is for people: not a link, an identifier, or what stands under a key for programs.

    Args:
        text: The string.
        key: Its key.
        settings: Whether files of the format mostly hold a program's settings: single words in small letters are then
            values of these, and not words for people.
    """
    body = text.strip()
    if has_cases(body):
        return True
    if not any(map(str.isalpha, body)) or copies_as_is(body):
        return False
    if key.lower() in PROGRAM_KEYS and not re.search(r"\s", body):
        return False
    if not settings or re.search(r"\s", body):
        return True
    return bool(_WORD_LIKE.fullmatch(body)) and body.lower() not in _SETTINGS and not body.islower()
