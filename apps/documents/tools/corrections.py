"""What people corrected in translations, and which of it looks like terms."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from nlpkit.apps.documents.files import display_name
from nlpkit.apps.documents.table_rows import read_table
from nlpkit.apps.documents.tools.review import corrections, is_review, read_review
from nlpkit.apps.text.language_words import COMMON_WORDS
from nlpkit.core.errors import InputError

FEWEST = 2
"""Fewest corrections that make a term."""

MOST_WORDS = 3
"""Most words of a term."""

SHORT = 3
"""Most letters of a common word that is no term."""

LIKELY = 0.75
"""Least part of the sentences with words of the source that were corrected so, and of those corrected so with them."""

_WORD = re.compile(r"\w+(?:[-’']\w+)*")


@dataclass(frozen=True)
class Correction:
    """A sentence, what it was translated as, and what is right."""

    source: str
    wrong: str
    right: str


@dataclass(frozen=True)
class Candidate:
    """Words that look like a term.

    Attributes:
        source: Words of the source.
        right: What they are to be translated as.
        wrong: What stood there before.
        count: How many corrections say so.
    """

    source: str
    right: str
    wrong: str
    count: int


def read_corrections(path: str, *, encoding: str = "utf-8") -> list[Correction]:
    """Read a table of source, wrong and right, with or without a first line that names them; or an edited review file.

    Args:
        path: The file.
        encoding: Its encoding.

    Raises:
        InputError: It cannot be read, or is neither.
    """
    name = display_name(path)
    rows = list(read_table(path, headers=frozenset({"source"}), encoding=encoding))
    names = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    if is_review(names):
        return [Correction(**row) for row in corrections(read_review(path, encoding=encoding))]
    columns = (0, 1, 2)
    if {"source", "wrong", "right"} <= set(names):
        columns = (names.index("source"), names.index("wrong"), names.index("right"))
        rows = rows[1:]
    found = []
    for number, row in rows:
        if len(row) <= max(columns) or not row[columns[0]].strip() or not row[columns[2]].strip():
            raise InputError(f"{name}:{number}: there must be three columns: source, wrong, right. Mend the line.")
        source, wrong, right = (row[column].strip() for column in columns)
        if wrong != right:
            found.append(Correction(source, wrong, right))
    return found


def find_candidates(found: Sequence[Correction]) -> list[Candidate]:
    """Return what looks like terms: words that were corrected alike, and the words of the sources that go with them.

    Of the words that stand in the sources of such corrections and hardly in others, the longest run counts.

    Args:
        found: The corrections.
    """
    changes: dict[tuple[str, str], set[int]] = defaultdict(set)
    for index, correction in enumerate(found):
        for change in _changes(correction):
            changes[change].add(index)
    runs = [set(_runs(correction.source)) for correction in found]
    everywhere = Counter(run for mine in runs for run in mine)
    candidates = []
    for (wrong, right), places in changes.items():
        if len(places) < FEWEST or _is_common(right) or _is_common(wrong):
            continue
        shared = Counter(run for index in places for run in runs[index])
        fitting = [
            (count, len(run.split()), len(run), run)
            for run, count in shared.items()
            if not _is_filler(run)
            and count >= FEWEST
            and count >= LIKELY * len(places)
            and count >= LIKELY * everywhere[run]
        ]
        if fitting:
            # Of words that fit equally well, the long one is hardly an article.
            *_, source = max(fitting)
            candidates.append(Candidate(source, right, wrong, len(places)))
    return sorted(candidates, key=lambda candidate: (-candidate.count, candidate.source))


def _is_filler(run: str) -> bool:
    """Return whether a run holds nothing but short words that are in every text, such as articles."""
    return all(len(word) <= SHORT and any(word in words for words in COMMON_WORDS.values()) for word in run.split())


def _is_common(words: str) -> bool:
    """Return whether words are nothing but such as are in every text: a change of grammar, not of a term."""
    return all(any(word in common for common in COMMON_WORDS.values()) for word in words.lower().split())


def _changes(correction: Correction) -> Iterator[tuple[str, str]]:
    """Yield short runs of words that were replaced by others."""
    wrong, right = _WORD.findall(correction.wrong), _WORD.findall(correction.right)
    for tag, a, b, c, d in SequenceMatcher(None, wrong, right, autojunk=False).get_opcodes():
        if tag == "replace" and b - a <= MOST_WORDS and d - c <= MOST_WORDS:
            yield " ".join(wrong[a:b]), " ".join(right[c:d])


def _runs(source: str) -> Iterator[str]:
    words = [word.lower() for word in _WORD.findall(source)]
    for length in range(1, MOST_WORDS + 1):
        for start in range(len(words) - length + 1):
            yield " ".join(words[start : start + length])
