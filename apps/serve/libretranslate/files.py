"""Whole files: which kinds can be translated, and where translated ones wait to be fetched."""

from __future__ import annotations

import re
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from nlpkit.apps.documents.files import decode_text
from nlpkit.apps.serve.errors import ApiError

KEPT_SECONDS = 600.0
"""How long a translated file waits."""
KEPT_BYTES = 64 * 2**20
"""How much waits at most; the oldest goes first."""


@dataclass(frozen=True)
class FileKind:
    """A kind of file.

    Attributes:
        media: What its content is called over HTTP.
        translate: Translates a file's content; gets the file's name, the content, and what translates a text.
    """

    media: str
    translate: Callable[[str, bytes, Callable[[str], str]], bytes]


def _translate_plain(name: str, data: bytes, translate: Callable[[str], str]) -> bytes:
    text = decode_text(data, where=name, keep_mark=True, by_option=False)
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    body = text[len(mark) :]
    return (mark + (translate(body) if body.strip() else body)).encode()


FILE_KINDS: dict[str, FileKind] = {".txt": FileKind("text/plain; charset=utf-8", _translate_plain)}
"""By the end of a file's name."""


def find_kind(name: str) -> FileKind:
    """Return the kind of a file.

    Raises:
        ApiError: It is none of those that are translated.
    """
    end = PurePosixPath(name).suffix.lower()
    kind = FILE_KINDS.get(end)
    if kind is None:
        raise ApiError(
            f"Files of this kind are not translated: {end or 'a name without an end'}. Send one of "
            f"{', '.join(sorted(FILE_KINDS))}",
            param="file",
        )
    return kind


@dataclass(frozen=True)
class KeptFile:
    """A translated file.

    Attributes:
        data: Its content.
        media: What that is called over HTTP.
        until: When it is thrown away, on the clock of `time.monotonic`.
    """

    data: bytes
    media: str
    until: float


class KeptFiles:
    """Translated files that wait to be fetched, for a while. Of the event loop's thread alone."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, KeptFile] = OrderedDict()

    def keep(self, name: str, language: str, data: bytes, media: str) -> str:
        """Keep a file.

        Args:
            name: The name of the file that it is a translation of.
            language: Code of its language.
            data: Its content.
            media: What that is called over HTTP.

        Returns:
            The name under which it is fetched, which nobody can guess.
        """
        path = PurePosixPath(name.replace("\\", "/"))
        stem = re.sub(r"[^\w.-]+", "_", path.stem, flags=re.ASCII)[:80].strip("._") or "file"
        kept = f"{uuid.uuid4()}.{stem}_{language}{path.suffix.lower()}"
        self._files[kept] = KeptFile(data, media, time.monotonic() + KEPT_SECONDS)
        self._sweep()
        return kept

    def take(self, name: str) -> KeptFile:
        """Return a file.

        Raises:
            ApiError: There is none of that name, with status 404.
        """
        self._sweep()
        found = self._files.get(name)
        if found is None:
            raise ApiError("There is no such file, or it waited for too long. Translate it once more", status=404)
        return found

    def _sweep(self) -> None:
        now, total = time.monotonic(), sum(len(file.data) for file in self._files.values())
        while self._files:
            name, oldest = next(iter(self._files.items()))
            # The newest stays, however large: it is within the limit of a body.
            if oldest.until > now and (total <= KEPT_BYTES or len(self._files) == 1):
                return
            total -= len(oldest.data)
            del self._files[name]
