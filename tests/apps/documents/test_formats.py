"""Every format of documents: files come back as they were, and nothing but words changes in a translation."""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import replace

import pytest
from document_checks import Mangler, lost_after, opens_again, shout
from document_samples import SAMPLES, Sample

from nlpkit.apps.documents.document import Document, ReadOptions, Translated
from nlpkit.apps.documents.formats.office.table import OFFICE_FORMATS
from nlpkit.apps.documents.registry import (
    FORMATS,
    FormatEntry,
    find_format,
    read_document,
    refuse_unknown,
    write_document,
)
from nlpkit.apps.documents.translation.translate import translate_segments
from nlpkit.core.errors import InputError

OPTIONS = ReadOptions(name="it", target_lang="de")
BY_NAME = [pytest.param(sample, id=sample.name) for sample in SAMPLES]


def read(sample: Sample) -> tuple[FormatEntry, Document]:
    entry = find_format(sample.name, sample.data)
    assert entry is not None
    if entry.name == "fluent":
        pytest.importorskip("fluent.syntax")
    return entry, read_document(sample.data, entry, OPTIONS)


@pytest.mark.parametrize("sample", BY_NAME)
def test_what_is_for_people_is_found(sample: Sample) -> None:
    _, document = read(sample)
    assert tuple(segment.text for segment in document.segments) == sample.said


@pytest.mark.parametrize("sample", BY_NAME)
def test_without_translation_the_bytes_are_the_same(sample: Sample) -> None:
    entry, document = read(sample)
    assert write_document(document, [None] * len(document.segments), entry, OPTIONS) == sample.data


@pytest.mark.parametrize("sample", BY_NAME)
def test_words_that_stay_the_same_are_written_as_they_were(sample: Sample) -> None:
    entry, document = read(sample)
    results = [Translated(parts=segment.parts) for segment in document.segments]
    if not document.bilingual:
        written = write_document(document, results, entry, replace(OPTIONS, target_lang="en"))
        assert _in_one_line(written) == _in_one_line(sample.data)


def _in_one_line(data: bytes) -> bytes:
    """Return a text that may have been wrapped in another way."""
    return re.sub(rb"(?:\\?\s)+", b" ", data)


@pytest.mark.parametrize("sample", BY_NAME)
def test_with_a_translation_all_but_words_is_kept(sample: Sample) -> None:
    entry, document = read(sample)
    translation = translate_segments(document, shout)
    written = write_document(document, translation.results, entry, OPTIONS)
    assert written != sample.data
    for literal in sample.kept:
        assert written.count(literal.encode()) >= sample.data.count(literal.encode()), literal
    assert opens_again(entry.name, sample.data, written, OPTIONS) == ""
    assert translation.kept == 0


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("sample", BY_NAME)
def test_no_translator_can_lose_a_code(sample: Sample, seed: int) -> None:
    entry, document = read(sample)
    translation = translate_segments(document, Mangler(seed))
    assert lost_after(document, translation)[1] == []
    written = write_document(document, translation.results, entry, OPTIONS)
    if entry.name not in ("rst", "asciidoc", "latex"):
        assert opens_again(entry.name, sample.data, written, OPTIONS, words=False) == ""
    for flag in translation.flags:
        assert flag.source
        assert flag.reasons


