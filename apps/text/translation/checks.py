"""What can be noticed about a translation without knowing its language."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from nlpkit.apps.text.language_detection import detect_language, is_detectable
from nlpkit.apps.text.languages import LANGUAGES, same_language
from nlpkit.apps.text.repetition import is_loop
from nlpkit.apps.text.translation.protected import Differences, compare

COPY_LENGTH = 24
"""Shorter texts may well be the same in both languages (names, titles)."""

SURE = 0.8
"""Confidence from which a text in the same script counts as one in another language."""

LONGEST_RATIO, SHORTEST_RATIO = 2.6, 0.3
"""Characters of a translation for each of the source beyond which the translation is no translation."""

ROOM = 16
"""Characters that a translation of a short text may have on top of what `LONGEST_RATIO` says."""

FEW_WORDS = 2
"""Texts of so few words do not become sentences."""

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What was noticed.

    Attributes:
        reasons: Keys of `nlpkit.apps.text.translation.confidence.REASONS`.
        wrong_language: The language that it looks like instead.
        differences: How placeholders and numbers differ.
        copied: Whether the translation is the source, in long texts and in single words.
    """

    reasons: tuple[str, ...] = ()
    wrong_language: str | None = None
    differences: Differences = field(default_factory=Differences)
    copied: bool = False


def check_translation(source: str, translation: str, target: str) -> Checked:
    """Compare a translation with its source.

    Args:
        source: One sentence.
        translation: Its translation.
        target: Language wanted.
    """
    if not translation.strip():
        return Checked(reasons=("empty",))
    reasons = []
    same = _plain(source) == _plain(translation)
    copied = same and len(_plain(source)) >= COPY_LENGTH and " " in _plain(source)
    wrong = None if same else wrong_language(translation, target)
    differences = Differences() if same else compare(source, translation)
    if is_loop(translation.split()) and not is_loop(source.split()):
        reasons.append("loop")
    if copied:
        reasons.append("copied")
    if wrong is not None:
        reasons.append("wrong_language")
    if differences.missing or differences.surplus or differences.reordered:
        reasons.append("placeholders")
    if differences.numbers_changed:
        reasons.append("numbers")
    if _is_out_of_proportion(source, translation):
        reasons.append("length")
    one_word = same and " " not in source.strip() and not source.strip().isupper()
    return Checked(reasons=tuple(reasons), wrong_language=wrong, differences=differences, copied=copied or one_word)


def wrong_language(text: str, target: str) -> str | None:
    """Return the language that a text is in, if that is certainly not the one wanted.

    Closely related languages are told apart poorly: only a confident guess counts, unless the script differs.

    Args:
        text: A text.
        target: Language wanted.
    """
    detected, confidence = detect_language(text)
    if not detected or same_language(detected, target):
        return None
    other_script = LANGUAGES[detected].script != LANGUAGES[target].script
    return detected if other_script or (confidence >= SURE and is_detectable(target)) else None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _is_out_of_proportion(source: str, translation: str) -> bool:
    before, after = len(source.strip()), len(translation.strip())
    if after > LONGEST_RATIO * before + ROOM or after < SHORTEST_RATIO * before - ROOM / 4:
        return True
    words, written = (len(_WORD.findall(text)) for text in (source, translation))
    return words <= FEW_WORDS and written > 2 * words + 2
