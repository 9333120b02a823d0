"""Which way a translation goes: directly, through English, or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nlpkit.apps.text.language_detection import dominant_script
from nlpkit.apps.text.languages import LANGUAGES, language_name, parse_language, same_language

PIVOT = "en"
"""The language through which a translation goes that was not learned directly."""

FOREIGN_SHARE = 0.8
"""Share of letters in a script above which a text is in that script."""

Pairs = Sequence[tuple[str, str]]
"""Pairs of source and target language that a model learned."""


def find_route(learned: Pairs, source: str | None, target: str) -> tuple[str, ...] | None:
    """Find the way from one language to another.

    Args:
        learned: What the model learned; empty where nothing is said, and then every way is direct.
        source: Language of the text, or None where it is not known.
        target: Language wanted.

    Returns:
        The languages to translate into, one after the other; None where there is no way.
    """
    if not learned:
        return (target,)
    if source is None:
        return (target,) if any(same_language(to, target) for _, to in learned) else None
    if _knows(learned, source, target):
        return (target,)
    if _knows(learned, source, PIVOT) and _knows(learned, PIVOT, target):
        return (PIVOT, target)
    return None


def foreign_script(learned: Pairs, text: str) -> str | None:
    """Return the script of a text if no language that a model reads is written in it, such as ``Arabic``."""
    script, share = dominant_script(text)
    known = {LANGUAGES[parse_language(source)].script for source, _ in learned}
    return script if known and script not in (None, *known) and share >= FOREIGN_SHARE else None


def describe_pairs(learned: Pairs) -> str:
    """Say in words what was learned, such as ``English to and from German and French``."""
    others = list(dict.fromkeys(one for pair in learned for one in pair if not same_language(one, PIVOT)))
    both = [one for one in others if _knows(learned, one, PIVOT) and _knows(learned, PIVOT, one)]
    if both and len(learned) == 2 * len(both):
        return f"English to and from {_and(map(language_name, both))}"
    return ", ".join(f"{language_name(source)} to {language_name(target)}" for source, target in learned)


def _knows(learned: Pairs, source: str, target: str) -> bool:
    return any(same_language(one, source) and same_language(other, target) for one, other in learned)


def _and(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
