"""CSV and TSV: the cells of chosen columns; delimiters, quotes and all other cells stay as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nlpkit.apps.documents.document import Document, ReadOptions, Results, Segment, Translated, broken
from nlpkit.apps.documents.formats.spans import Place, SpanSkeleton, literals, span_document, write_spans
from nlpkit.apps.documents.formats.strings.keys import is_for_people
from nlpkit.apps.documents.formats.strings.messages import message_parts
from nlpkit.apps.documents.source_text import decode_source
from nlpkit.core.errors import InputError, did_you_mean

_Cell = tuple[int, int, bool]
"""Begin and end of a cell without its quotes, and whether it has any."""


class Columns:
    """Reads and writes CSV."""

    name = "csv-columns"
    delimiters = ",;\t|"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a table.

        Raises:
            InputError: It has no header, or not the columns that are wanted.
        """
        source = decode_source(data, options)
        delimiter = self._delimiter(source.text)
        rows = list(_rows(source.text, delimiter))
        if not rows:
            raise broken("a table", options, "it is empty")
        header = [_said(source.text, cell) for cell in rows[0]]
        lacking = [column for column in options.columns if column not in header]
        if lacking:
            raise InputError(f"{options.name} has no column {lacking[0]!r}. {did_you_mean(lacking[0], header)}")
        segments: list[Segment] = []
        places: list[Place] = []
        for row in rows[1:]:
            for index, cell in enumerate(row):
                name = header[index] if index < len(header) else ""
                text = _said(source.text, cell)
                if name not in options.columns or not is_for_people(text):
                    continue
                start, end, quoted = cell
                style = f"{delimiter}{'q' if quoted else ''}"
                segments.append(
                    Segment(
                        parts=message_parts(text, lambda part, style=style: _escaped(part, style)),  # type: ignore[misc]
                        kind="cell",
                        line=source.line(start),
                        offset=start,
                        key=name,
                    )
                )
                places.append(Place(start, end, style))
        return span_document(self.name, source, zip(segments, places, strict=True))

    def write(self, skeleton: SpanSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a table."""

        def render(result: Translated, segment: Segment, place: Place) -> str:
            text = literals(result, lambda text: _escaped(text, place.style))
            quoted = "q" in place.style
            if quoted or place.style[0] == "\t" or not re.search(rf'[\r\n"{re.escape(place.style[0])}]', text):
                return text
            return '"' + text.replace('"', '""') + '"'

        return write_spans(skeleton, results, render)

    def _delimiter(self, text: str) -> str:
        header = text.split("\n", 1)[0]
        return max(self.delimiters, key=header.count)


class TabColumns(Columns):
    """Reads and writes TSV."""

    name = "tsv-columns"
    delimiters = "\t"


def _escaped(text: str, style: str) -> str:
    if style[0] == "\t" and "q" not in style:
        # There is no way to spell a tab or a line end there.
        return re.sub(r"[\t\r\n]+", " ", text)
    return text.replace('"', '""') if "q" in style else text


def _said(text: str, cell: _Cell) -> str:
    start, end, quoted = cell
    return text[start:end].replace('""', '"') if quoted else text[start:end]


def _rows(text: str, delimiter: str) -> Iterator[list[_Cell]]:
    pattern = re.compile(
        rf'(?:"(?P<quoted>(?:[^"]|"")*)"(?=[{re.escape(delimiter)}\r\n]|\Z)|(?P<plain>[^{re.escape(delimiter)}\r\n]*))'
        rf"(?P<end>[{re.escape(delimiter)}]|\r\n|\n|\r|\Z)"
    )
    row: list[_Cell] = []
    at = 0
    while at < len(text):
        match = pattern.match(text, at)
        if match is None:
            break
        quoted = match.group("quoted") is not None
        row.append((*match.span("quoted" if quoted else "plain"), quoted))
        at = match.end()
        if match.group("end") != delimiter:
            yield row
            row = []
    if row:
        yield row
