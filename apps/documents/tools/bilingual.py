"""Source and translation side by side, as a page or a table."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from itertools import groupby

from nlpkit.apps.documents.document import Document
from nlpkit.apps.documents.translation.translate import DocumentTranslation
from nlpkit.apps.text.translation.confidence import LOW

_STYLE = (
    "body{font:16px/1.5 sans-serif;margin:2em auto;max-width:80em;padding:0 1em}table{border-collapse:collapse;"
    "width:100%;table-layout:fixed}td,th{border-bottom:1px solid #ccc;padding:.4em .6em;text-align:left;"
    "vertical-align:top;white-space:pre-wrap;overflow-wrap:anywhere}th:first-child,td:first-child{width:8em;color:#666}"
    ".unsure td{background:#fff3d6}h2{font-size:1.1em}"
)

Row = tuple[str, str, str, str, bool]
"""File, place, source, translation, and whether it is to be trusted."""


def bilingual_rows(file: str, document: Document, translation: DocumentTranslation) -> list[Row]:
    """Return the segments of a document with their translations.

    Args:
        file: What the document is called.
        document: The document.
        translation: Its translation.
    """
    rows = []
    triples = zip(document.segments, translation.results, translation.outcomes, strict=True)
    for segment, result, outcomes in triples:
        text = segment.text
        if result is not None:
            text = "".join(part if isinstance(part, str) else part.text for part in result.parts)
        sure = all(not outcome.reasons and outcome.confidence >= LOW for outcome in outcomes)
        rows.append((file, segment.where, segment.text, text, sure))
    return rows


def write_tsv(rows: Iterable[Row]) -> str:
    """Return a table with tabs: file, place, source, translation; blanks are written as one."""
    lines = ["file\tplace\tsource\ttranslation"]
    lines += ["\t".join(" ".join(cell.split()) for cell in row[:4]) for row in rows]
    return "\n".join(lines) + "\n"


def write_html(rows: Sequence[Row], *, source_lang: str, target_lang: str) -> str:
    """Return a page: source and translation side by side, one table a file; what is unsure has another colour.

    Args:
        rows: The segments.
        source_lang: Code of the language of the documents; empty if it is not known.
        target_lang: Code of the language of the translations.
    """
    body = []
    for file, group in groupby(rows, key=lambda row: row[0]):
        body.append(
            f"<h2>{html.escape(file)}</h2>\n<table>\n<tr><th></th><th>{html.escape(source_lang or 'source')}</th>"
        )
        body.append(f"<th>{html.escape(target_lang)}</th></tr>\n")
        for _, place, source, text, sure in group:
            mark = "" if sure else ' class="unsure"'
            body.append(
                f"<tr{mark}><td>{html.escape(place)}</td><td{_lang(source_lang)}>{html.escape(source)}</td>"
                f"<td{_lang(target_lang)}>{html.escape(text)}</td></tr>\n"
            )
        body.append("</table>\n")
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{html.escape(target_lang)}</title>\n'
        f"<style>{_STYLE}</style>\n{''.join(body)}</html>\n"
    )


def _lang(code: str) -> str:
    return f' lang="{html.escape(code)}"' if code and code != "auto" else ""
