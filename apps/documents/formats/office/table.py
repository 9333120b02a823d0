"""The zipped formats and their like: names, suffixes, and what their files begin with."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from nlpkit.apps.documents.document import Format
from nlpkit.apps.documents.formats.office.epub import Epub
from nlpkit.apps.documents.formats.office.opendocument import FlatOpenDocument, OpenDocument
from nlpkit.apps.documents.formats.office.sheets import Sheets
from nlpkit.apps.documents.formats.office.slides import Slides
from nlpkit.apps.documents.formats.office.word import Word
from nlpkit.apps.documents.formats.various.mail import Mail
from nlpkit.apps.documents.formats.various.notebook import Notebook
from nlpkit.apps.documents.formats.various.pdf import Pdf
from nlpkit.apps.documents.formats.various.rtf import Rtf


class OfficeFormat(NamedTuple):
    """A row of the table of formats; the fields are those of `registry.FormatEntry`."""

    name: str
    title: str
    suffixes: tuple[str, ...]
    build: Callable[[], Format]
    begins: re.Pattern[bytes] | None = None
    read_only: bool = False


def _zip(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"PK\x03\x04.*?" + pattern, re.DOTALL)


def _kind(name: bytes) -> re.Pattern[bytes]:
    """Return what an archive begins with that says first of all what it is, as EPUB and OpenDocument do."""
    return re.compile(rb"PK\x03\x04.{26}mimetype(?:.{0,64}?)application/" + re.escape(name), re.DOTALL)


_ODF = b"vnd.oasis.opendocument."

OFFICE_FORMATS: tuple[OfficeFormat, ...] = (
    OfficeFormat("epub", "EPUB", (".epub",), Epub, _kind(b"epub+zip")),
    OfficeFormat("odt", "OpenDocument text", (".odt", ".ott"), partial(OpenDocument, "odt"), _kind(_ODF + b"text")),
    OfficeFormat(
        *("odp", "OpenDocument presentation", (".odp", ".otp")),
        *(partial(OpenDocument, "odp"), _kind(_ODF + b"presentation")),
    ),
    OfficeFormat(
        *("ods", "OpenDocument spreadsheet", (".ods", ".ots")),
        *(partial(OpenDocument, "ods"), _kind(_ODF + b"spreadsheet")),
    ),
    OfficeFormat("fodt", "flat OpenDocument", (".fodt", ".fodp", ".fods"), FlatOpenDocument),
    OfficeFormat("docx", "Word", (".docx", ".docm", ".dotx", ".dotm"), Word, _zip(rb"word/")),
    OfficeFormat("pptx", "PowerPoint", (".pptx", ".pptm", ".potx", ".ppsx"), Slides, _zip(rb"ppt/")),
    OfficeFormat("xlsx", "Excel", (".xlsx", ".xlsm", ".xltx"), Sheets, _zip(rb"xl/")),
    OfficeFormat("rtf", "RTF", (".rtf",), Rtf, re.compile(rb"\{\\rtf")),
    OfficeFormat("ipynb", "Jupyter notebook", (".ipynb",), Notebook),
    OfficeFormat("pdf", "PDF", (".pdf",), Pdf, re.compile(rb"%PDF-\d"), read_only=True),
    OfficeFormat("eml", "e-mail", (".eml",), Mail, read_only=True),
)
"""In the order in which they are guessed."""
