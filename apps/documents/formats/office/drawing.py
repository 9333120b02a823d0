"""DrawingML: the text of slides, charts, diagrams and of shapes in office documents."""

from __future__ import annotations

import re
from dataclasses import replace

from nlpkit.apps.documents.formats.office.grammar import Grammar

GRAPHIC_TEXTS = re.compile(r"drawingml\.(?:chart|diagramData|diagramDrawing)\+xml$")
"""Content types of parts with graphics that hold text."""

DRAWING = Grammar(
    paragraphs=frozenset({"a:p"}),
    runs=frozenset({"a:r"}),
    looks=frozenset({"a:rPr"}),
    texts=frozenset({"a:t"}),
    leading=frozenset({"a:pPr"}),
    trailing=frozenset({"a:endParaRPr"}),
    breaks=frozenset({"a:br"}),
    hidden=frozenset({"a:pPr", "a:endParaRPr"}),
    said=frozenset({"a:fld"}),
    attributes={"p:cNvPr": ("descr",), "xdr:cNvPr": ("descr",)},
    kinds={"a:tc": "cell"},
    noise=r'\s(?:lang|altLang|dirty|err|smtClean|noProof)="[^"]*"|<a:rPr\s*/>|(?<!\s)\s+(?=/?>)|<a:rPr>\s*</a:rPr>',
)
"""Text of shapes."""

GRAPHIC = replace(DRAWING, attributes={})
"""Text of charts and diagrams; what charts draw is computed."""
