"""Reads pairs of text files, line by line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nlpkit.apps.data.rows import Located
from nlpkit.apps.documents.files import decode_text, open_input
from nlpkit.core.errors import InputError


def read_lines(path: str) -> list[str]:
    r"""Read a plain text file with a segment a line, as translation toolkits do: only ``\\n`` ends a line.

    Raises:
        InputError: It cannot be read or is not UTF-8.
    """
    with open_input(path) as stream:
        return [
            decode_text(line, where=f"{path}:{number}").rstrip("\n").removesuffix("\r")
            for number, line in enumerate(stream, 1)
        ]


def read_parallel(path: str, references: Sequence[str], *, source: str, reference: str) -> Iterator[Located]:
    """Read parallel text files, such as WMT's: line i of each belongs together.

    Args:
        path: Sources.
        references: Files of references; none for sources alone.
        source: Column of the sources.
        reference: Column of the only reference; several become ``references``.

    Yields:
        The rows.

    Raises:
        InputError: The files have different numbers of lines, or a source is blank.
    """
    lines = read_lines(path)
    streams = [read_lines(other) for other in references]
    for other, stream in zip(references, streams, strict=True):
        if len(stream) != len(lines):
            raise InputError(
                f"{path} has {len(lines)} lines and {other} has {len(stream)}. Parallel files need the same number: "
                "line i of one belongs to line i of the other."
            )
    for number, line in enumerate(lines):
        row: dict[str, Any] = {source: line}
        if len(streams) == 1:
            row[reference] = streams[0][number]
        elif streams:
            row["references"] = [stream[number] for stream in streams]
        yield row, f"{path}:{number + 1}"
