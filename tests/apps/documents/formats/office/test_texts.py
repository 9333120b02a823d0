"""Texts of office documents: line breaks, blanks, nested and repeated elements, and files made to take long."""

from __future__ import annotations

import time
import tracemalloc

import office_files as made
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.apps.documents.document import Code, Format, Translated
from nlpkit.apps.documents.formats.office import package, xml_tokens
from nlpkit.apps.documents.formats.office.epub import Epub
from nlpkit.apps.documents.formats.office.opendocument import FlatOpenDocument
from nlpkit.apps.documents.formats.office.sheets import Sheets
from nlpkit.apps.documents.formats.office.slides import Slides
from nlpkit.apps.documents.formats.office.word import Word
from nlpkit.core.errors import InputError

SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
KIND = "application/vnd.openxmlformats-officedocument.spreadsheetml"
MC = "http://schemas.openxmlformats.org/markup-compatibility/2006"


def workbook(parts: dict[str, tuple[str, str]]) -> bytes:
    """A workbook with parts: name to type and content."""
    types = "".join(f'<Override PartName="/{name}" ContentType="{kind}"/>' for name, (kind, _) in parts.items())
    return made.zipped(
        {
            "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Override '
            f'PartName="/xl/workbook.xml" ContentType="{KIND}.sheet.main+xml"/>{types}</Types>',
            "xl/workbook.xml": "<a/>",
            **{name: content for name, (_, content) in parts.items()},
        }
    )


def strings(*items: str) -> tuple[str, str]:
    return f"{KIND}.sharedStrings+xml", f'<sst xmlns="{SHEET}">{"".join(items)}</sst>'


def flat(paragraphs: str) -> bytes:
    names = "".join(
        f' xmlns:{prefix}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
        for prefix, name in (("office", "office"), ("text", "text"), ("draw", "drawing"), ("svg", "svg-compatible"))
    )
    return f"<office:document{names}><office:body>{paragraphs}</office:body></office:document>".encode()


def word(runs: str) -> bytes:
    return made.word_file(f'<w:p xmlns:mc="{MC}">{runs}</w:p>')


def body(data: bytes) -> str:
    xml = made.parts_of(data)["word/document.xml"].decode()
    return xml[xml.index("<w:body>") + 8 : xml.index("<w:pPr><w:pStyle")]


def test_line_breaks_of_cells_stay() -> None:
    data = workbook({"xl/s.xml": strings("<si><t>One line\r\nand two</t></si>")})
    assert "<t>ONE LINE\nAND TWO</t>" in made.parts_of(made.shouted(Sheets(), data))["xl/s.xml"].decode()


def test_headings_with_line_breaks_are_known() -> None:
    table = f'<table xmlns="{SHEET}"><tableColumn name="Number_x000a_of houses"/><tableColumn name="Street"/></table>'
    data = workbook(
        {
            "xl/s.xml": strings(
                "<si><t>Number\nof houses</t></si>", "<si><t>Street_x000D_</t></si>", "<si><t>A</t></si>"
            ),
            "xl/t.xml": (f"{KIND}.table+xml", table),
        }
    )
    assert made.texts(Sheets(), data) == ["A"]


def test_threads_of_comments_are_translated() -> None:
    thread = (
        '<ThreadedComments xmlns="http://schemas.microsoft.com/office/spreadsheetml/2018/threadedcomments">'
        '<threadedComment ref="A1" id="{1}"><text>Is this\nright?</text></threadedComment></ThreadedComments>'
    )
    data = workbook({"xl/threadedComments/c.xml": ("application/vnd.ms-excel.threadedcomments+xml", thread)})
    after = made.parts_of(made.shouted(Sheets(), data))["xl/threadedComments/c.xml"].decode()
    assert after == thread.replace("Is this\nright?", "IS THIS\nRIGHT?")


def test_new_comments_on_slides_are_translated() -> None:
    comments = (
        '<p188:cmLst xmlns:p188="http://schemas.microsoft.com/office/powerpoint/2018/8/main" xmlns:a="http://schemas.'
        'openxmlformats.org/drawingml/2006/main"><p188:cm id="{1}"><p188:txBody><a:bodyPr/><a:p><a:r><a:t>Too long'
        "</a:t></a:r></a:p></p188:txBody></p188:cm></p188:cmLst>"
    )
    relation = '<Relationship Id="rIdC" Type="x" Target="../comments/modernComment_1.xml"/></Relationships>'
    parts = made.parts_of(made.slides_file())
    types = parts["[Content_Types].xml"].decode()
    relations = parts["ppt/slides/_rels/slide1.xml.rels"].decode()
    parts["[Content_Types].xml"] = types.replace(
        "</Types>",
        '<Override PartName="/ppt/comments/modernComment_1.xml" ContentType="application/vnd.ms-powerpoint.comments+xml"/>'
        "</Types>",
    ).encode()
    parts["ppt/slides/_rels/slide1.xml.rels"] = relations.replace("</Relationships>", relation).encode()
    data = made.zipped({**parts, "ppt/comments/modernComment_1.xml": comments})
    segments = Slides().read(data, made.OPTIONS).segments
    assert ("comments on slide 1", "Too long") in [(segment.place, segment.text) for segment in segments]
    assert b"TOO LONG" in made.parts_of(made.shouted(Slides(), data))["ppt/comments/modernComment_1.xml"]


