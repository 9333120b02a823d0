"""RTF: what stands in a file comes back; what is translated is read again as it was written."""

from __future__ import annotations

import time
import tracemalloc

import office_files as made
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.apps.documents.document import Code, Part, Translated
from nlpkit.apps.documents.formats.various.rtf import Rtf
from nlpkit.core.errors import InputError

HEAD = (
    r"{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0\fswiss\fcharset0 Arial;}{\f1\froman\fcharset204 Times;}"
    r"{\f2\fcharset128 Gothic;}}{\stylesheet{\s1 heading 1;}}{\info{\title Nobody reads this}}"
)


def page(body: str) -> bytes:
    return (HEAD + body + "}").encode("latin-1")


def parts(body: str) -> list[list[Part]]:
    return [list(segment.parts) for segment in Rtf().read(page(body), made.OPTIONS).segments]


def shapes(body: str) -> list[list[str]]:
    return [[part if isinstance(part, str) else f"<{part.literal}>" for part in one] for one in parts(body)]


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (r"\pard\plain\f0 The dog\par Two\line lines\par", [["The dog"], ["Two", r"<\line >", "lines"]]),
        (r"{\b Bold} and {\i\fs20 small} text\par", [[r"<{\b >", "Bold", "<}>", " and ", r"<{\i\fs20 >", "small", "<}>", " text"]]),
        (r"One \b two\b0  three\par", [["One ", r"<\b >", "two", r"<\b0 >", " three"]]),
        (r"{\rtlch\fcs1 \af0\ltrch\insrsid12 The ho}{\insrsid77 use}\par", [["The house"]]),
        (r"caf\'e9 \u8364?, \u-10179?\u-8704? \emdash \ldblquote x\rdblquote \~y\_z a\-b\par", [["café €, 😀 —“x”\u00a0y\u2011z ab"]]),
        (r"\f1\'cf\'f0\'e8 \f2\'93\'fa\par", [["При ", r"<\f2>", "日"]]),
        (r"\uc2\u228aex\uc0\u246 y\par", [["äx", r"<\uc0>", "öy"]]),
        (r"A cell\cell Another\cell\row", [["A cell"], ["Another"]]),
        (
            r"On{\*\bkmkstart a}e {\pict\bin5 }{}\x} two\par",
            [["On", r"<{\*\bkmkstart a}>", "e ", r"<{\pict\bin5 }{}\x}>", " two"]],
        ),
        (r"\f2\'83\'65\'83X\'83g\'83\par", [["テスト\ufffd"]]),
        (r"\ansicpg65001 \'c3\'a9t\'c3\'a9 \'c3\par", [["été \ufffd"]]),
        (r"{\deleted Gone}\par Here\par", [["Here"]]),
        (r"Here {\b\deleted Gone} and {\b now}\par", [["Here ", r"<{\b\deleted Gone}>", " and ", r"<{\b >", "now", "<}>"]]),
        (r"\deleted Gone\par gone \deleted0 Here\par", [["Here"]]),
        (r"{\deleted0 Here}\par", [[r"<{\deleted0 >", "Here", "<}>"]]),
        (r"12\par - \par", []),
    ],
)  # fmt: skip
def test_what_a_reader_sees(body: str, wanted: list[list[str]]) -> None:
    assert shapes(body) == wanted


def test_links_enclose_text_and_other_fields_are_copied() -> None:
    body = r"See {\field{\*\fldinst HYPERLINK x}{\fldrslt the page}} on {\field{\*\fldinst PAGE}{\fldrslt 7}}.\par"
    (one,) = parts(body)
    assert [part if isinstance(part, str) else (part.role, part.text) for part in one] == [
        "See ", ("open", ""), "the page", ("close", ""), " on ", ("alone", "7"), ".",
    ]  # fmt: skip


def test_half_a_character_of_unicode_in_a_field_is_text_all_the_same() -> None:
    ((_, field, _),) = parts(r"On {\field{\*\fldinst PAGE}{\fldrslt \u-10179?}} here\par")
    assert isinstance(field, Code)
    assert field.text == "\ufffd"


def test_comments_and_text_boxes_are_read_for_themselves() -> None:
    body = (
        r"Text{\*\atnauthor Me}{\*\annotation{\*\atnref 1}A comment.} and {\shp{\*\shpinst\shpleft5{\sp{\sn name}"
        r"{\sv Box}}{\shptxt In a box\par}}{\shprslt{\*\do x}}}more\par"
    )
    assert made.texts(Rtf(), page(body)) == ["Text and more", "A comment.", "In a box"]
    after = made.shouted(Rtf(), page(body)).decode()
    assert r"{\*\atnref 1}A COMMENT.}" in after
    assert r"{\sv Box}}{\shptxt IN A BOX\par}}" in after


