"""Answers that are kept in a file: a run that was killed goes on, and the next one asks only about what is new."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from nlpkit.apps.documents.translation.attempts import FAILED, Answer
from nlpkit.apps.documents.translation.translate import Translate
from nlpkit.core.files.write import unwritable

NAME = ".nlpkit-translations.jsonl"
"""Name of the file in a folder of results."""

MAX_BYTES = 512 * 2**20
"""Largest file that is read."""


def run_key(facts: Mapping[str, Any]) -> str:
    """Return a short hash of all that an answer depends on besides its text and language: model, glossary, options."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def state_of(path: str | Path) -> list[tuple[str, int, int]]:
    """Return what tells that a model's file or folder, which keeps its name, was trained or fetched anew.

    Args:
        path: The file or folder.

    Returns:
        Name, size in bytes and time of change in nanoseconds of the file, or of each file in the folder; nothing where
        there is none, as for a name of the catalogue.
    """
    place = Path(path).expanduser()
    try:
        files = sorted(place.iterdir()) if place.is_dir() else [place]
        stats = [(file.name, file.stat()) for file in files if file.is_file()]
    except (OSError, ValueError):
        return []
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


class Journal:
    """Answers by text, each appended to a file as soon as it is there.

    A line that was cut off by a kill is left out; it is asked again. So is what failed.

    Args:
        path: The file; None to keep nothing.
        key: What `run_key` makes of a run: answers of others are left alone.
        fresh: Whether the answers that are there are left alone, too; new ones are kept in their place.
    """

    def __init__(self, path: Path | None, key: str, *, fresh: bool = False) -> None:
        self.path = path
        self.key = key
        self.hits = 0
        self._answers = dict(_read(path, key)) if path is not None and not fresh else {}

    def keeping(self, translate: Translate, language: str = "") -> Translate:
        """Return a translator that asks only what is not known.

        Args:
            translate: Answers what is new.
            language: Code of the language that it takes texts to be in, or ``auto``.
        """

        def ask(texts: Sequence[str]) -> Iterator[Answer]:
            new = [text for text in dict.fromkeys(texts) if (language, text) not in self._answers]
            self.hits += len(texts) - len(new)
            failed = self._keep(language, new, translate(new) if new else ())
            return iter([failed.get(text) or self._answers[language, text] for text in texts])

        return ask

    def remove(self) -> None:
        """Remove the file."""
        if self.path is not None:
            with contextlib.suppress(OSError):
                self.path.unlink()

    def _keep(self, language: str, texts: Sequence[str], answers: Iterable[Answer]) -> dict[str, Answer]:
        """Keep answers as they come, and return those that are none."""
        failed: dict[str, Answer] = {}
        if not texts:
            return failed
        with contextlib.ExitStack() as stack:
            file = None if self.path is None else self._opened(stack, self.path)
            for text, answer in zip(texts, answers, strict=True):
                if FAILED in answer.reasons:
                    failed[text] = answer
                    continue
                self._answers[language, text] = answer
                if file is not None:
                    file.write(_line(self.key, language, text, answer))
                    file.flush()
        return failed

    def _opened(self, stack: contextlib.ExitStack, path: Path) -> BinaryIO:
        stack.enter_context(unwritable(f"{path} cannot be written"))
        path.parent.mkdir(parents=True, exist_ok=True)
        file = stack.enter_context(path.open("ab"))
        # A line that a kill cut off must not swallow the next one.
        if file.tell() and not _ends_whole(path):
            file.write(b"\n")
        return file


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _line(key: str, language: str, text: str, answer: Answer) -> bytes:
    record = {
        "run": key,
        "language": language,
        "source": text,
        "translation": answer.text,
        "confidence": answer.confidence,
        "reasons": list(answer.reasons),
    }
    return (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def _read(path: Path, key: str) -> Iterator[tuple[tuple[str, str], Answer]]:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                return
            for line in file:
                with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                    record = json.loads(line)
                    if record["run"] == key:
                        reasons = tuple(str(reason) for reason in record["reasons"])
                        yield (
                            (str(record["language"]), str(record["source"])),
                            Answer(str(record["translation"]), float(record["confidence"]), reasons),
                        )
    except OSError:
        return