@pytest.mark.parametrize("sample", BY_NAME)
def test_segments_know_their_line(sample: Sample) -> None:
    _, document = read(sample)
    lines = sample.data.decode("utf-16" if sample.data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8").count("\n") + 1
    assert all(1 <= segment.line <= lines for segment in document.segments)
    assert document.bilingual or [s.line for s in document.segments] == sorted(s.line for s in document.segments)


def test_every_format_has_a_sample() -> None:
    known = {entry.name for entry in FORMATS if not entry.read_only} - {"csv-columns", "tsv-columns"}
    have = {find_format(sample.name, sample.data).name for sample in SAMPLES}  # type: ignore[union-attr]
    # Those of zipped files make theirs as they are tested.
    assert known - have == {entry.name for entry in OFFICE_FORMATS if not entry.read_only}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", b'{"a": "b",}'),
        ("a.json", b"[" * 3000),
        ("a.json", b'{"a":{"b":{"c":"Hello there"}},"a":["y y"]}'),
        ("a.json", b"[" + b"9" * 5000 + b"]"),
        ("a.po", b'msgid "a b"\nmsgid_plural "a c"\nmsgstr ""\n'),
        ("a.ftl", b"a = " + b"{" * 3000),
        ("a.yml", b"a: 'b\nc: d"),
        ("a.toml", b"a = b c"),
        ("a.po", b'msgid "a"\nmsgid "b"\nmsgstr ""\n'),
        ("a.po", b"hello world\n"),
        ("a.svg", b"<svg><text></svg>"),
        ("a.svg", b"<html></html>"),
        ("a.xlf", b"<a/>"),
        ("a.srt", b"hello\n"),
        ("a.vtt", b"hello\n"),
        ("a.ass", b"hello\n"),
        ("a.ics", b"hello\n"),
        ("a.strings", b"hello\n"),
        ("a.php", b"hello\n"),
        ("a.md", b"\x00\x01binary"),
        ("a.md", b"caf\xe9"),
    ],
)
def test_broken_files_are_refused_by_name(name: str, data: bytes) -> None:
    entry = find_format(name, data)
    assert entry is not None
    if entry.name == "fluent":
        pytest.importorskip("fluent.syntax")
    with pytest.raises(InputError, match="it"):
        read_document(data, entry, OPTIONS)


def test_settings_of_programs_are_refused() -> None:
    with pytest.raises(InputError, match="must not be translated"):
        find_format("x/package.json")


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"WEBVTT\n\n", "vtt"),
        (b"1\n00:00:01,000 --> 00:00:02,000\nHi\n", "srt"),
        (b"<!doctype html>\n<p>x", "html"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x"/>', "svg"),
        (b'msgid ""\nmsgstr ""\n', "po"),
        (b"\\documentclass{article}", "latex"),
        (b"BEGIN:VCALENDAR\r\n", "ics"),
        (b"Dear Ann, 1 < 2.", None),
    ],
)
def test_content_tells_the_format_where_a_name_does_not(head: bytes, name: str | None) -> None:
    found = find_format("-", head)
    assert (found and found.name) == name


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"<!---->" * 580 + b"<foo/>", None),
        (b"<!---->" * 500 + b"<!-- a\n --><html>", "html"),
        (b"<" + b"a" * 4095, None),
    ],
)
def test_a_beginning_is_looked_at_in_no_time(head: bytes, name: str | None) -> None:
    began = time.perf_counter()
    found = find_format("x.xml", head)
    if found is None:
        with contextlib.suppress(InputError):
            refuse_unknown("x", head)
    assert time.perf_counter() - began < 0.5
    assert (found and found.name) == name


def read_as(name: str, text: str) -> Document:
    entry = find_format(name, text.encode())
    assert entry is not None
    return read_document(text.encode(), entry, OPTIONS)


def test_values_that_are_no_texts_and_odd_line_ends_are_no_errors() -> None:
    assert read_as("a.arb", '{"@@locale": 5, "hi": "Hello there"}').source_lang is None
    (segment,) = read_as("a.po", 'msgid "One\u2028line\x85here"\nmsgstr ""\n').segments
    assert segment.text == "One\u2028line\x85here"


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("<p translate=no>A a<p>B b", ["B b"]),
        ("<p translate=no>A <b>a<div>B b</div>", ["B b"]),
        ("<div><p translate=no>A a</div>B b", ["B b"]),
        ("<ul><li translate=no>A <ul><li>a</ul><li>B b</ul>C c", ["B b", "C c"]),
        (
            "<table><tr translate=no><td>A a<td>a<tr><td>B b<td translate=no>C c<td>D d</table>E e",
            ["B b", "D d", "E e"],
        ),
        ("<dl><dt translate=no>A a<dd>B b</dl>", ["B b"]),
        ("<div translate=no><p>A a<p>a</div><p>B b", ["B b"]),
    ],
)
def test_what_is_not_translated_ends_where_its_closing_tag_may_be_missing(page: str, said: list[str]) -> None:
    assert [segment.text for segment in read_as("a.html", page).segments] == said