@pytest.mark.parametrize(
    ("before", "text"),
    [
        (r"\pard\f0\fs22\b\'c9t\'e9 chaud\par", "Summer"),
        (r"\li5{\insrsid7 The dog}\par", "5 dogs"),
        (r"{\b\'e9t\'e9}\par", "a"),
    ],
)
def test_a_text_does_not_run_into_the_control_word_before_it(before: str, text: str) -> None:
    data = page(before)
    document = Rtf().read(data, made.OPTIONS)
    parts = tuple(text if isinstance(part, str) else part for part in document.segments[0].parts)
    after = Rtf().write(document.skeleton, [Translated(parts=parts)], made.OPTIONS)
    assert made.texts(Rtf(), after) == [text]


def test_a_line_end_ends_a_control_word_and_tabs_stay() -> None:
    data = page("A cell\\cell\nAnother\tone\\cell\n")
    assert made.shouted(Rtf(), data) == page("A CELL\\cell\nANOTHER\\tab ONE\\cell\n")


def test_a_backslash_at_the_end_of_a_text_is_no_control_word() -> None:
    document = Rtf().read(page("A path\\par"), made.OPTIONS)
    after = Rtf().write(document.skeleton, [Translated(parts=("\\abc", "def"))], made.OPTIONS)
    assert made.texts(Rtf(), after) == ["\\abcdef"]


def test_many_codes_beside_each_other_take_no_more_memory_than_they_are() -> None:
    data = page("A" + r"{\*\bkmkstart a}" * 4000 + r"A\par")
    tracemalloc.start()
    (segment,) = Rtf().read(data, made.OPTIONS).segments
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(segment.parts) == 3
    assert peak < 20 * 2**20


def test_a_long_table_of_fonts_is_read_in_time() -> None:
    began = time.process_time()
    Rtf().read((r"{\rtf1{\fonttbl" + r"\f1" * 20_000 + "}A\\par}").encode(), made.OPTIONS)
    assert time.process_time() - began < 5


def test_notes_and_headers_are_read_for_themselves() -> None:
    body = r"{\header On top\par}Text{\footnote A {\i note}.} goes on\par"
    data = page(body)
    assert made.texts(Rtf(), data) == ["On top", "Text goes on", "A note."]
    after = made.shouted(Rtf(), data).decode()
    assert r"{\header ON TOP\par}TEXT{\footnote A {\i NOTE}.} GOES ON\par" in after


def test_without_translation_the_same_bytes_come_back() -> None:
    data = page("{\\b Bold}\r\n and \\'e9 more\\par\r\n") + b"\r\n\x00"
    document = Rtf().read(data, made.OPTIONS)
    assert Rtf().write(document.skeleton, [None], made.OPTIONS) == data


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"hello", "does not begin"),
        (HEAD.encode(), "not closed"),
        (page("text")[:-1] + b"\\", "backslash"),
        (page("x}more"), "outside"),
        (b"{\\rtf1 " + b"{" * 5000 + b"}" * 5001, "within each other"),
        (b"{\\rtf1{\\pict", "not closed"),
        (page("}{text"), "outside"),
        (page(r"{\footnote a" * 60 + "}" * 60), "notes are within each other"),
    ],
    ids=["text", "open", "cut", "outside", "deep", "picture", "two", "notes"],
)
def test_what_is_broken_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(InputError, match=why):
        Rtf().read(data, made.OPTIONS)


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(TEXT, TEXT)
def test_any_text_can_be_written(one: str, two: str) -> None:
    data = page(r"\pard Some {\b words}\tab here\par")
    document = Rtf().read(data, made.OPTIONS)
    first, opened, _, closed, tab, _ = document.segments[0].parts
    assert all(isinstance(code, Code) for code in (opened, closed, tab))
    result = Translated(parts=("a" + one, opened, "b", closed, two, tab, "z"))
    after = Rtf().write(document.skeleton, [result], made.OPTIONS)
    (segment,) = Rtf().read(after, made.OPTIONS).segments
    plain = f"a{one}b{two}\tz"
    assert segment.text == plain
    assert first == "Some "


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("{}\\ab 'u1*\n~-"), max_size=40))
def test_anything_is_read_or_refused(body: str) -> None:
    data = page(body)
    try:
        document = Rtf().read(data, made.OPTIONS)
    except InputError:
        return
    assert Rtf().write(document.skeleton, [None] * len(document.segments), made.OPTIONS) == data
    same = [Translated(parts=segment.parts) for segment in document.segments]
    again = Rtf().read(Rtf().write(document.skeleton, same, made.OPTIONS), made.OPTIONS)
    assert [segment.text for segment in again.segments] == [segment.text for segment in document.segments]
