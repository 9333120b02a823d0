"""Terms that stay as they are in a translation, such as names of products: they are codes while it is made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from nlpkit.apps.documents.document import Code, Document, Part, Translated
from nlpkit.apps.documents.files import decode_text, display_name, read_bytes
from nlpkit.apps.documents.translation.masks import joined
from nlpkit.core.errors import InputError

MAX_TERMS = 100_000
"""Most terms of a list."""


@dataclass(frozen=True, kw_only=True)
class KeptTerm(Code):
    """A term in the place of a code."""


def read_kept_terms(path: str, *, encoding: str = "utf-8") -> tuple[str, ...]:
    """Read a list of terms: one a line; blank lines and ``#`` lines are skipped.

    Args:
        path: The file.
        encoding: Its encoding.

    Raises:
        InputError: The file cannot be read, or holds no terms or too many.
    """
    name = display_name(path)
    lines = decode_text(read_bytes(path), encoding=encoding, where=name).split("\n")
    terms = tuple(dict.fromkeys(line.strip() for line in lines if line.strip() and not line.startswith("#")))
    if not terms or len(terms) > MAX_TERMS:
        raise InputError(f"{name} holds {'no' if not terms else 'too many'} terms. Give one a line.")
    return terms


def with_kept_terms(document: Document, terms: Sequence[str]) -> Document:
    """Make codes of the terms in the segments of a document, where they stand as words and are written alike.

    Args:
        document: The document.
        terms: The terms; of two that begin in the same place, the longer one counts.
    """
    if not terms:
        return document
    pattern = _pattern(terms)
    segments = tuple(replace(segment, parts=tuple(_cut(segment.parts, pattern))) for segment in document.segments)
    return replace(document, segments=segments)


def without_kept_terms(results: Iterable[Translated | None]) -> tuple[Translated | None, ...]:
    """Make text of the terms again.

    Args:
        results: The results of a document with kept terms.
    """
    return tuple(
        None
        if result is None
        else replace(
            result, parts=joined(part.literal if isinstance(part, KeptTerm) else part for part in result.parts)
        )
        for result in results
    )


def _pattern(terms: Sequence[str]) -> re.Pattern[str]:
    choices = "|".join(re.escape(term) for term in sorted(terms, key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?:{choices})(?!\w)")


def _cut(parts: Iterable[Part], pattern: re.Pattern[str]) -> Iterator[Part]:
    for part in parts:
        if not isinstance(part, str):
            yield part
            continue
        done = 0
        for match in pattern.finditer(part):
            if match.start() > done:
                yield part[done : match.start()]
            yield KeptTerm(literal=match.group(), text=match.group())
            done = match.end()
        if done < len(part):
            yield part[done:]