@pytest.mark.parametrize("blank", ["\u00a0", "\u3000", "\u2003"])
def test_blanks_that_are_no_layout_stay_as_many(blank: str) -> None:
    page = f"<p>\n  {blank}A word{blank} \n</p>"
    after = made.parts_of(made.shouted(Epub(), made.book_file(page)))["EPUB/one.xhtml"].decode()
    assert f"<p>\n  {blank}A WORD{blank} \n</p>" in after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<text:s/>Two", '<text:s text:c="1"/>TWO'),
        ('<text:s text:c="3"/>Two', '<text:s text:c="3"/>TWO'),
        ('<text:span>A <text:s text:c="2"/>b</text:span>', '<text:span>A <text:s text:c="2"/>B</text:span>'),
        ("\n A <text:span> b</text:span>", "\n A <text:span>B</text:span>"),
        ("\n<text:span>\n A</text:span> b", "\n<text:span>A</text:span> B"),
        ("A<text:tab/><text:s/>b", "A<text:tab/> B"),
    ],
)
def test_blanks_of_opendocument_are_as_many_as_before(before: str, after: str) -> None:
    data = flat(f"<text:p>{before}</text:p>")
    assert made.shouted(FlatOpenDocument(), data) == flat(f"<text:p>{after}</text:p>")


PIECES = ("a", "b", " ", "\n ", '<text:s text:c="2"/>', "<text:s/>", "<text:tab/>", "<text:span>", "</text:span>")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=14))
def test_blanks_of_opendocument_are_read_again_as_they_were_written(pieces: list[str]) -> None:
    depth, content = 0, ""
    for piece in pieces:
        depth += (piece == "<text:span>") - (piece == "</text:span>")
        if depth < 0:
            depth, piece = 0, ""
        content += piece
    document = FlatOpenDocument().read(flat(f"<text:p>{content}{'</text:span>' * depth}</text:p>"), made.OPTIONS)
    same = [Translated(parts=segment.parts) for segment in document.segments]
    again = FlatOpenDocument().read(FlatOpenDocument().write(document.skeleton, same, made.OPTIONS), made.OPTIONS)
    assert [segment.text for segment in again.segments] == [segment.text for segment in document.segments]


def test_blanks_beside_a_picture_with_a_title_are_those_of_the_text() -> None:
    frame = "<draw:frame><svg:title>A  title</svg:title></draw:frame>"
    document = FlatOpenDocument().read(flat(f"<text:p>A {frame}dog</text:p>"), made.OPTIONS)
    one, code, two = document.segments[0].parts
    assert (one, two) == ("A ", "dog")
    results = [Translated(parts=("B  c ", code, " d")), Translated(parts=("B  c",))]
    data = FlatOpenDocument().write(document.skeleton, results, made.OPTIONS).decode()
    assert '<text:p>B <text:s text:c="1"/>c <draw:frame><svg:title>B  c</svg:title></draw:frame> d</text:p>' in data


def test_a_comment_within_a_document_type_is_refused() -> None:
    def change(text: str) -> str:
        return "<!DOCTYPE a [<!-- ]> <w:p> -->]>" + text[text.index("<w:document") :]

    with pytest.raises(InputError, match="of its own"):
        Word().read(made.with_part(made.word_file(), "word/document.xml", change), made.OPTIONS)


