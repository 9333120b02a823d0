"""Entries of translation memories: two sentences, whose inline codes are numbered masks."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace

from nlpkit.apps.documents.translation.masks import MASK

_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_BLANKS = re.compile(r"\s+")
MOST_CHARACTERS = 20_000
"""Longest sentence of an entry."""


@dataclass(frozen=True)
class Entry:
    """A sentence and its translation.

    Attributes:
        source: The sentence; ``⟦1⟧`` stands for its first inline code.
        target: Its translation, with the same masks.
        source_lang: Code of its language.
        target_lang: Code of the translation's language.
        origin: Where it comes from, such as a file's name.
    """

    source: str
    target: str
    source_lang: str
    target_lang: str
    origin: str = ""


def renumbered(entry: Entry) -> Entry:
    """Return an entry with masks numbered from 1 as its source has them; those of one side alone are left out.

    Blanks of the source make no difference; of the translation they stay, but for those around masks that are left out.
    """
    there = set(MASK.findall(entry.target))
    shared = (mask for mask in dict.fromkeys(MASK.findall(entry.source)) if mask in there)
    numbers = {mask: number for number, mask in enumerate(shared, start=1)}

    def rename(match: re.Match[str]) -> str:
        new = numbers.get(match.group(1))
        return f"⟦{new}⟧" if new else ""

    target = re.sub(" {2,}", " ", MASK.sub(rename, entry.target)).strip()
    return replace(entry, source=_tidy(MASK.sub(rename, entry.source)), target=target)


def number_masks(source: str) -> dict[str, int]:
    """Return for each mask of a sentence its number by its first place there, from 1."""
    return {mask: number for number, mask in enumerate(dict.fromkeys(MASK.findall(source)), start=1)}


def with_masks(text: str, names: Mapping[int, str]) -> str | None:
    """Return a text whose masks count from 1 with the masks of another sentence; None if it has more than that."""
    if any(int(number) not in names for number in MASK.findall(text)):
        return None
    return MASK.sub(lambda match: f"⟦{names[int(match.group(1))]}⟧", text)


def key_of(source: str) -> str:
    """Return what sentences have in common that count as equal: blanks make no difference, nor do forms of Unicode."""
    return _tidy(unicodedata.normalize("NFC", source))


def _tidy(text: str) -> str:
    return _BLANKS.sub(" ", text).strip()


def shape_of(source: str) -> str:
    """Return a sentence with each number as ``0``: what sentences have in common that differ by their numbers alone."""
    return _NUMBER.sub("0", source)


def with_numbers(source: str, entry: Entry) -> str | None:
    """Return the translation of an entry with the numbers of another sentence, which differs from it by these alone.

    Args:
        source: The other sentence.
        entry: The entry.

    Returns:
        None where more differs, or where it cannot be told which number of the translation is which.
    """
    if shape_of(source) != shape_of(entry.source):
        return None
    target = entry.target
    old, new = _NUMBER.findall(MASK.sub(" ", entry.source)), _NUMBER.findall(MASK.sub(" ", source))
    if len(old) != len(new) or len(set(old)) != len(old):
        return None
    there = _NUMBER.findall(MASK.sub(" ", target))
    if sorted(there) != sorted(old):
        return None
    renamed = dict(zip(old, new, strict=True))
    pieces = MASK.split(target)
    for index in range(0, len(pieces), 2):
        pieces[index] = _NUMBER.sub(lambda match: renamed[match.group()], pieces[index])
    return "".join(piece if index % 2 == 0 else f"⟦{piece}⟧" for index, piece in enumerate(pieces))
