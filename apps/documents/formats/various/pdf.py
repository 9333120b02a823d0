"""PDF, read as text for summaries and questions: it cannot be written."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

from nlpkit.apps.documents.document import Document, ReadOptions, Results, Segment, broken
from nlpkit.core.errors import ConfigError, InputError

MAX_PAGES = 5_000
"""Most pages that are read."""

MAX_TEXT = 32 * 2**20
"""Most characters that are taken out of a file."""

_HYPHEN = re.compile(r"(?<=[^\W\d_])[-\u00ad]\n(?=[^\W\d_A-Z])")
_TITLE = "a PDF"
_DAMAGED = (
    *(ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, OSError),
    NotImplementedError,
)
"""What a library says of files that are not as they should be."""


class Pdf:
    """Reads PDF."""

    name = "pdf"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read the text of a file, page by page.

        Raises:
            InputError: It is no PDF, or encrypted, broken, too large, or without text, as scanned pages are.
            ConfigError: The library that reads PDF is missing, or the one that it decrypts with.
        """
        try:
            import pypdf
        except ImportError as error:
            raise ConfigError("Reading PDF needs pypdf: pip install 'nlpkit[documents]'.") from error
        if not data.lstrip()[:5] == b"%PDF-" and b"%PDF-" not in data[:1024]:
            raise broken(_TITLE, options, "it does not begin as one")
        try:
            reader = pypdf.PdfReader(io.BytesIO(data))
            if reader.is_encrypted and not reader.decrypt(""):
                raise InputError(
                    f"{options.name} is encrypted. Save it without its password, and give that file instead."
                )
            segments = tuple(_segments(reader, options))
        except InputError:
            raise
        except pypdf.errors.DependencyError as error:
            raise ConfigError(
                f"Reading {options.name} needs cryptography, as it is encrypted, if without a password: pip install "
                "'nlpkit[documents]'."
            ) from error
        except (pypdf.errors.PyPdfError, *_DAMAGED) as error:
            raise broken(_TITLE, options, f"it is damaged ({type(error).__name__}: {error})") from error
        if not segments:
            raise InputError(
                f"There is no text in {options.name}: its pages may be images. Recognise their text first."
            )
        return Document(format=self.name, segments=segments, skeleton=None)

    def write(self, skeleton: Any, results: Results, options: ReadOptions) -> bytes:
        """Refuse: nobody writes text into the layout of a PDF.

        Raises:
            InputError: Always.
        """
        raise read_only(_TITLE, options)


def read_only(title: str, options: ReadOptions) -> InputError:
    """Return the error for a file that cannot be written in its format."""
    return InputError(
        f"{options.name} is {title}, which can be read but not written. Take its text out of it, or translate the file "
        "that it was made from."
    )


def _segments(reader: Any, options: ReadOptions) -> Iterator[Segment]:
    used = 0
    if len(reader.pages) > MAX_PAGES:
        raise broken(_TITLE, options, f"it has more than {MAX_PAGES:,} pages")
    for number, page in enumerate(reader.pages, start=1):
        text = page.extract_text()
        used += len(text)
        if used > MAX_TEXT:
            raise broken(_TITLE, options, f"it has more than {MAX_TEXT:,} characters of text")
        for block in re.split(r"\n[ \t]*\n", text):
            said = " ".join(_HYPHEN.sub("", block).split())
            if said:
                yield Segment(parts=(said,), place=f"page {number}")
