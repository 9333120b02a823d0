"""Whole files: which kinds can be translated, and where translated ones wait to be fetched."""

from __future__ import annotations

import mimetypes
import re
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import PurePosixPath

from nlpkit.apps.documents.files import HEAD
from nlpkit.apps.documents.registry import FORMATS, find_format
from nlpkit.apps.serve.errors import ApiError

KEPT_SECONDS = 600.0
"""How long a translated file waits."""
KEPT_BYTES = 64 * 2**20
"""How much waits at most; the oldest goes first."""


def file_suffixes() -> list[str]:
    """Return the ends of the names of files that can be translated, sorted."""
    return sorted({suffix for entry in FORMATS if not entry.read_only for suffix in entry.suffixes})


def check_kind(name: str, data: bytes) -> None:
    """Refuse files that are in no format of documents.

    Args:
        name: The file's name.
        data: Its content.

    Raises:
        ApiError: It is in none.
        InputError: It is known to hold nothing for people.
    """
    if find_format(name, data[:HEAD]) is None:
        end = PurePosixPath(name).suffix.lower()
        raise ApiError(
            f"Files of this kind are not translated: {end or 'a name without an end'}. Send one of "
            f"{', '.join(file_suffixes())}",
            param="file",
        )


def media_type(name: str) -> str:
    """Return what a file's content is called over HTTP."""
    found = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return f"{found}; charset=utf-8" if found == "text/plain" else found


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
        # Both stand in an address and in a header.
        suffix = re.sub(r"[^\w.]+", "", path.suffix.lower(), flags=re.ASCII)[:20]
        kept = f"{uuid.uuid4()}.{stem}_{language}{suffix}"
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
