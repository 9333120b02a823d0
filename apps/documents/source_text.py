"""The text of a file with the places that may be replaced in it: everything else comes back as it was."""

from __future__ import annotations

import codecs
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

from nlpkit.apps.documents.document import ReadOptions
from nlpkit.apps.documents.files import check_encoding, decode_text
from nlpkit.core.errors import InputError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True)
class SourceText:
    """A decoded file that can be encoded again.

    Attributes:
        text: Its text, line ends as they are, without a byte order mark.
        encoding: Its encoding.
        mark: Its byte order mark.
        name: What it is called in errors.
    """

    text: str
    encoding: str = "utf-8"
    mark: bytes = b""
    name: str = "the file"
    _lines: list[int] = field(default_factory=list, repr=False, compare=False)

    def line(self, offset: int) -> int:
        """Return the line, from 1, of a character."""
        if not self._lines:
            at = -1
            while (at := self.text.find("\n", at + 1)) >= 0:
                self._lines.append(at)
            self._lines.append(len(self.text))
        return bisect_left(self._lines, offset) + 1

    @property
    def newline(self) -> str:
        r"""The line end that a file mostly uses: ``\n`` or ``\r\n``."""
        returns = self.text.count("\r\n")
        return "\r\n" if returns * 2 > self.text.count("\n") else "\n"

    def replaced(self, replacements: Iterable[tuple[int, int, str]]) -> bytes:
        """Encode the text with some of its spans replaced.

        Args:
            replacements: Begin, end and new text of spans that do not overlap, in order.

        Raises:
            InputError: A new text has characters that the file's encoding does not have.
            ValueError: Spans overlap: the file would come out damaged.
        """
        pieces, done = [], 0
        for start, end, new in replacements:
            if start < done:
                raise ValueError(f"The span from {start} to {end} of {self.name} begins in one that ends at {done}.")
            pieces += [self.text[done:start], new]
            done = end
        return self.mark + self._encode("".join([*pieces, self.text[done:]]))

    def can_encode(self, text: str) -> bool:
        """Return whether the file's encoding has all characters of a text."""
        try:
            text.encode(self.encoding)
        except UnicodeEncodeError:
            return False
        return True

    def _encode(self, text: str) -> bytes:
        try:
            return text.encode(self.encoding)
        except UnicodeEncodeError as error:
            raise InputError(
                f"{self.name} is in {self.encoding}, which has no {text[error.start]!r}; the translation needs it. "
                "Convert the file to UTF-8 first."
            ) from error


def decode_source(data: bytes, options: ReadOptions, *, encoding: str | None = None) -> SourceText:
    """Decode a file so that it can be encoded again, byte for byte.

    Args:
        data: The whole file.
        options: Its options; the encoding in them counts unless a byte order mark says otherwise.
        encoding: The encoding that the file itself names, instead of that of the options.

    Raises:
        InputError: It is no text in that encoding.
    """
    mark, name = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", ""))
    name = name or check_encoding(encoding or options.encoding)
    if name in ("utf-16", "utf-32"):
        name += "-le"
    text = decode_text(data[len(mark) :], encoding=name, where=options.name, keep_mark=True)
    if mark + text.encode(name) != data:
        raise InputError(f"{options.name} is not plain {name}: it would not come back as it was. Convert it to UTF-8.")
    return SourceText(text, name, mark, options.name)
