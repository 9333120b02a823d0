"""What a file for people consists of: segments to translate, and the skeleton that everything else is.

A format reads bytes into a `Document` and writes them back from the document's skeleton and one result a segment. The
skeleton holds the file as it was: what is not translated comes back byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from nlpkit.core.errors import InputError

Kind = Literal["paragraph", "heading", "list_item", "cell", "cue", "message", "attribute", "title"]
"""What a segment is for readers."""

Role = Literal["alone", "open", "close"]


@dataclass(frozen=True, kw_only=True)
class Code:
    """An inline code of a format: a tag, a mark of emphasis, a link's target, a field of an office document.

    Attributes:
        literal: What stands in the file; it is copied.
        role: ``open`` and ``close`` enclose text, ``alone`` stands for itself.
        pair: Number that an opening code shares with its closing one, from 1; 0 for codes that stand alone.
        breaks: Whether the text before and the text behind are read apart, as at a line break.
        text: What it says to people, such as the words of a code span; empty for most.
    """

    literal: str
    role: Role = "alone"
    pair: int = 0
    breaks: bool = False
    text: str = ""


Part = str | Code
"""Text for people, as people read it: the format escapes it again when it writes; or a code."""


@dataclass(frozen=True)
class Wrap:
    """How a paragraph was wrapped, so that its translation can be wrapped again.

    Attributes:
        width: Most characters of a line.
        indent: What every further line begins with.
        line_end: What ends a line.
        first: Characters of the first line that stand before the segment.
    """

    width: int
    indent: str
    line_end: str
    first: int = 0


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A piece of a document that is translated for itself.

    Attributes:
        parts: Text and codes. Line ends that mean nothing are blanks.
        kind: What it is for readers.
        line: Its first line in the file, from 1; 0 where files of the format have no lines.
        offset: Where it begins in the decoded file, in characters; -1 where files of the format have no such place.
        place: Where it stands in words, such as ``page 3`` or ``word/document.xml``, where a line says nothing.
        key: Its key, identifier or context in the file.
        note: A comment for translators.
        max_length: Most characters of its translation.
        seconds: How long it is shown; 0 for what is no subtitle.
        wrap: How it was wrapped; None if it was not.
        flowing: Whether its line ends mean nothing, so that sentences run over them.
        target: The translation that the file has already, for `Document.bilingual` formats.
    """

    parts: tuple[Part, ...]
    kind: Kind = "paragraph"
    line: int = 0
    offset: int = -1
    place: str = ""
    key: str = ""
    note: str = ""
    max_length: int | None = None
    seconds: float = 0.0
    wrap: Wrap | None = None
    flowing: bool = False
    target: str = ""

    @property
    def text(self) -> str:
        """What people read of it."""
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)

    @property
    def where(self) -> str:
        """Where it stands, for people: its line, where the file has lines; else its place in words, or its key."""
        return f"line {self.line}" if self.line else self.place or self.key


@dataclass(frozen=True, kw_only=True)
class Document:
    """A file, read.

    Attributes:
        format: Name of its format.
        segments: What is to be translated, in the order of the file.
        skeleton: All that the format needs to write the file again; nobody else looks into it.
        source_lang: The language that the file says it is in, if it says so.
        bilingual: Whether the file keeps source and translation beside each other.
        notes: What a user should know about the file.
        source_text: The decoded file, in which the segments have their offsets; None where they have none.
    """

    format: str
    segments: tuple[Segment, ...]
    skeleton: Any
    source_lang: str | None = None
    bilingual: bool = False
    notes: tuple[str, ...] = ()
    source_text: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Translated:
    """What became of a segment.

    Attributes:
        parts: Text and codes: each code of the segment once.
        sure: Whether it is to be trusted; formats that can mark doubtful translations do so.
    """

    parts: tuple[Part, ...]
    sure: bool = True


Results = Sequence[Translated | None]
"""One a segment; None leaves the segment as it stands in the file."""


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What a format may have to know to read a file.

    Attributes:
        name: What the file is called in errors.
        encoding: Its encoding, where the format does not say.
        target_lang: Code of the language that it is translated into; empty if it is only read.
        source_lang: Code of its own language; empty if that is not known.
        columns: Columns of a table to translate; empty for those that hold prose.
    """

    name: str = "the file"
    encoding: str = "utf-8"
    target_lang: str = ""
    source_lang: str = ""
    columns: tuple[str, ...] = ()


class Format(Protocol):
    """A format of documents."""

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a file.

        Raises:
            InputError: It is not in this format, or broken; `broken` makes the error.
        """
        ...

    def write(self, skeleton: Any, results: Results, options: ReadOptions) -> bytes:
        """Write a file that was read.

        Args:
            skeleton: As `read` gave it.
            results: One a segment. With None for all of them, the file comes back byte for byte.
            options: As the file was read with.
        """
        ...


def joined(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Join texts that stand beside each other, and leave out empty ones.

    Args:
        parts: Text and codes.
    """
    done: list[Part] = []
    for part in parts:
        if isinstance(part, str) and done and isinstance(done[-1], str):
            done[-1] += part
        elif part != "":
            done.append(part)
    return tuple(done)


def has_words(parts: Iterable[Part]) -> bool:
    """Return whether there is a letter in the texts between codes.

    Args:
        parts: Text and codes.
    """
    return any(isinstance(part, str) and any(map(str.isalpha, part)) for part in parts)


def missing_library(what: str, library: str) -> InputError:
    """Return the error for files that need a library which is not installed.

    Args:
        what: The files, such as ``Fluent files``.
        library: The library's name.
    """
    return InputError(f'{what} need {library}, which is not installed: pip install "nlpkit[documents]".')


def broken(format_name: str, options: ReadOptions, why: str, *, line: int = 0) -> InputError:
    """Return the error for a file that cannot be read in its format.

    Args:
        format_name: What the format is called.
        options: The file's options.
        why: What is wrong, without a full stop.
        line: Where, from 1; 0 where that is not known.
    """
    where = f"{options.name}:{line}" if line else options.name
    return InputError(
        f"{where} cannot be read as {format_name}: {why}. Mend the file, name its format with --input-format, or say "
        "--input-format text to have all of it translated as plain text."
    )
