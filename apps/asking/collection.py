"""The texts of files, folders and patterns, to ask questions to."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nlpkit.apps.asking.passages import Passage, Ranking, split_passages
from nlpkit.apps.documents.files import MAX_BYTES, display_name
from nlpkit.apps.documents.inputs import Document, read_text
from nlpkit.apps.translating.trees import find_files
from nlpkit.core.errors import InputError

MAX_CHARACTERS = 500_000_000
"""Most characters of one collection."""

_SEPARATORS = re.compile(r"[_\W]+")


@dataclass(frozen=True)
class Collection:
    """Texts, and the passages in them.

    Attributes:
        texts: One a file.
        passages: Of all of them.
        ranking: Finds those that a question is about.
        skipped: What each file that could not be read says, of those that were found in folders, or named
            where one was to keep going.
    """

    texts: tuple[Document, ...]
    passages: tuple[Passage, ...]
    ranking: Ranking
    skipped: tuple[str, ...]

    @classmethod
    def read(
        cls,
        paths: Sequence[str],
        *,
        encoding: str = "utf-8",
        input_format: str = "auto",
        max_bytes: int = MAX_BYTES,
        keep_going: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Collection:
        """Read files as the text that people see in them.

        Args:
            paths: Files, folders and patterns.
            encoding: Encoding of text files.
            input_format: Their format; ``auto`` goes by name and content.
            max_bytes: Largest file.
            keep_going: Whether files that were named themselves, too, are skipped where they cannot be read.
            progress: Is told how many files of how many were read.

        Raises:
            InputError: Nothing is found, a file that was named itself cannot be read, or it all is too large.
        """
        files = find_files(paths)
        texts: list[Document] = []
        skipped: list[str] = []
        length = 0
        for number, file in enumerate(files):
            if progress is not None:
                progress(number, len(files))
            try:
                found = read_text(file.path, input_format=input_format, encoding=encoding, max_bytes=max_bytes)
            except InputError as error:
                if file.named and not keep_going:
                    raise
                skipped.append(str(error))
                continue
            texts.append(found)
            length += len(found.text)
            if length > MAX_CHARACTERS:
                raise InputError(f"The files hold more than {MAX_CHARACTERS:,} characters. Name fewer.")
        if not texts:
            why = f" The first says: {skipped[0]}" if skipped else ""
            raise InputError(f"No file with text is found in {', '.join(map(display_name, paths))}.{why}")
        passages = [one for number, text in enumerate(texts) for one in split_passages(text.text, source=number)]
        titles = [_SEPARATORS.sub(" ", Path(text.name).stem) for text in texts]
        return cls(tuple(texts), tuple(passages), Ranking(passages, titles), tuple(skipped))

    def best(self, question: str, *, most: int) -> list[tuple[Passage, float]]:
        """Return the passages that a question is most likely about; see `Ranking.best`."""
        return self.ranking.best(question, most=most)
