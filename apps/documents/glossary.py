"""Reads glossaries."""

from __future__ import annotations

from nlpkit.apps.documents.files import decode_text, display_name, read_bytes
from nlpkit.core.errors import InputError


def read_glossary(path: str, *, encoding: str = "utf-8") -> dict[str, str]:
    """Read a glossary: a term, a tab and its translation on each line; blank lines and ``#`` lines are skipped.

    Args:
        path: The file.
        encoding: Its encoding.

    Returns:
        Term to translation, in the file's order.

    Raises:
        InputError: The file cannot be read, or a line is not a pair, or a term has two translations.
    """
    name = display_name(path)
    terms: dict[str, str] = {}
    lines = decode_text(read_bytes(path), encoding=encoding, where=name).split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != 2 or not all(cells):
            raise InputError(
                f"{name}:{number}: {line.strip()[:80]!r} is not a term, one tab and its translation. Mend the line."
            )
        term, translation = cells
        if terms.get(term, translation) != translation:
            raise InputError(
                f"{name}:{number}: {term!r} is translated as {translation!r} here, but as {terms[term]!r} above. "
                "Keep one of the two."
            )
        terms[term] = translation
    if not terms:
        raise InputError(f"{name} holds no terms.")
    return terms
