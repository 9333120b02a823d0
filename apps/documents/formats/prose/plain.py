"""Plain text: all of it is one segment; sentences, marks of lists and wrapped lines are told apart by its layout."""

from __future__ import annotations

from nlpkit.apps.documents.document import Document, ReadOptions, Results, Segment
from nlpkit.apps.documents.formats.spans import Place, SpanSkeleton, literals, span_document, write_spans
from nlpkit.apps.documents.formats.strings.messages import message_parts
from nlpkit.apps.documents.source_text import decode_source


class PlainText:
    """Reads and writes plain text."""

    name = "text"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a text.

        Raises:
            InputError: It is no text in its encoding.
        """
        source = decode_source(data, options)
        segments = (Segment(parts=message_parts(source.text), line=1, offset=0),) if source.text.strip() else ()
        places = (Place(0, len(source.text)),) if segments else ()
        return span_document(self.name, source, zip(segments, places, strict=True))

    def write(self, skeleton: SpanSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a text."""
        return write_spans(skeleton, results, lambda result, segment, place: literals(result, str))
