"""The formats of documents: which one a file is in, by its name and by what stands in it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nlpkit.apps.documents.document import Document, Format, ReadOptions, Results
from nlpkit.apps.documents.files import display_name
from nlpkit.apps.documents.formats.markup.bilingual import QtTs, Tmx, Xliff
from nlpkit.apps.documents.formats.markup.html import Html
from nlpkit.apps.documents.formats.markup.xml_strings import Android, Resx, Svg
from nlpkit.apps.documents.formats.office.table import OFFICE_FORMATS
from nlpkit.apps.documents.formats.prose.asciidoc import AsciiDoc
from nlpkit.apps.documents.formats.prose.latex import Latex
from nlpkit.apps.documents.formats.prose.markdown import Markdown
from nlpkit.apps.documents.formats.prose.plain import PlainText
from nlpkit.apps.documents.formats.prose.rst import ReStructuredText
from nlpkit.apps.documents.formats.strings.fluent import Fluent
from nlpkit.apps.documents.formats.strings.gettext import Gettext
from nlpkit.apps.documents.formats.strings.json_messages import JsonMessages
from nlpkit.apps.documents.formats.strings.line_messages import AppleStrings, Ini, PhpArrays
from nlpkit.apps.documents.formats.strings.properties import Properties
from nlpkit.apps.documents.formats.strings.toml_messages import TomlMessages
from nlpkit.apps.documents.formats.strings.yaml_messages import YamlMessages
from nlpkit.apps.documents.formats.subtitles.ass import Lyrics, SubStation
from nlpkit.apps.documents.formats.subtitles.srt import SubRip, WebVtt
from nlpkit.apps.documents.formats.tables.calendar import Calendar
from nlpkit.apps.documents.formats.tables.columns import Columns, TabColumns
from nlpkit.apps.documents.not_for_people import check_for_people
from nlpkit.core.errors import ConfigError, InputError, did_you_mean

_XML = rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--(?:(?!-->).)*-->\s*|<!DOCTYPE[^>]*>\s*)*"


@dataclass(frozen=True)
class FormatEntry:
    """A format that can be read and written.

    Attributes:
        name: What ``--input-format`` calls it.
        title: What people call it.
        suffixes: Ends of the names of its files, in small letters.
        build: Makes its reader and writer.
        begins: What its files begin with, for files whose names do not say; None where nothing tells.
        read_only: Whether it is read as text and cannot be written.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    build: Callable[[], Format]
    begins: re.Pattern[bytes] | None = None
    read_only: bool = False


FORMATS: tuple[FormatEntry, ...] = (
    FormatEntry("text", "plain text", (".txt", ".text"), PlainText),
    FormatEntry("markdown", "Markdown", (".md", ".markdown", ".mdown", ".mkd"), Markdown),
    FormatEntry(
        "html",
        "HTML",
        (".html", ".htm", ".xhtml"),
        Html,
        re.compile(
            rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--(?:(?!-->).)*-->\s*)*(?:<!DOCTYPE\s+html|<html[\s>])",
            re.IGNORECASE | re.DOTALL,
        ),
    ),
    FormatEntry(
        "xliff",
        "XLIFF",
        (".xlf", ".xliff", ".sdlxliff", ".mxliff"),
        Xliff,
        re.compile(_XML + rb"<(?:\w+:)?xliff[\s>]", re.DOTALL),
    ),
    FormatEntry("tmx", "TMX", (".tmx",), Tmx, re.compile(_XML + rb"<tmx[\s>]", re.DOTALL)),
    FormatEntry("qt", "Qt TS", (), QtTs, re.compile(_XML + rb"<TS[\s>]", re.DOTALL)),
    FormatEntry("android", "Android resources", (), Android, re.compile(_XML + rb"<resources[\s>]", re.DOTALL)),
    FormatEntry("resx", ".NET resources", (".resx", ".resw"), Resx),
    FormatEntry("svg", "SVG", (".svg",), Svg, re.compile(_XML + rb"<(?:\w+:)?svg[\s>]", re.DOTALL)),
    FormatEntry("json", "JSON", (".json", ".arb", ".webextension"), JsonMessages),
    FormatEntry(
        "po",
        "gettext PO",
        (".po", ".pot"),
        Gettext,
        re.compile(rb'(?:\s*#[^\n]*\n)*\s*(?:msgctxt "[^\n]*\n\s*)?msgid ""?[^\n]*\n'),
    ),
    FormatEntry("rst", "reStructuredText", (".rst", ".rest"), ReStructuredText),
    FormatEntry("asciidoc", "AsciiDoc", (".adoc", ".asciidoc", ".asc"), AsciiDoc),
    FormatEntry(
        "latex", "LaTeX", (".tex", ".latex", ".ltx"), Latex, re.compile(rb"(?:\s*%[^\n]*\n)*\s*\\documentclass[\[{]")
    ),
    FormatEntry("yaml", "YAML", (".yml", ".yaml"), YamlMessages),
    FormatEntry("toml", "TOML", (".toml",), TomlMessages),
    FormatEntry("ini", "INI", (".ini", ".lang"), Ini),
    FormatEntry("fluent", "Fluent", (".ftl",), Fluent),
    FormatEntry("strings", "Apple strings", (".strings",), AppleStrings),
    FormatEntry("php", "PHP arrays", (".php",), PhpArrays),
    FormatEntry("ics", "iCalendar", (".ics", ".ical"), Calendar, re.compile(rb"\s*BEGIN:VCALENDAR", re.IGNORECASE)),
    FormatEntry("csv-columns", "columns of CSV", (), Columns),
    FormatEntry("tsv-columns", "columns of TSV", (), TabColumns),
    FormatEntry("ass", "ASS subtitles", (".ass", ".ssa"), SubStation, re.compile(rb"\s*\[Script Info\]")),
    FormatEntry("lrc", "lyrics (LRC)", (".lrc",), Lyrics),
    FormatEntry("properties", "Java properties", (".properties",), Properties),
    FormatEntry(
        "srt",
        "SubRip subtitles",
        (".srt",),
        SubRip,
        re.compile(rb"\s*\d{1,6}\s*\r?\n\d{1,3}:\d\d:\d\d[,.]\d{1,3} *--> *\d{1,3}:\d\d:\d\d[,.]\d"),
    ),
    FormatEntry("vtt", "WebVTT subtitles", (".vtt",), WebVtt, re.compile(rb"WEBVTT(?=[ \t\r\n])")),
    *(FormatEntry(*entry) for entry in OFFICE_FORMATS),
)
"""All formats; plain text comes first, and is the last to be guessed."""