def test_forms_of_one_message_are_finished_together() -> None:
    ts = (
        '<TS language="pl"><context><name>M</name><message numerus="yes"><source>%n boats</source>'
        '<translation type="unfinished"><numerusform/><numerusform></numerusform></translation></message></context></TS>'
    )
    entry = find_format("a.ts", ts.encode())
    assert entry is not None
    document = read_document(ts.encode(), entry, OPTIONS)
    for sure, finished in (((True, True), True), ((True, False), False), ((False, True), False)):
        results = [Translated(parts=("x",), sure=one) for one in sure]
        data = write_document(document, results, entry, OPTIONS).decode()
        assert "<numerusform>x</numerusform><numerusform>x</numerusform>" in data
        assert ("unfinished" not in data) == finished


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", "x y" + '<a "' * 6_000),
        ("a.html", "x y" + "<a " * 30_000),
        ("a.html", "<!a[>" * 100_000),
        ("a.html", "<p>x y" + "<a>" * 10_000 + "</b>" * 10_000),
        ("a.ini", "a=x" + " " * 30_000 + "y y\n"),
        ("a.md", "---\ntitle: a" + " " * 30_000 + "b\n---\n"),
        ("a.md", "x y <!--" * 8_000),
        ("a.md", "x y" + " " * 30_000 + "z"),
        ("a.md", "x [y" * 6_000 + "]" * 6_000 + "\n\n[a]: b\n"),
        ("a.adoc", "x y pass:[" * 8_000),
        ("a.adoc", "x y " + "http://" * 5_000),
        ("a.adoc", "x y " + "a:" * 25_000),
        ("a.tex", "x y \\[" * 12_000),
        ("a.tex", "\\title{a " * 3_000 + "\\begin{document}x\\end{document}"),
        ("a.tex", "\\label{a}\n" * 30_000 + "x y"),
        ("a.json", '{"a": "' + "{a, plural, other{b c " * 2_000 + "}}" * 2_000 + '"}'),
        ("a.json", '{"a": "' + "{a, plural, other{b c " * 5_000 + '"}'),
        ("a.resx", f'<root><data name="k"><value>x y &lt;a{" " * 8_000}</value></data></root>'),
        ("a.rst", "x y " + ":a" * 25_000),
        ("a.rst", "x y " + "a." * 40_000),
    ],
    ids=lambda text: text[:12],
)
def test_a_hostile_file_is_read_in_time_that_grows_with_it(name: str, text: str) -> None:
    began = time.process_time()
    read_as(name, text)
    assert time.process_time() - began < 4


@pytest.mark.parametrize(
    ("path", "head"),
    [
        ("CMakeLists.txt", b"project(x)\n"),
        ("a/.github/workflows/test.yml", b"name: Test\n"),
        ("log4j.properties", b"log4j.appender=%d [%p] %m%n\n"),
        ("src/Url.php", b"<?php\n\nnamespace App;\n\nfinal class Url extends Base\n{\n"),
        ("functions.php", b"<?php\nfunction greet() { return 'Hello there'; }\n"),
    ],
)
def test_programs_and_their_settings_hold_nothing_for_people(path: str, head: bytes) -> None:
    with pytest.raises(InputError, match="must not be translated"):
        find_format(path, head)


def test_arrays_of_php_are_no_programs_and_programs_are_refused_whatever_stands_first() -> None:
    array = (
        b"<?php\n// class Room, function hall()\nreturn ['class' => 'A class of its own', 'function' => 'Function'];\n"
    )
    entry = find_format("lang/en/room.php", array)
    assert entry is not None
    options = ReadOptions(name="room.php")
    assert [segment.text for segment in read_document(array, entry, options).segments] == [
        "A class of its own",
        "Function",
    ]
    program = b"<?php\n" + b"// A licence.\n" * 400 + b"class Room { const NAME = 'The room'; }\n"
    with pytest.raises(InputError, match=r"room\.php:402 cannot be read as PHP arrays: it is a program"):
        read_document(program, entry, options)


@pytest.mark.parametrize("encoding", ["UTF-9", "shift_jis", "rot13"])
def test_xml_in_an_encoding_that_is_unknown_is_refused(encoding: str) -> None:
    data = (
        f'<?xml version="1.0" encoding="{encoding}"?>\n<resources><string name="a">A text</string></resources>'.encode()
    )
    entry = find_format("strings.xml", data)
    assert entry is not None
    with pytest.raises(InputError, match="names an encoding that XML is not read in"):
        read_document(data, entry, ReadOptions(name="strings.xml"))
