"""Jupyter notebooks: the Markdown cells are translated; code, outputs and everything else stay as they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nlpkit.apps.documents.document import Document, ReadOptions, Results, Segment, broken
from nlpkit.apps.documents.formats.prose.markdown import Markdown
from nlpkit.apps.documents.formats.spans import SpanSkeleton
from nlpkit.apps.documents.formats.strings.json_messages import json_strings
from nlpkit.apps.documents.source_text import SourceText, decode_source

_TITLE = "a notebook"


@dataclass(frozen=True)
class _Cell:
    """A Markdown cell.

    Attributes:
        start: Offset of its first string in the file, its quote counted in.
        end: Offset behind its last.
        between: What stands between the strings of two lines; empty for a cell that is one string.
        page: The cell as Markdown.
        n_segments: How many segments it has.
    """

    start: int
    end: int
    between: str
    page: SpanSkeleton
    n_segments: int


@dataclass(frozen=True)
class NotebookSkeleton:
    """A notebook and its Markdown cells."""

    source: SourceText
    cells: tuple[_Cell, ...]


class Notebook:
    """Reads and writes notebooks of version 4."""

    name = "ipynb"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a notebook.

        Raises:
            InputError: It is no notebook of version 4.
        """
        source = decode_source(data, options)
        try:
            value = json.loads(source.text, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            why = "it is nested too deeply" if isinstance(error, RecursionError) else getattr(error, "msg", str(error))
            raise broken(_TITLE, options, why, line=getattr(error, "lineno", 0)) from error
        if not isinstance(value, dict) or not isinstance(value.get("cells"), list):
            raise broken(_TITLE, options, "it has no list of cells; notebooks before version 4 are not read")
        strings: dict[int, list[tuple[int, int]]] = {}
        for path, start, end in json_strings(source.text, options):
            if len(path) in (3, 4) and path[0] == "cells" and path[2] == "source":
                strings.setdefault(int(path[1]), []).append((start, end))
        cells: list[_Cell] = []
        segments: list[Segment] = []
        for index, spans in strings.items():
            if _type(value["cells"], index) != "markdown":
                continue
            found = _cell(source, value["cells"][index]["source"], spans, options)
            if found is not None:
                cell, mine = found
                cells.append(cell)
                segments += [replace(segment, place=f"cell {index + 1}") for segment in mine]
        return Document(format=self.name, segments=tuple(segments), skeleton=NotebookSkeleton(source, tuple(cells)))

    def write(self, skeleton: NotebookSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a notebook."""
        ascii_only = skeleton.source.text.isascii()
        replacements, done = [], 0
        for cell in skeleton.cells:
            mine = results[done : done + cell.n_segments]
            done += cell.n_segments
            if any(result is not None for result in mine):
                text = Markdown().write(cell.page, mine, options).decode()
                replacements.append((cell.start, cell.end, _written(text, cell.between, ascii_only=ascii_only)))
        return skeleton.source.replaced(replacements)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, whose keys must differ: which one of two counts, each program sees in its own way.

    Raises:
        ValueError: A key is there twice.
    """
    value: dict[str, Any] = {}
    for key, inner in pairs:
        if key in value:
            raise ValueError(f"an object has two keys {key[:80]!r}")
        value[key] = inner
    return value


def _type(cells: Sequence[Any], index: int) -> object:
    return cells[index].get("cell_type") if isinstance(cells[index], dict) else None


def _cell(
    source: SourceText, content: object, spans: list[tuple[int, int]], options: ReadOptions
) -> tuple[_Cell, list[Segment]] | None:
    texts = [json.loads(source.text[start:end]) for start, end in spans]
    text = "".join(texts)
    if "\0" in text or text.startswith("\ufeff") or not _is_unicode(text):
        return None
    start, end = spans[0][0], spans[-1][1]
    between = ""
    n_strings = 1 if isinstance(content, str) else len(content) if isinstance(content, list) else 0
    if n_strings != len(spans):
        return None
    if isinstance(content, list):
        between = source.text[spans[0][1] : spans[1][0]] if len(spans) > 1 else ", "
    page = Markdown().read(text.encode(), replace(options, encoding="utf-8"))
    line = source.line(start)
    # Each line of a cell is a string on a line of its own, as notebooks are usually written.
    own_lines = "\n" in between
    segments = [
        replace(segment, line=line + segment.line - 1 if own_lines else line, offset=start) for segment in page.segments
    ]
    return _Cell(start, end, between, page.skeleton, len(segments)), segments


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _written(text: str, between: str, *, ascii_only: bool) -> str:
    if not between:
        return json.dumps(text, ensure_ascii=ascii_only)
    return between.join(json.dumps(line, ensure_ascii=ascii_only) for line in _lines(text))


def _lines(text: str) -> list[str]:
    """Cut behind line feeds alone, as notebooks do."""
    lines = [f"{line}\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return [line for line in lines if line] or [""]
