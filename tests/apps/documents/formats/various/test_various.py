"""Notebooks; PDF and mail, which are read alone."""

from __future__ import annotations

import io
import json

import office_files as made
import pytest

from nlpkit.apps.documents.formats.various.mail import Mail
from nlpkit.apps.documents.formats.various.notebook import Notebook
from nlpkit.apps.documents.formats.various.pdf import Pdf
from nlpkit.core.errors import ConfigError, InputError

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
    "data",
    [
        *(b"{", b"[]", b'{"worksheets": []}', b"[" * 100_000),
        b'{"cells": [{"cell_type": "markdown", "source": "A", "x": 1, "source": "B"}]}',
        b'{"cells": [{"cell_type": "markdown", "source": "A"}], "cells": []}',
    ],
    ids=["cut", "list", "old", "deep", "two texts", "two lists"],
)
def test_what_is_no_notebook_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="cannot be read as a notebook"):
        Notebook().read(data, made.OPTIONS)


@pytest.mark.parametrize("source", ['{"a": "Some text"}', '["Some", 5, "text"]', '["Some", ["text"]]', "5"])
def test_cells_that_are_no_text_stay(source: str) -> None:
    data = f'{{"cells": [{{"cell_type": "markdown", "source": {source}}}]}}'.encode()
    assert made.shouted(Notebook(), data) == data
    assert made.texts(Notebook(), data) == []


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


def encrypted(password: str) -> bytes:
    import pypdf

    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf("The dog is black.")))
    writer.encrypt(password, "owner", algorithm="AES-256")
    stream = io.BytesIO()
    writer.write(stream)
    return stream.getvalue()


def test_a_pdf_that_is_encrypted_without_a_password_is_read() -> None:
    assert made.texts(Pdf(), encrypted("")) == ["The dog is black."]
    with pytest.raises(InputError, match="is encrypted"):
        Pdf().read(encrypted("secret"), made.OPTIONS)


def test_a_pdf_that_needs_a_library_to_decrypt_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import pypdf

    def refuse(*_: object) -> None:
        raise pypdf.errors.DependencyError("cryptography>=3.1 is required for AES algorithm")

    data = encrypted("")
    monkeypatch.setattr(pypdf.PdfReader, "decrypt", refuse)
    with pytest.raises(ConfigError, match="needs cryptography"):
        Pdf().read(data, made.OPTIONS)


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


def test_a_page_in_a_mail_is_in_the_encoding_of_the_mail() -> None:
    data = (
        "Subject: Hi\nContent-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n"
        '<meta charset="iso-8859-1"><p>The d\u00f6g \u20ac</p>\n'
    ).encode()
    assert made.texts(Mail(), data) == ["Hi", "The d\u00f6g \u20ac"]


@pytest.mark.parametrize("kind", ["plain", "html"])
def test_halves_of_characters_in_a_mail_are_no_text(kind: str) -> None:
    data = f"Subject: Hi\nContent-Type: text/{kind}; charset=raw_unicode_escape\n\nA \\ud800 dog\n".encode()
    _, text = made.texts(Mail(), data)
    assert text.encode().decode() == "A ? dog"


@pytest.mark.parametrize("data", [b"", b"no header\n\ntext", b"Subject:\n\n"])
def test_what_is_no_mail_is_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        Mail().read(data, made.OPTIONS)
