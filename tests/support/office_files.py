"""Small office documents, made by the formats' own libraries, and what tests do with documents."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping

from nlpkit.apps.documents.document import Document, Format, ReadOptions, Translated

OPTIONS = ReadOptions(name="file")


def capitals(document: Document) -> list[Translated]:
    """Every text in capitals, every code where it was."""
    return [
        Translated(parts=tuple(part.upper() if isinstance(part, str) else part for part in segment.parts))
        for segment in document.segments
    ]


def shouted(kind: Format, data: bytes) -> bytes:
    document = kind.read(data, OPTIONS)
    return kind.write(document.skeleton, capitals(document), OPTIONS)


def texts(kind: Format, data: bytes) -> list[str]:
    return [segment.text for segment in kind.read(data, OPTIONS).segments]


def zipped(parts: Mapping[str, bytes | str], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return stream.getvalue()


def parts_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def with_part(data: bytes, name: str, change: Callable[[str], str]) -> bytes:
    parts = parts_of(data)
    parts[name] = change(parts[name].decode()).encode()
    return zipped(parts)


def word_file(body: str = "") -> bytes:
    """A Word document; `body` is put before its first paragraph."""
    import docx

    document = docx.Document()
    document.add_heading("A report", 1)
    paragraph = document.add_paragraph("The dog is ")
    paragraph.add_run("black & big").bold = True
    paragraph.add_run(" <today>.")
    document.add_table(1, 2).cell(0, 0).text = "In a cell"
    document.sections[0].header.paragraphs[0].text = "On every page"
    stream = io.BytesIO()
    document.save(stream)
    data = stream.getvalue()
    return (
        with_part(data, "word/document.xml", lambda text: text.replace("<w:body>", f"<w:body>{body}", 1))
        if body
        else data
    )


def slides_file() -> bytes:
    import pptx
    from pptx.util import Inches

    presentation = pptx.Presentation()
    for number in (1, 2):
        slide = presentation.slides.add_slide(presentation.slide_layouts[1])
        slide.shapes.title.text = f"Slide number {number}"
        body = slide.placeholders[1].text_frame
        body.text = "A point"
        run = body.paragraphs[0].add_run()
        run.text = " in italics"
        run.font.italic = True
        slide.notes_slide.notes_text_frame.text = "Say hello"
    table = slide.shapes.add_table(1, 1, Inches(1), Inches(1), Inches(2), Inches(1)).table
    table.cell(0, 0).text = "In a cell"
    stream = io.BytesIO()
    presentation.save(stream)
    return stream.getvalue()


def sheets_file() -> bytes:
    import openpyxl
    from openpyxl.worksheet.table import Table

    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["Street", "Number of houses"])
    sheet.append(["A long road", 12])
    sheet.append(["open", '=IF(A3="open",1,0)'])
    sheet.append(["An open door", "=SUM(B2:B2)"])
    sheet.add_table(Table(displayName="Streets", ref="A1:B4"))
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def text_file() -> bytes:
    """An OpenDocument text."""
    from odf.opendocument import OpenDocumentText
    from odf.text import H, Note, NoteBody, NoteCitation, P, PageNumber, S, Span

    document = OpenDocumentText()
    document.text.addElement(H(outlinelevel=1, text="A heading"))
    paragraph = P(text="The dog ")
    paragraph.addElement(Span(text="is & was"))
    paragraph.addText(" black")
    note = Note(noteclass="footnote")
    note.addElement(NoteCitation(text="1"))
    body = NoteBody()
    body.addElement(P(text="So they say."))
    note.addElement(body)
    paragraph.addElement(note)
    paragraph.addText(" and two")
    paragraph.addElement(S(c=2))
    paragraph.addText("blanks on page ")
    paragraph.addElement(PageNumber(text="7"))
    paragraph.addText(".")
    document.text.addElement(paragraph)
    stream = io.BytesIO()
    document.write(stream)
    return stream.getvalue()


def cells_file() -> bytes:
    """An OpenDocument spreadsheet."""
    from odf.opendocument import OpenDocumentSpreadsheet
    from odf.table import Table, TableCell, TableRow
    from odf.text import P

    document = OpenDocumentSpreadsheet()
    table, row = Table(name="One"), TableRow()
    for values, text in (
        ({"valuetype": "string"}, "A word"),
        ({"valuetype": "float", "value": "1.5"}, "1.5 km"),
        ({"valuetype": "string", "formula": "of:=A1"}, "Computed"),
    ):
        cell = TableCell(**values)
        cell.addElement(P(text=text))
        row.addElement(cell)
    table.addElement(row)
    document.spreadsheet.addElement(table)
    stream = io.BytesIO()
    document.write(stream)
    return stream.getvalue()


def book_file(page: str = "<h1>One</h1><p>The dog is <em>black</em>.</p>") -> bytes:
    from ebooklib import epub

    book = epub.EpubBook()
    book.set_identifier("id1")
    book.set_title("A small book")
    book.set_language("en")
    chapter = epub.EpubHtml(title="One", file_name="one.xhtml", lang="en")
    chapter.content = page
    book.add_item(chapter)
    book.toc = (epub.Link("one.xhtml", "Chapter one", "one"),)
    book.spine = ["nav", chapter]
    book.add_item(epub.EpubNcx())
    book.add_item(epub.EpubNav())
    stream = io.BytesIO()
    epub.write_epub(stream, book)
    return stream.getvalue()
