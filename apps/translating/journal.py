"""Answers that are kept in a file: a run that was killed goes on, and the next one asks only about what is new."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nlpkit.apps.documents.translation.attempts import Answer
from nlpkit.apps.documents.translation.translate import Translate
from nlpkit.core.files.write import unwritable

NAME = ".nlpkit-translations.jsonl"
"""Name of the file in a folder of results."""

MAX_BYTES = 512 * 2**20
"""Largest file that is read."""


def run_key(facts: Mapping[str, Any]) -> str:
    """Return a short hash of all that an answer depends on besides its text: model, languages, glossary, options."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


class Journal:
    """Answers by text, each appended to a file as soon as it is there.

    A line that was cut off by a kill is left out; it is asked again.

    Args:
        path: The file; None to keep nothing.
        key: What `run_key` makes of a run: answers of others are left alone.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self.path = path
        self.key = key
        self.hits = 0
        self._answers = dict(_read(path, key)) if path is not None else {}

    def keeping(self, translate: Translate) -> Translate:
        """Return a translator that asks only what is not known."""

        def ask(texts: Sequence[str]) -> Iterator[Answer]:
            new = [text for text in texts if text not in self._answers]
            self.hits += len(texts) - len(new)
            self._keep(new, translate(new) if new else ())
            return iter([self._answers[text] for text in texts])

        return ask

    def remove(self) -> None:
        """Remove the file."""
        if self.path is not None:
            with contextlib.suppress(OSError):
                self.path.unlink()

    def _keep(self, texts: Sequence[str], answers: Iterable[Answer]) -> None:
        if not texts:
            return
        if self.path is None:
            self._answers.update(zip(texts, answers, strict=True))
            return
        with unwritable(f"{self.path} cannot be written"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                # A line that a kill cut off must not swallow the next one.
                if file.tell() and not _ends_whole(self.path):
                    file.write(b"\n")
                for text, answer in zip(texts, answers, strict=True):
                    self._answers[text] = answer
                    file.write(_line(self.key, text, answer))
                    file.flush()


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _line(key: str, text: str, answer: Answer) -> bytes:
    record = {
        "run": key,
        "source": text,
        "translation": answer.text,
        "confidence": answer.confidence,
        "reasons": list(answer.reasons),
    }
    return (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def _read(path: Path, key: str) -> Iterator[tuple[str, Answer]]:
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
                            str(record["source"]),
                            Answer(str(record["translation"]), float(record["confidence"]), reasons),
                        )
    except OSError:
        return
