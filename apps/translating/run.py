"""One document through one model: bytes in, bytes out, and what a person should look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nlpkit.apps.documents.document import Document, ReadOptions
from nlpkit.apps.documents.files import HEAD
from nlpkit.apps.documents.formats.various.pdf import read_only
from nlpkit.apps.documents.registry import FormatEntry, find_format, read_document, write_document
from nlpkit.apps.documents.tools.kept_terms import with_kept_terms, without_kept_terms
from nlpkit.apps.documents.translation.attempts import FAILED, Answer
from nlpkit.apps.documents.translation.translate import DocumentTranslation, Known, Translate, translate_segments
from nlpkit.apps.models.adapters import AdapterChooser, ModelChoice, NotLearnedError
from nlpkit.apps.pipeline.pool import ModelPool
from nlpkit.apps.pipeline.result import TaskResult
from nlpkit.apps.tasks.rows import Prepared, prepare_row
from nlpkit.apps.tasks.task import Task
from nlpkit.apps.text.language_detection import detect_language, sure_language
from nlpkit.apps.text.languages import language_of_tag, parse_language, same_language
from nlpkit.core.errors import InputError, NlpkitError

SURE_LANGUAGE = 0.9
"""Confidence from which the language of a whole document counts as if it were given."""

SAMPLE = 20_000
"""Characters of a document by which its language is told."""


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How sentences are asked about.

    Attributes:
        task: The translation task.
        pool: The models.
        chooser: Chooses among them.
        target_lang: Code of the language wanted.
        glossary: Terms and how to translate them.
        overrides: Decoding options.
        batch_tokens: As `ModelPool.run`.
        progress: Told of sentences done, and of all.
    """

    task: Task[Any]
    pool: ModelPool
    chooser: AdapterChooser
    target_lang: str
    glossary: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    batch_tokens: int | None = None
    progress: Callable[[int, int], None] | None = None

    def translator(self, source_lang: str) -> Translate:
        """Return what translates texts of one language.

        Args:
            source_lang: Its code, or ``auto``.
        """

        def translate(texts: Sequence[str]) -> Iterator[Answer]:
            rows: list[tuple[Prepared[Any], ModelChoice]] = []
            refused: dict[int, NlpkitError] = {}
            for index, text in enumerate(texts):
                row = {"source": text, "target_lang": self.target_lang, "source_lang": source_lang}
                if self.glossary:
                    row["glossary"] = self.glossary  # type: ignore[assignment]
                try:
                    prepared = prepare_row(self.task, row, where=repr(text[:40]))
                    rows.append((prepared, self.chooser.choose(self.task, prepared.example)))
                except NotLearnedError as error:
                    # A sentence in a language of its own must not keep the others back.
                    refused[index] = error
            results = self.pool.run(
                self.task,
                rows,
                overrides=self.overrides,
                batch_tokens=self.batch_tokens,
                keep_going=True,
                progress=self.progress,
            )
            return (
                Answer("", 0.0, (FAILED,), refused[index]) if index in refused else answer_of(next(results))
                for index in range(len(texts))
            )

        return translate


def answer_of(result: TaskResult) -> Answer:
    """Return what a result of the translation task says of one sentence."""
    if result.error is not None:
        return Answer("", 0.0, (FAILED,))
    fields = result.fields
    reasons = dict.fromkeys(reason for one in fields.get("flagged", ()) for reason in one["reasons"])
    return Answer(result.text, float(fields.get("confidence", 1.0)), tuple(reasons))


def document_language(document: Document, given: str, target: str) -> str:
    """Return the language that a document's sentences are in: a code, or ``auto`` where that is not certain.

    Args:
        document: The document.
        given: What the user said: a code or name, or ``auto``.
        target: Code of the language wanted.

    Raises:
        ConfigError: The language is unknown.
    """
    if given.strip().lower() != "auto":
        return parse_language(given)
    said = language_of_tag(document.source_lang)
    if said is not None and not same_language(said, target):
        return said
    text, used = [], 0
    for segment in document.segments:
        text.append(segment.text)
        used += len(segment.text)
        if used > SAMPLE:
            break
    sample = "\n".join(text)
    sure = sure_language(sample)
    detected, confidence = detect_language(sample)
    language = sure or (detected if confidence >= SURE_LANGUAGE else None)
    return "auto" if language is None or same_language(language, target) else language


@dataclass(frozen=True)
class DocumentRun:
    """What came of a document.

    Attributes:
        data: The translated file.
        document: The document as it was read.
        translation: Its translation.
    """

    data: bytes
    document: Document
    translation: DocumentTranslation


def run_document(
    data: bytes,
    entry: FormatEntry,
    options: ReadOptions,
    translator: Callable[[Document], Translate],
    *,
    known: Callable[[Document], Known | None] = lambda document: None,
    kept_terms: Sequence[str] = (),
) -> DocumentRun:
    """Translate one file.

    Args:
        data: The file.
        entry: Its format.
        options: How to read and write it.
        translator: Returns what translates the sentences of a document.
        known: Returns translations of a document's sentences that need not be asked for.
        kept_terms: Terms that stay as they are.

    Raises:
        InputError: The file cannot be read in its format.
    """
    if entry.read_only:
        raise read_only(entry.title, options)
    document = read_document(data, entry, options)
    document = with_kept_terms(document, kept_terms)
    translation = translate_segments(document, translator(document), known=known(document))
    results = without_kept_terms(translation.results)
    return DocumentRun(write_document(document, results, entry, options), document, translation)


def format_of(name: str, head: bytes, wanted: str = "auto") -> FormatEntry:
    """Return the format of a file by its name or its beginning, or else plain text.

    Args:
        name: The file's name.
        head: Its first bytes.
        wanted: The format that the user named, or ``auto``.

    Raises:
        ConfigError: There is no format `wanted`.
        InputError: The file is known to hold nothing for people.
    """
    entry = find_format(name, head, name=wanted) or find_format("", name="text")
    if entry is None:
        raise InputError(f"{name} is in no format that is known.")
    return entry


def translate_bytes(
    data: bytes,
    asking: Asking,
    *,
    name: str,
    source_lang: str = "auto",
    input_format: str = "auto",
    encoding: str = "utf-8",
) -> DocumentRun:
    """Translate the content of a file in its own format.

    Args:
        data: The content.
        asking: How sentences are asked about.
        name: The file's name, by which its format is known, and which errors tell.
        source_lang: Code or name of the file's language, or ``auto``.
        input_format: Name of the file's format, or ``auto`` to go by its name and content.
        encoding: Encoding of the file, where its format does not say.

    Raises:
        NlpkitError: It cannot be read in its format, or the languages or options cannot be used.
    """
    target = asking.target_lang
    return run_document(
        data,
        format_of(name, data[:HEAD], input_format),
        ReadOptions(name=name, encoding=encoding, target_lang=target, source_lang=source_lang),
        lambda document: asking.translator(document_language(document, source_lang, target)),
    )
