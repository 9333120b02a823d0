"""Office documents: without translation the same bytes, with it the same parts, and the formats' libraries read them."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable

import office_files as made
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.apps.documents.document import Code, Format, Translated
from nlpkit.apps.documents.formats.office import package
from nlpkit.apps.documents.formats.office.epub import Epub
from nlpkit.apps.documents.formats.office.opendocument import FlatOpenDocument, OpenDocument
from nlpkit.apps.documents.formats.office.sheets import Sheets
from nlpkit.apps.documents.formats.office.slides import Slides
from nlpkit.apps.documents.formats.office.word import Word
from nlpkit.apps.documents.registry import find_format
from nlpkit.core.errors import InputError

KINDS: dict[str, tuple[Format, Callable[[], bytes], set[str]]] = {
    "docx": (Word(), made.word_file, {"word/document.xml", "word/header1.xml"}),
    "pptx": (
        Slides(),
        made.slides_file,
        {
            f"ppt/{folder}/{name}{n}.xml"
            for folder, name in (("slides", "slide"), ("notesSlides", "notesSlide"))
            for n in (1, 2)
        },
    ),
    "xlsx": (Sheets(), made.sheets_file, {"xl/worksheets/sheet1.xml"}),
    "odt": (OpenDocument("odt"), made.text_file, {"content.xml"}),
    "ods": (OpenDocument("ods"), made.cells_file, {"content.xml"}),
    "epub": (Epub(), made.book_file, {"EPUB/content.opf", "EPUB/toc.ncx", "EPUB/nav.xhtml", "EPUB/one.xhtml"}),
}


@pytest.fixture(autouse=True)
def _their_warnings() -> None:
    # These libraries warn of their own future.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="ebooklib")


@pytest.mark.parametrize("name", KINDS)
def test_without_translation_the_same_bytes_come_back(name: str) -> None:
    kind, make, _ = KINDS[name]
    data = make()
    document = kind.read(data, made.OPTIONS)
    assert document.segments
    assert kind.write(document.skeleton, [None] * len(document.segments), made.OPTIONS) == data


@pytest.mark.parametrize("name", KINDS)
def test_with_translation_only_parts_with_text_change(name: str) -> None:
    kind, make, texts = KINDS[name]
    data = make()
    after = made.shouted(kind, data)
    before, now = made.parts_of(data), made.parts_of(after)
    assert list(before) == list(now)
    assert {part for part in before if before[part] != now[part]} == texts
    assert made.texts(kind, after) == [text.upper() for text in made.texts(kind, data)]


@pytest.mark.parametrize("name", KINDS)
def test_the_content_says_what_a_nameless_file_is(name: str) -> None:
    found = find_format("-", KINDS[name][1]()[:4096])
    assert found is not None
    assert found.name == name


def test_python_docx_reads_the_result() -> None:
    import docx

    document = docx.Document(io.BytesIO(made.shouted(Word(), made.word_file())))
    assert [paragraph.text for paragraph in document.paragraphs] == ["A REPORT", "THE DOG IS BLACK & BIG <TODAY>."]
    places = [segment.place for segment in Word().read(made.word_file(), made.OPTIONS).segments]
    assert places == ["header1, paragraph 1", "paragraph 1", "paragraph 2", "paragraph 3"]
    assert [run.bold for run in document.paragraphs[1].runs] == [None, True, None]
    assert document.tables[0].cell(0, 0).text == "IN A CELL"
    assert document.sections[0].header.paragraphs[0].text == "ON EVERY PAGE"


def test_python_pptx_reads_the_result() -> None:
    import pptx

    data = made.shouted(Slides(), made.slides_file())
    slides = list(pptx.Presentation(io.BytesIO(data)).slides)
    assert [slide.shapes.title.text for slide in slides] == ["SLIDE NUMBER 1", "SLIDE NUMBER 2"]
    assert [run.font.italic for run in slides[0].placeholders[1].text_frame.paragraphs[0].runs] == [None, True]
    assert slides[0].notes_slide.notes_text_frame.text == "SAY HELLO"
    places = {segment.place for segment in Slides().read(data, made.OPTIONS).segments}
    assert places == {"slide 1", "notes of slide 1", "slide 2", "notes of slide 2"}


def test_openpyxl_reads_the_result_and_formulas_still_find_their_texts() -> None:
    import openpyxl

    data = made.sheets_file()
    document = Sheets().read(data, made.OPTIONS)
    assert "3 texts stay" in document.notes[0]
    sheet = openpyxl.load_workbook(io.BytesIO(made.shouted(Sheets(), data))).active
    assert [[cell.value for cell in row] for row in sheet.iter_rows()] == [
        ["Street", "Number of houses"],
        ["A LONG ROAD", 12],
        ["open", '=IF(A3="open",1,0)'],
        ["AN OPEN DOOR", "=SUM(B2:B2)"],
    ]


def test_shared_strings_with_looks_are_translated() -> None:
    strings = (
        '<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><si><t xml:space="preserve"> A word </t></si>'
        '<si><r><rPr><b/></rPr><t>Two</t></r><r><t xml:space="preserve"> words</t></r><phoneticPr fontId="1"/></si><si><t>12</t></si></sst>'
    )
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    types = (
        '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Override PartName="/xl/workbook.xml" '
        f'ContentType="{kind}.sheet.main+xml"/><Override PartName="/xl/s.xml" ContentType="{kind}.sharedStrings+xml"/></Types>'
    )
    data = made.zipped({"[Content_Types].xml": types, "xl/workbook.xml": "<a/>", "xl/s.xml": strings})
    assert made.texts(Sheets(), data) == [" A word ", "Two words"]
    after = made.parts_of(made.shouted(Sheets(), data))["xl/s.xml"].decode()
    assert '<si><t xml:space="preserve"> A WORD </t></si><si><r><rPr><b/></rPr><t>TWO</t></r><r>' in after
    assert '<t xml:space="preserve"> WORDS</t></r><phoneticPr fontId="1"/></si><si><t>12</t></si>' in after


def test_odfpy_reads_the_result() -> None:
    from odf import teletype
    from odf.opendocument import load
    from odf.text import H, NoteBody, P

    document = load(io.BytesIO(made.shouted(OpenDocument(), made.text_file())))
    assert teletype.extractText(document.getElementsByType(H)[0]) == "A HEADING"
    said = teletype.extractText(document.getElementsByType(P)[0])
    assert said == "THE DOG IS & WAS BLACK1SO THEY SAY. AND TWO  BLANKS ON PAGE 7."
    assert teletype.extractText(document.getElementsByType(NoteBody)[0]) == "SO THEY SAY."


def test_numbers_and_computed_cells_stay() -> None:
    assert made.texts(OpenDocument("ods"), made.cells_file()) == ["A word"]


def test_ebooklib_reads_the_result() -> None:
    from ebooklib import epub

    page = (
        '<p title="x">A <a href="one.xhtml" title="A link">link</a><br/>and <code>x = 1</code>.</p>'
        '<pre>as it is</pre><p><img src="a.png" alt="A picture"/></p><div>Loose<p>Block</p></div>'
    )
    data = made.shouted(Epub(), made.book_file(page))
    book = epub.read_epub(io.BytesIO(data))
    assert book.get_metadata("DC", "title")[0][0] == "A SMALL BOOK"
    content = book.get_item_with_href("one.xhtml").get_content().decode()
    for wanted in (
        'A <a href="one.xhtml" title="A LINK">LINK</a><br/>AND <code>x = 1</code>.',
        "<pre>as it is</pre>",
        'alt="A PICTURE"',
        "<div>LOOSE<p>BLOCK</p></div>",
    ):
        assert wanted in content
    assert data[30:58] == b"mimetypeapplication/epub+zip"


def paragraph(runs: str) -> bytes:
    return made.word_file(f"<w:p><w:pPr><w:jc w:val='center'/></w:pPr>{runs}</w:p>")


def first(data: bytes) -> tuple[str | Code, ...]:
    return Word().read(data, made.OPTIONS).segments[1].parts


def rendered(data: bytes, *parts: str | Code) -> str:
    """Write the first paragraph of the body with other parts, and return its XML."""
    document = Word().read(data, made.OPTIONS)
    results: list[Translated | None] = [None] * len(document.segments)
    results[1] = Translated(parts=parts)
    xml = made.parts_of(Word().write(document.skeleton, results, made.OPTIONS))["word/document.xml"].decode()
    return xml[xml.index("<w:body>") + 8 : xml.index("</w:p>")]


def test_runs_that_look_alike_are_one_text() -> None:
    data = paragraph(
        '<w:r w:rsidR="1"><w:t>The hou</w:t></w:r><w:proofErr w:type="spellStart"/><w:r w:rsidR="2">'
        '<w:rPr><w:lang w:val="en-US"/></w:rPr><w:t xml:space="preserve">se is </w:t></w:r><w:r><w:t>big.</w:t></w:r>'
    )
    assert first(data) == ("The house is big.",)
    assert rendered(data, "Das Haus ") == (
        "<w:p><w:pPr><w:jc w:val='center'/></w:pPr><w:r><w:t xml:space=\"preserve\">Das Haus </w:t></w:r>"
    )


def test_looks_and_links_enclose_text_and_can_move() -> None:
    data = paragraph(
        '<w:r><w:t xml:space="preserve">See </w:t></w:r><w:hyperlink r:id="rId9"><w:r><w:rPr><w:rStyle w:val="L"/></w:rPr>'
        "<w:t>the page</w:t></w:r></w:hyperlink><w:r><w:t>.</w:t></w:r>"
    )
    see, opened, page, closed, dot = first(data)
    assert (see, page, dot) == ("See ", "the page", ".")
    assert isinstance(opened, Code)
    assert isinstance(closed, Code)
    assert (opened.literal, opened.role, closed.role) == ('<w:hyperlink r:id="rId9">', "open", "close")
    assert rendered(data, opened, "Seite", closed, " sehen.") == (
        '<w:p><w:pPr><w:jc w:val=\'center\'/></w:pPr><w:hyperlink r:id="rId9"><w:r><w:rPr><w:rStyle w:val="L"/></w:rPr>'
        '<w:t>Seite</w:t></w:r></w:hyperlink><w:r><w:t xml:space="preserve"> sehen.</w:t></w:r>'
    )


def test_fields_deleted_text_and_notes_are_copied() -> None:
    page = (
        '<w:r><w:fldChar w:fldCharType="begin"/></w:r><w:r><w:instrText> PAGE </w:instrText></w:r>'
        '<w:r><w:fldChar w:fldCharType="separate"/></w:r><w:r><w:t>7</w:t></w:r><w:r><w:fldChar w:fldCharType="end"/></w:r>'
    )
    deleted = '<w:del w:id="1"><w:r><w:delText>gone</w:delText></w:r></w:del>'
    note = '<w:r><w:rPr><w:vertAlign w:val="superscript"/></w:rPr><w:footnoteReference w:id="2"/></w:r>'
    data = paragraph(
        f"<w:r><w:t>On page </w:t></w:r>{page}<w:r><w:t>it</w:t></w:r>{deleted}<w:r><w:t>says</w:t></w:r>{note}"
        "<w:r><w:t>so</w:t></w:r>"
    )
    parts = first(data)
    assert [part for part in parts if isinstance(part, str)] == ["On page", "it", "says", "so"]
    codes = [part for part in parts if isinstance(part, Code)]
    assert [code.text for code in codes] == ["7", "", ""]
    xml = rendered(data, *parts)
    assert all(piece in xml for piece in (deleted, note))
    assert "<w:instrText> PAGE </w:instrText>" in xml
    assert xml.count("<w:t>7</w:t>") == 1


def test_the_text_of_a_link_field_is_translated() -> None:
    data = paragraph(
        '<w:r><w:fldChar w:fldCharType="begin"/></w:r><w:r><w:instrText>HYPERLINK "http://a.b"</w:instrText></w:r>'
        '<w:r><w:fldChar w:fldCharType="separate"/></w:r><w:r><w:t>a page</w:t></w:r><w:r><w:fldChar w:fldCharType="end"/></w:r>'
    )
    parts = first(data)
    assert [part if isinstance(part, str) else part.role for part in parts] == ["open", "a page", "close"]
    assert "<w:t>eine Seite</w:t>" in rendered(data, parts[0], "eine Seite", parts[2])


def test_breaks_tabs_and_hyphens() -> None:
    data = paragraph(
        "<w:r><w:t>One</w:t><w:tab/><w:t>two</w:t><w:br/><w:t>e</w:t><w:noBreakHyphen/><w:t>mail li</w:t><w:softHyphen/><w:t>ne</w:t></w:r>"
    )
    parts = first(data)
    assert [part if isinstance(part, str) else (part.text, part.breaks) for part in parts] == [
        "One", ("\t", True), "two", ("\n", True), "e\u2011mail line",
    ]  # fmt: skip
    assert "<w:t>e</w:t><w:noBreakHyphen/><w:t>mail line</w:t>" in rendered(data, *parts)


def test_a_text_box_that_is_there_twice_is_asked_about_once() -> None:
    box = "<w:txbxContent><w:p><w:r><w:t>In a box</w:t></w:r></w:p></w:txbxContent>"
    mc = "http://schemas.openxmlformats.org/markup-compatibility/2006"
    data = paragraph(
        f'<w:r><w:t>Out</w:t></w:r><w:r><mc:AlternateContent xmlns:mc="{mc}"><mc:Choice Requires="wps"><w:drawing>{box}'
        f"</w:drawing></mc:Choice><mc:Fallback><w:pict>{box}</w:pict></mc:Fallback></mc:AlternateContent></w:r>"
        "<w:r><w:t>side</w:t></w:r>"
    )
    segments = Word().read(data, made.OPTIONS).segments
    assert [segment.text for segment in segments[1:3]] == ["Outside", "In a box"]
    xml = made.parts_of(made.shouted(Word(), data))["word/document.xml"].decode()
    assert xml.count("IN A BOX") == 2
    assert "In a box" not in xml
    assert "<w:t>OUT</w:t>" in xml


def test_a_flat_file_has_lines_and_keeps_deleted_text() -> None:
    data = (
        b'<?xml version="1.0"?>\n<office:document xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
        b'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"><office:body><office:text>\n<text:tracked-changes>'
        b"<text:changed-region><text:deletion><text:p>Gone</text:p></text:deletion></text:changed-region>"
        b"</text:tracked-changes>\n<text:p>Some\n  text</text:p></office:text></office:body></office:document>\n"
    )
    (segment,) = FlatOpenDocument().read(data, made.OPTIONS).segments
    assert (segment.text, segment.line, segment.flowing) == ("Some text", 4, True)
    assert made.shouted(FlatOpenDocument(), data) == data.replace(b"Some\n  text", b"SOME TEXT")


def test_a_prefix_of_its_own_is_understood() -> None:
    data = made.word_file()
    other = made.with_part(
        data,
        "word/document.xml",
        lambda text: (
            text.replace("<w:", "<q:").replace("</w:", "</q:").replace("xmlns:w=", "xmlns:q=").replace(" w:", " q:")
        ),
    )
    assert made.texts(Word(), other) == made.texts(Word(), data)
    assert b"<q:t>A REPORT</q:t>" in made.parts_of(made.shouted(Word(), other))["word/document.xml"]


BROKEN = {
    "no archive": b"hello",
    "encrypted": b"\xd0\xcf\x11\xe0" + bytes(600),
    "no main part": made.zipped(
        {"[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>'}
    ),
}


@pytest.mark.parametrize("why", BROKEN)
def test_what_is_no_document_is_refused(why: str) -> None:
    with pytest.raises(InputError, match="cannot be read as a Word document"):
        Word().read(BROKEN[why], made.OPTIONS)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: "<!DOCTYPE a [<!ENTITY b 'c'>]>" + text[text.index("<w:document") :], "declares entities"),
        (lambda text: text.replace("</w:body>", ""), "not well-formed"),
        (lambda text: text.replace("<w:body>", "<w:body>" + "<w:p>" * 300 + "</w:p>" * 300), "within each other"),
    ],
    ids=["entities", "unclosed", "deep"],
)
def test_hostile_xml_is_refused(change: Callable[[str], str], why: str) -> None:
    with pytest.raises(InputError, match=why):
        Word().read(made.with_part(made.word_file(), "word/document.xml", change), made.OPTIONS)


def test_bombs_and_lies_about_sizes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    huge = made.with_part(made.word_file(), "word/document.xml", lambda text: text + " " * 300_000)
    small = huge.replace(len(made.parts_of(huge)["word/document.xml"]).to_bytes(4, "little"), (9).to_bytes(4, "little"))
    assert small != huge
    with pytest.raises(InputError, match="checksum is wrong"):
        Word().read(small, made.OPTIONS)
    monkeypatch.setattr(package, "MAX_PART", 200_000)
    with pytest.raises(InputError, match="too large"):
        Word().read(huge, made.OPTIONS)


def test_archives_that_hide_parts_are_refused() -> None:
    data = made.word_file()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = [*made.parts_of(data).items(), ("word/document.xml", b"<a/>")]
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for name, content in parts:
                archive.writestr(name, content)
    with pytest.raises(InputError, match="two parts named"):
        Word().read(stream.getvalue(), made.OPTIONS)
    flagged = bytearray(data)
    for mark, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = -1
        while (at := flagged.find(mark, at + 1)) >= 0:
            flagged[at + offset] |= 1
    with pytest.raises(InputError, match="encrypted"):
        Word().read(bytes(flagged), made.OPTIONS)


def test_encrypted_books_and_texts_are_refused() -> None:
    parts = made.parts_of(made.book_file())
    reference = '<c xmlns:e="http://www.w3.org/2001/04/xmlenc#"><e:CipherReference URI="EPUB/one.xhtml"/></c>'
    with pytest.raises(InputError, match="DRM"):
        Epub().read(made.zipped({**parts, "META-INF/encryption.xml": reference}), made.OPTIONS)
    manifest = (
        '<m:manifest xmlns:m="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"><m:encryption-data/></m:manifest>'
    )
    with pytest.raises(InputError, match="encrypted"):
        OpenDocument().read(
            made.zipped({**made.parts_of(made.text_file()), "META-INF/manifest.xml": manifest}), made.OPTIONS
        )


def test_a_signature_is_spoken_of() -> None:
    parts = {**made.parts_of(made.word_file()), "_xmlsignatures/sig1.xml": "<a/>"}
    assert "signed" in Word().read(made.zipped(parts), made.OPTIONS).notes[0]


def test_a_code_that_is_none_of_the_segment_is_refused() -> None:
    with pytest.raises(InputError, match="none of this segment"):
        rendered(paragraph("<w:r><w:t>One</w:t></w:r>"), Code(literal="<w:x/>"))


RUN = st.tuples(
    st.text(
        st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"),
        min_size=1,
        max_size=12,
    ),
    st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(RUN, min_size=1, max_size=6))
def test_any_text_and_looks_survive(runs: list[tuple[str, bool]]) -> None:
    from nlpkit.apps.documents.formats.office.xml_tokens import escaped

    body = "".join(
        f'<w:r>{"<w:rPr><w:b/></w:rPr>" if bold else ""}<w:t xml:space="preserve">{escaped(text)}</w:t></w:r>'
        for text, bold in runs
    )
    data = WRAPPED.replace(b"<!--here-->", body.encode())
    file = made.zipped({"[Content_Types].xml": TYPES, "word/document.xml": data})
    document = Word().read(file, made.OPTIONS)
    assert Word().write(document.skeleton, [None] * len(document.segments), made.OPTIONS) == file
    same = [Translated(parts=segment.parts) for segment in document.segments]
    again = Word().read(Word().write(document.skeleton, same, made.OPTIONS), made.OPTIONS)
    assert [segment.text for segment in again.segments] == [segment.text for segment in document.segments]
    whole = "".join(text for text, _ in runs)
    if document.segments:
        assert document.segments[0].text == whole
    else:
        assert not any(map(str.isalpha, whole))


TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Override PartName="/word/document.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
)
WRAPPED = (
    b'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p><!--here--></w:p>'
    b"</w:body></w:document>"
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_is_an_error_or_harmless(data: st.DataObject) -> None:
    package = bytearray(
        made.zipped(
            {
                "[Content_Types].xml": TYPES,
                "word/document.xml": WRAPPED.replace(b"<!--here-->", b"<w:r><w:t>Word</w:t></w:r>"),
            }
        )
    )
    for _ in range(data.draw(st.integers(1, 4))):
        package[data.draw(st.integers(0, len(package) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(package)))
    damaged = bytes(package) if data.draw(st.booleans()) else bytes(package[:cut])
    try:
        document = Word().read(damaged, made.OPTIONS)
    except InputError:
        return
    assert Word().write(document.skeleton, [None] * len(document.segments), made.OPTIONS) == damaged
