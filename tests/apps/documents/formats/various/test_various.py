"""Notebooks; PDF and mail, which are read alone."""

from __future__ import annotations

import json

import office_files as made
import pytest

from nlpkit.apps.documents.formats.various.mail import Mail
from nlpkit.apps.documents.formats.various.notebook import Notebook
from nlpkit.apps.documents.formats.various.pdf import Pdf
from nlpkit.core.errors import InputError

CELLS = [
    {"cell_type": "markdown", "metadata": {}, "source": ["# Title\n", "\n", "Some **bold** and ä\n", "`code`."]},
    {"cell_type": "code", "metadata": {}, "source": ["# a comment"], "outputs": [{"text": ["Some text"]}]},
    {"cell_type": "markdown", "metadata": {}, "source": "One string"},
    {"cell_type": "raw", "metadata": {}, "source": ["Raw text"]},
    {"cell_type": "markdown", "metadata": {}, "source": []},
]


def notebook(*, indent: int | None = 1, ascii_only: bool = False) -> bytes:
    value = {"cells": CELLS, "metadata": {"title": "Meta"}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_markdown_cells_alone_are_translated(indent: int | None, ascii_only: bool) -> None:
    data = notebook(indent=indent, ascii_only=ascii_only)
    document = Notebook().read(data, made.OPTIONS)
    assert [segment.text for segment in document.segments] == ["Title", "Some bold and ä code.", "One string"]
    assert Notebook().write(document.skeleton, [None] * 3, made.OPTIONS) == data
    after = made.shouted(Notebook(), data)
    assert after.isascii() == ascii_only
    value = json.loads(after)
    assert [cell["source"] for cell in value["cells"]] == [
        ["# TITLE\n", "\n", "SOME **BOLD** AND Ä\n", "`code`."],
        ["# a comment"],
        "ONE STRING",
        ["Raw text"],
        [],
    ]
    # The layout of the file stays: what is not translated is as it was, byte for byte.
    assert len(after.splitlines()) == len(data.splitlines())
    assert value["metadata"] == {"title": "Meta"}


def test_places_of_a_notebook() -> None:
    data = notebook()
    lines = data.decode().splitlines()
    wanted = [next(n for n, line in enumerate(lines, 1) if text in line) for text in ("Title", "Some **", "One string")]
    segments = Notebook().read(data, made.OPTIONS).segments
    assert [segment.line for segment in segments] == wanted
    assert [segment.place for segment in segments] == ["cell 1", "cell 1", "cell 3"]


@pytest.mark.parametrize(
    "data", [b"{", b"[]", b'{"worksheets": []}', b"[" * 100_000], ids=["cut", "list", "old", "deep"]
)
def test_what_is_no_notebook_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="cannot be read as a notebook"):
        Notebook().read(data, made.OPTIONS)


def pdf(*pages: str) -> bytes:
    """A PDF with a line of text on each page, written by hand."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for text in pages:
        stream = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET"
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(objects)} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Count {len(pages)} /Kids [{' '.join(kids)}] >>"
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    size = len(objects) + 1
    trailer = f"trailer << /Size {size} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
    return out + f"xref\n0 {size}\n0000000000 65535 f \n{table}{trailer}".encode()


def test_a_pdf_is_read_page_by_page() -> None:
    segments = Pdf().read(pdf("The dog is black.", "The cat is not."), made.OPTIONS).segments
    assert [(segment.place, segment.text) for segment in segments] == [
        ("page 1", "The dog is black."),
        ("page 2", "The cat is not."),
    ]


def test_a_pdf_cannot_be_written() -> None:
    with pytest.raises(InputError, match="can be read but not written"):
        Pdf().write(None, [], made.OPTIONS)


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"hello", "does not begin"), (pdf("Word")[:300], "damaged"), (pdf(""), "no text")],
    ids=["text", "cut", "empty"],
)
def test_a_pdf_without_text_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(InputError, match=why):
        Pdf().read(data, made.OPTIONS)


MAIL = (
    b"From: a@example.org\r\nSubject: =?utf-8?q?My_h=C3=B6use?=\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n'
    b"Dear Mary,\r\n\r\nthe dog is black.\r\n--b\r\nContent-Type: image/png; name=a.png\r\n"
    b'Content-Disposition: attachment; filename="a.png"\r\n\r\nx\r\n--b--\r\n'
)


def test_a_mail_is_read_without_its_attachments() -> None:
    document = Mail().read(MAIL, made.OPTIONS)
    assert [segment.text for segment in document.segments] == ["My höuse", "Dear Mary,", "the dog is black."]
    assert document.notes == ("Attachments are left out: a.png.",)


def test_a_page_in_a_mail_is_read_as_one() -> None:
    data = (
        b"Subject: Hi\nContent-Type: text/html\n\n<html><body><p>The <b>dog</b></p><script>x</script></body></html>\n"
    )
    assert [segment.text for segment in Mail().read(data, made.OPTIONS).segments] == ["Hi", "The dog"]


@pytest.mark.parametrize("data", [b"", b"no header\n\ntext", b"Subject:\n\n"])
def test_what_is_no_mail_is_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        Mail().read(data, made.OPTIONS)
