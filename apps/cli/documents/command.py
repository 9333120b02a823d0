"""What `nlpkit translate` does with documents: files and folders in, files out, one result a file as it is ready."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlpkit.apps.cli.loading import load_shown
from nlpkit.apps.cli.options import DecodeOptions, InputOptions, ModelOptions, OutputOptions, named_as_flags
from nlpkit.apps.cli.output import Writer, note
from nlpkit.apps.cli.progress import ProgressBar
from nlpkit.apps.cli.translators.tools import LIKE, TranslatorTools
from nlpkit.apps.documents.document import Document, ReadOptions
from nlpkit.apps.documents.files import display_name, read_bytes, read_head
from nlpkit.apps.documents.formats.various.pdf import read_only
from nlpkit.apps.documents.registry import FormatEntry, find_format
from nlpkit.apps.documents.translation.attempts import FAILED, LOST
from nlpkit.apps.documents.translation.translate import Flag, Known, Translate
from nlpkit.apps.models.adapters import AdapterChooser
from nlpkit.apps.pipeline.plan import build_decoding
from nlpkit.apps.pipeline.pool import ModelPool
from nlpkit.apps.tasks.task import Task
from nlpkit.apps.text.languages import parse_language
from nlpkit.apps.text.translation.confidence import REASONS
from nlpkit.apps.translating.journal import NAME, Journal, run_key, state_of
from nlpkit.apps.translating.run import Asking, DocumentRun, document_language, run_document
from nlpkit.apps.translating.trees import Destination, FoundFile, find_files
from nlpkit.core.errors import ConfigError, InputError, NlpkitError
from nlpkit.core.files.write import atomic_write, unwritable

MAX_FLAGS = 10
"""Most sentences of a file that are quoted on stderr; ``--json`` has them all."""

SHOWN_LENGTH = 60
"""Most characters of a quoted sentence."""


@dataclass(frozen=True, kw_only=True)
class DocumentCommand:
    """One run over documents.

    Attributes:
        task: The translation task.
        target: Language wanted, as the user named it.
        source_lang: Language of the documents, as the user named it, or ``auto``.
        glossary: Terms and how to translate them.
        suffix: What is put before the last suffix of a result's name.
        columns: Columns of tables that are translated in place.
        fresh: Whether answers of earlier runs are left alone.
        strict: Whether doubtful sentences make the exit code 3.
        tools: Memory, review and what else translators use.
        model: Shared options.
        decode: Shared options.
        source: Shared options.
        sink: Shared options.
    """

    task: Task[Any]
    target: str
    source_lang: str = "auto"
    glossary: Mapping[str, str] = field(default_factory=dict)
    suffix: str | None = None
    columns: tuple[str, ...] = ()
    fresh: bool = False
    strict: bool = False
    tools: TranslatorTools = field(default_factory=TranslatorTools)
    model: ModelOptions
    decode: DecodeOptions
    source: InputOptions
    sink: OutputOptions

    def run(self) -> int:
        """Do it all.

        Returns:
            The exit code: 0; 3 if files failed under ``--keep-going``, if sentences had to stay as they are since they
            would have lost a code, or if some are doubtful under ``--strict``.

        Raises:
            NlpkitError: Something cannot be used.
        """
        target = parse_language(self.target)
        overrides = self.decode.overrides()
        with named_as_flags():
            build_decoding(self.task, overrides)
        files = find_files(self.source.file or (), output=self.sink.output, suffix=self.suffix)
        destination = Destination.choose(files, self.sink.output, self.suffix)
        chosen = list(self._formats(files))
        places = destination.places([file for file, _ in chosen], files)
        if self.sink.as_json and None in places:
            raise ConfigError("--json says on standard output what was done: name the file to write with -o PATH.")
        spec = self.model.spec()
        chooser = AdapterChooser(spec.name, spec.adapter)
        pool = ModelPool(
            lambda adapter, loaded: load_shown(spec, adapter, quiet=self.sink.quiet, share_with=loaded, lean=True)
        )
        tally = _Tally(quiet=self.sink.quiet)
        usual = chooser.usual(self.task)
        facts = {
            "model": spec.name,
            "adapter": str(usual or spec.adapter),
            "weights": [state_of(spec.name), state_of(usual.path) if usual is not None else []],
            "dtype": spec.dtype,
            "task": [self.task.name, self.task.version],
            "target": target,
            "glossary": dict(self.glossary),
            "options": overrides,
        }
        with ProgressBar(self.task.name, enabled=not self.sink.quiet) as bar, self._records() as records:
            asking = Asking(
                task=self.task,
                pool=pool,
                chooser=chooser,
                target_lang=target,
                glossary=self.glossary,
                overrides=overrides,
                batch_tokens=self.decode.batch_tokens,
                progress=bar,
            )
            journals: dict[Path | None, Journal] = {}
            for (file, entry), place in zip(chosen, places, strict=True):
                home = self._journal_path(destination, place)
                if home not in journals:
                    journals = {home: Journal(home, run_key(facts), fresh=self.fresh)}
                began = time.perf_counter()
                try:
                    done = self._translate(file, entry, asking, journals[home])
                except NlpkitError as error:
                    if not self.source.keep_going:
                        raise
                    tally.failed += 1
                    note(str(error))
                    continue
                with bar.paused():
                    _write(done.data, place)
                    self.tools.add(display_name(file.path), done)
                    tally.add(file, place, done, time.perf_counter() - began)
                    if records is not None:
                        records.write(_record(file, place, entry, done))
                if home is not None and not destination.folder:
                    journals[home].remove()
        tally.report()
        for text in self.tools.finish():
            note(text, quiet=self.sink.quiet)
        return 3 if tally.failed or tally.kept or (self.strict and tally.doubtful) else 0

    def _formats(self, files: Sequence[FoundFile]) -> Iterable[tuple[FoundFile, FormatEntry]]:
        """Yield the files that can be worked on, with their formats; what was found and cannot be is said."""
        left: Counter[str] = Counter()
        for file in files:
            try:
                entry = document_format(file.path, self.source.format, columns=bool(self.columns))
            except InputError:
                if file.named:
                    raise
                entry = None
            if entry is not None and entry.read_only:
                if file.named:
                    raise read_only(entry.title, ReadOptions(name=display_name(file.path)))
                left[os.path.splitext(file.path)[1]] += 1
            elif entry is not None:
                yield file, entry
            elif file.named:
                raise InputError(
                    f"{display_name(file.path)} is in no format that is known. Say --input-format text to have all of "
                    "it translated as plain text."
                )
            else:
                left[os.path.splitext(file.path)[1] or display_name(file.path)] += 1
        if left:
            kinds = ", ".join(f"{count} {kind}" for kind, count in left.most_common(8))
            note(f"left out, as they are in no format that is known: {kinds}", quiet=self.sink.quiet)

    def _translate(self, file: FoundFile, entry: FormatEntry, asking: Asking, journal: Journal) -> DocumentRun:
        name = display_name(file.path)
        options = ReadOptions(
            name=name,
            encoding=self.source.encoding,
            target_lang=asking.target_lang,
            source_lang=self.source_lang,
            columns=self.columns,
        )

        def translator(document: Document) -> Translate:
            language = document_language(document, self.source_lang, asking.target_lang)
            return journal.keeping(asking.translator(language), language)

        def known(document: Document) -> Known | None:
            language = document_language(document, self.source_lang, asking.target_lang)
            return self.tools.known(name, language, asking.target_lang)

        data = read_bytes(file.path, max_bytes=self.source.max_bytes)
        return run_document(data, entry, options, translator, known=known, kept_terms=self.tools.kept_terms)

    def _journal_path(self, destination: Destination, place: Path | None) -> Path | None:
        if place is None:
            return None
        if destination.folder and destination.output is not None:
            return Path(destination.output, NAME)
        return place.with_name(f".{place.name}{NAME}")

    def _records(self) -> Any:
        import contextlib

        return Writer(None, as_json=True) if self.sink.as_json else contextlib.nullcontext()


def document_format(path: str, name: str = "auto", *, columns: bool = False) -> FormatEntry | None:
    """Return the format of a file, by its name or else by its beginning.

    Args:
        path: Its path; standard input is looked at without taking anything from it.
        name: The format that the user named, or ``auto``.
        columns: Whether tables are documents, of which columns are translated.

    Raises:
        ConfigError: There is no such format.
        InputError: The file is known to hold nothing for people.
    """
    return find_format(path, read_head(path), name=name, columns=columns)


def _write(data: bytes, place: Path | None) -> None:
    if place is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    with unwritable(f"{display_name(str(place))} cannot be written"), atomic_write(place) as file:
        file.write(data)


def _record(file: FoundFile, place: Path | None, entry: FormatEntry, done: DocumentRun) -> dict[str, Any]:
    translation = done.translation
    return {
        "input": display_name(file.path),
        "output": None if place is None else display_name(str(place)),
        "format": entry.name,
        "segments": len(done.document.segments),
        "sentences": translation.sentences,
        "kept": translation.kept,
        "flagged": [
            {
                "line": flag.line,
                "place": flag.place,
                "key": flag.key,
                "source": flag.source,
                "translation": flag.translation,
                "reasons": list(flag.reasons),
                "lost": list(flag.lost),
                "confidence": flag.confidence,
            }
            for flag in translation.flags
        ],
    }


@dataclass
class _Tally:
    """Counts what happened, and says it."""

    quiet: bool
    files: int = 0
    failed: int = 0
    kept: int = 0
    doubtful: int = 0

    def add(self, file: FoundFile, place: Path | None, done: DocumentRun, seconds: float) -> None:
        """Say what became of one file."""
        translation = done.translation
        self.files += 1
        self.kept += translation.kept
        self.doubtful += len(translation.flags)
        name = display_name(file.path)
        where = "" if place is None else f" -> {display_name(str(place))}"
        said = f"{name}{where}: {translation.sentences} sentences in {seconds:.1f} s"
        if translation.flags:
            said += f", {len(translation.flags)} to look at"
        note(said, quiet=self.quiet)
        for text in done.document.notes:
            note(f"{name}: {text}", quiet=self.quiet)
        # What stayed as it was comes first: the rest is at least translated.
        flags = sorted(translation.flags, key=lambda flag: not flag.lost)
        for flag in flags[:MAX_FLAGS]:
            note(_said(name, flag), quiet=self.quiet)
        if len(flags) > MAX_FLAGS:
            note(f"{name}: {len(flags) - MAX_FLAGS} more; --json has them all", quiet=self.quiet)

    def report(self) -> None:
        """Say at the end what did not work."""
        if self.failed:
            note(f"{self.failed} of {self.files + self.failed} files failed")
        if self.kept:
            note(
                f"{self.kept} sentences stayed as they were, since they lost placeholders or marks in translation, or "
                "their translation failed",
                quiet=self.quiet,
            )


def _said(name: str, flag: Flag) -> str:
    where = f"{name}:{flag.line}" if flag.line else f"{name} ({flag.place})" if flag.place else name
    if FAILED in flag.reasons:
        return f"{where}: stayed as it was, for its translation failed: “{_short(flag.source)}”"
    if flag.lost:
        lost = ", ".join(repr(code) for code in flag.lost[:4])
        return f"{where}: stayed as it was, for {lost} would have been lost: “{_short(flag.source)}”"
    reasons = "; ".join(REASONS.get(reason, _REASONS.get(reason, reason)) for reason in flag.reasons)
    return f"{where}: “{_short(flag.translation)}” ({reasons})"


_REASONS = {
    LOST: "a placeholder was lost",
    "pieces": "translated in pieces, around its placeholders and marks",
    "max_length": "longer than the file allows",
    LIKE: "from the memory, where the sentence is not quite the same",
    "reading_speed": "more than can be read in the time it is shown",
    "cue_length": "more than fits on two lines",
}


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_LENGTH else text[: SHOWN_LENGTH - 1].rstrip() + "…"