_PROGRAM_SUFFIXES = (
    ".py .js .mjs .cjs .jsx .ts .tsx .c .h .cc .cpp .hpp .cs .java .kt .go .rs .rb .pl .lua .sh .bash .bat .ps1 .swift "
    ".scala .sql .css .scss .less .vue .svelte .ipynb .plist .stringsdict .xcstrings "
    ".xml .xsl .xsd .dtd .conf .cfg .env"
)
_PROGRAMS = frozenset(_PROGRAM_SUFFIXES.split())
_MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml|<!DOCTYPE|<\w[^<>]*xmlns|\{\\rtf)", re.IGNORECASE)


def format_names() -> tuple[str, ...]:
    """Return the names of all formats."""
    return tuple(entry.name for entry in FORMATS)


def find_format(path: str, head: bytes = b"", *, name: str = "auto", columns: bool = False) -> FormatEntry | None:
    """Return the format of a file.

    Args:
        path: The file's path; ``-`` for standard input.
        head: Its first bytes, for names that do not tell.
        name: The format that the user named, or ``auto``.
        columns: Whether tables are documents, of which columns are translated.

    Returns:
        The format, or None where neither name nor content tells.

    Raises:
        ConfigError: There is no format of that name.
        InputError: The file is known to hold nothing for people.
    """
    if name != "auto":
        found = next((entry for entry in FORMATS if entry.name == name), None)
        if found is None:
            raise ConfigError(f"There is no format {name!r}. {did_you_mean(name, format_names())}")
        return found
    base = os.path.basename(path).lower().removesuffix(".gz")
    if columns and base.endswith((".csv", ".tsv")):
        name = f"{base[-3:]}-columns"
        return next(entry for entry in FORMATS if entry.name == name)
    by_name = [entry for entry in FORMATS for suffix in entry.suffixes if base.endswith(suffix)]
    told = max(
        by_name,
        key=lambda entry: max(len(suffix) for suffix in entry.suffixes if base.endswith(suffix)),
        default=None,
    )
    check_for_people(path, head, None if told is None else told.name)
    return told or sniff(head)


def refuse_unknown(path: str, head: bytes) -> None:
    """Refuse a file that is certainly no plain text for people and in none of the formats.

    Args:
        path: Its path.
        head: Its first bytes.

    Raises:
        InputError: It is a program, or in a language of marks that is not known.
    """
    suffix = os.path.splitext(path.lower().removesuffix(".gz"))[1]
    what = "a program" if suffix in _PROGRAMS else "markup that is not known" if _MARKUP.match(head) else ""
    if what:
        raise InputError(
            f"{display_name(path)} is {what}: as plain text it would come out damaged. Say --input-format text to have "
            "all of it translated all the same."
        )


def sniff(head: bytes) -> FormatEntry | None:
    """Return the format that the first bytes of a file leave no doubt about, or None.

    Args:
        head: The bytes.
    """
    head = head.removeprefix(b"\xef\xbb\xbf")
    return next((entry for entry in FORMATS if entry.begins is not None and entry.begins.match(head)), None)


def suffixes(entries: Iterable[FormatEntry] = FORMATS) -> tuple[str, ...]:
    """Return the suffixes of formats."""
    return tuple(suffix for entry in entries for suffix in entry.suffixes)


def read_document(data: bytes, entry: FormatEntry, options: ReadOptions) -> Document:
    """Read a file in a format.

    Args:
        data: The file.
        entry: Its format.
        options: What the format may have to know.

    Raises:
        InputError: It is not in this format, or broken.
    """
    return entry.build().read(data, options)


def write_document(document: Document, results: Results, entry: FormatEntry, options: ReadOptions) -> bytes:
    """Write a document in its format.

    Args:
        document: The document.
        results: One a segment; None for a segment that stays as it is.
        entry: Its format.
        options: As it was read with.
    """
    return entry.build().write(document.skeleton, results, options)