@pytest.mark.parametrize(
    ("kind", "name", "unit"),
    [
        (Word(), "word", ("<w:p><w:r>", "</w:r></w:p>")),
        (Word(), "word", ("<w:hyperlink>", "</w:hyperlink>")),
        (Word(), "word", ("<w:sdt><w:p>", "</w:p></w:sdt>")),
        (Epub(), "book", ("<div><span>a", "</span></div>")),
        (Epub(), "book", ("<span>", "</span>")),
        (Epub(), "book", ("<ruby>", "</ruby>")),
        (Epub(), "book", ("<b>a<p>", "</p></b>")),
        (FlatOpenDocument(), "flat", ("<text:p><text:span>a", "</text:span></text:p>")),
    ],
)
def test_the_deepest_that_is_allowed_is_read_and_written(kind: Format, name: str, unit: tuple[str, str]) -> None:
    def data(n_units: int) -> bytes:
        inner = unit[0] * n_units + "A word" + unit[1] * n_units
        if name == "word":
            return word(unit[0] * n_units + "<w:r><w:t>A word</w:t></w:r>" + unit[1] * n_units)
        return made.book_file(inner) if name == "book" else flat(inner)

    def reads(n_units: int) -> bool:
        try:
            made.shouted(kind, data(n_units))
        except InputError as error:
            assert "within each other" in str(error)  # noqa: PT017
            return False
        return True

    most = xml_tokens.MAX_DEPTH // unit[0].count("<")
    assert next(n_units for n_units in range(most, 0, -1) if reads(n_units)) >= most - 5


def field(what: str) -> str:
    return f'<w:r><w:fldChar w:fldCharType="{what}"/></w:r>'


LINK = (
    f"{field('begin')}<w:r><w:instrText>HYPERLINK x</w:instrText></w:r>{field('separate')}<w:r><w:t>A link </w:t></w:r>"
)


def test_links_within_links_are_copied_from_some_depth_on() -> None:
    data = word(f"<w:r><w:t>A word</w:t></w:r>{LINK * 1000}{field('end') * 1000}")
    after = body(made.shouted(Word(), data))
    assert after.count("A LINK") == 50
    assert after.count("A link") == 950


@pytest.mark.parametrize(
    "runs",
    [
        field("begin") * 10_000 + "<w:r><w:t>A</w:t></w:r>",
        "<w:r><w:rPr><w:b/></w:rPr><w:t>A</w:t></w:r>" + '<w:bookmarkStart w:id="1"/>' * 20_000,
        "".join(f'<w:r><w:rPr><w:sz w:val="{n}"/></w:rPr><w:t>A</w:t></w:r>' for n in range(2500)),
        "<w:r><w:rPr><w:b" + " " * 20_000 + "w:val='1'/></w:rPr><w:t>A</w:t></w:r>",
    ],
    ids=["fields that do not end", "codes behind a look", "looks", "blanks in a tag"],
)
def test_long_paragraphs_are_read_in_time(runs: str) -> None:
    data = word(f"<w:r><w:t>A</w:t></w:r>{runs}<w:r><w:t>A</w:t></w:r>")
    began = time.process_time()
    made.shouted(Word(), data)
    assert time.process_time() - began < 6


def test_codes_beside_each_other_take_no_more_memory_than_they_are() -> None:
    data = word("<w:r><w:t>A</w:t></w:r>" + '<w:bookmarkStart w:id="1"/>' * 4000 + "<w:r><w:t>b</w:t></w:r>")
    tracemalloc.start()
    parts = Word().read(data, made.OPTIONS).segments[1].parts
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [part.role if isinstance(part, Code) else part for part in parts] == ["A", "alone", "b"]
    assert peak < 40 * 2**20


def test_a_text_that_is_there_four_times_is_asked_about_once() -> None:
    box = "<w:txbxContent><w:p><w:r><w:t>In a box</w:t></w:r></w:p></w:txbxContent>"

    def twice(one: str, other: str) -> str:
        return (
            f'<mc:AlternateContent><mc:Choice Requires="wps">{one}</mc:Choice><mc:Fallback>{other}</mc:Fallback>'
            "</mc:AlternateContent>"
        )

    data = word(f"<w:r>{twice(twice(box, box), twice(box, box))}</w:r>")
    assert [text for text in made.texts(Word(), data) if "box" in text] == ["In a box"]
    assert made.parts_of(made.shouted(Word(), data))["word/document.xml"].decode().count("IN A BOX") == 4


def test_a_part_that_is_read_again_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sheet = f'<worksheet xmlns="{SHEET}"><c><is><t>A word</t></is></c></worksheet>' + " " * 60_000
    data = workbook({"xl/one.xml": (f"{KIND}.worksheet+xml", sheet)})
    monkeypatch.setattr(package, "MAX_READ", 100_000)
    assert made.texts(Sheets(), data) == ["A word"]
    two = workbook({f"xl/{name}.xml": (f"{KIND}.worksheet+xml", sheet) for name in ("one", "two")})
    with pytest.raises(InputError, match="all parts together"):
        Sheets().read(two, made.OPTIONS)
