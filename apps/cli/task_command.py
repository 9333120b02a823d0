"""What every task command does: collect inputs, run the task, write results, say what a user should know."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nlpkit.apps.cli.loading import load_shown
from nlpkit.apps.cli.options import DecodeOptions, InputOptions, ModelOptions, OutputOptions, named_as_flags
from nlpkit.apps.cli.output import Writer, note
from nlpkit.apps.cli.progress import ProgressBar
from nlpkit.apps.data.columns import check_columns, parse_pairs
from nlpkit.apps.data.rows import row_format
from nlpkit.apps.data.write_rows import RowWriter
from nlpkit.apps.documents.files import is_file, looks_like_path
from nlpkit.apps.documents.inputs import Document, read_documents
from nlpkit.apps.models.adapters import AdapterChooser, ModelChoice
from nlpkit.apps.pipeline.plan import build_decoding
from nlpkit.apps.pipeline.pool import ModelPool
from nlpkit.apps.pipeline.result import TaskResult
from nlpkit.apps.tasks.rows import Prepared, prepare_row
from nlpkit.apps.tasks.task import Prediction, Task, value_of
from nlpkit.core.errors import ConfigError, NlpkitError

if TYPE_CHECKING:
    from nlpkit.core.language_model import LanguageModel


_Row = tuple[Prepared[Any] | NlpkitError | None, ModelChoice]
"""A prepared row (None for a blank line, or its error) and what it runs on."""


@dataclass(frozen=True, kw_only=True)
class TaskCommand:
    """One run of a task from the command line.

    Attributes:
        task: The task.
        text: The command's text argument, or None.
        fixed: Fields of every example, from the command's own options; None values count as not given.
        defaults: Fields for data rows that lack them.
        given: Fields that stand in the place of those of data rows.
        flags: For each fixed field and override the option that gave it, for errors.
        overrides: Decoding options of the command itself, such as ``n``.
        model: Shared options.
        decode: Shared options.
        source: Shared options.
        sink: Shared options.
        strict: Whether a result that is not to be trusted counts as a failed input for the exit code.
        what: What the text is called in errors.
        ways: How it can be given, for the error when it is not.
        optional: Whether the options suffice without a text.
        documents: Whether files in formats of documents are read as the text that people see in them.
    """

    task: Task[Any]
    text: str | None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    model: ModelOptions
    decode: DecodeOptions
    source: InputOptions
    sink: OutputOptions
    strict: bool = False
    what: str = "text"
    ways: str = "as an argument, as a file with -f PATH, or through a pipe"
    optional: bool = False
    documents: bool = False

    def run(self) -> int:
        """Do it all.

        Returns:
            The exit code: 0, or 3 if inputs failed under ``--keep-going`` or results are doubtful under ``--strict``.

        Raises:
            NlpkitError: Something cannot be used. All that can be checked without the model is checked first.
        """
        overrides = self._overrides()
        spec = self.model.spec()
        chooser = AdapterChooser(spec.name, spec.adapter)
        columns = parse_pairs(self.source.columns or (), "--map")
        check_columns(columns, self.task.fields, self.task.name, "--map")
        documents = read_documents(
            self.text,
            self.source.file or (),
            input_format=self.source.format,
            encoding=self.source.encoding,
            fields=self.task.fields,
            max_bytes=self.source.max_bytes,
            what=self.what,
            ways=self.ways,
            text_field=self.task.text_field,
            keep_going=self.source.keep_going,
            optional=self.optional,
            columns=columns,
            formats=self.documents,
        )
        self._remark_on_text()
        rows = self._rows(documents, chooser)
        table = self._table(documents, overrides.get("n", 1))
        with Writer(
            self.sink.output, as_json=self.sink.as_json, line_per_record=self.source.format == "lines"
        ) as writer:
            if table is not None:
                writer.write_raw(table.header())
            elif documents[0].marked and writer.to_file and not self.sink.as_json:
                writer.write_raw("\ufeff")
            began = time.perf_counter()
            pool = ModelPool(
                lambda adapter, loaded: load_shown(spec, adapter, quiet=self.sink.quiet, share_with=loaded, lean=True)
            )
            chosen = list(dict.fromkeys(choice.adapter for _, choice in rows))
            models = [pool.get(adapter) for adapter in chosen]
            tally = Tally(load_seconds=time.perf_counter() - began)
            if writer.to_terminal and len(documents) == 1 and not self.sink.as_json and overrides.get("n", 1) == 1:
                self._stream(pool, rows[0], documents[0], overrides, writer, tally)
            else:
                self._batch(pool, rows, documents, overrides, writer, tally, table)
        names = " and ".join(lm.name if lm.adapter is None else f"{lm.name}+{lm.adapter}" for lm in models)
        tally.report(names, stats=self.sink.stats, quiet=self.sink.quiet)
        if self.strict and tally.doubtful:
            which = "the result is" if tally.inputs == 1 else f"{tally.doubtful} of {tally.inputs} results are"
            note(f"{which} not to be trusted; --strict makes that exit code 3", quiet=self.sink.quiet)
        return 3 if tally.failed or (self.strict and tally.doubtful) else 0

    def _remark_on_text(self) -> None:
        if self.text is None:
            return
        if is_file(self.text):
            note(f"took {self.text!r} as the {self.what}; to read the file of that name, use -f", quiet=self.sink.quiet)
        elif looks_like_path(self.text):
            note(
                f"took {self.text!r} as the {self.what}: it looks like a file's name, but there is no such file; -f "
                "reads files",
                quiet=self.sink.quiet,
            )

    def _table(self, documents: Sequence[Document], results: int) -> RowWriter | None:
        """Return how to write rows, where the output's name promises them; None where texts or JSON are written."""
        path = self.sink.output
        kind = None if path is None else row_format(path)
        if path is None or kind is None or (kind == "jsonl" and self.sink.as_json):
            return None
        if self.sink.as_json:
            raise ConfigError(
                f"--json writes JSON Lines, but -o {path} names a table. Leave --json out, or name a .jsonl."
            )
        if path.lower().endswith(".gz"):
            raise ConfigError(f"-o {path} would have to be compressed, which is not done. Leave .gz out.")
        columns = dict.fromkeys(name for document in documents for name in self._columns(document))
        tables = [document.table for document in documents if document.table is not None]
        return RowWriter.build(kind, tables, tuple(columns), results=results, errors=self.source.keep_going)

    def _columns(self, document: Document) -> Iterable[str]:
        if document.table is not None:
            return document.table.columns
        return (self.task.text_field,) if document.values is None else document.values

    def _overrides(self) -> dict[str, Any]:
        overrides = {**self.decode.overrides(), **{k: v for k, v in self.overrides.items() if v is not None}}
        with named_as_flags({"logprobs": "--logprobs", "n": self.flags.get("n", "--n")}):
            build_decoding(self.task, overrides)
        if overrides.get("n", 1) > 1 and self.source.format == "lines" and not self.sink.as_json:
            raise ConfigError(
                f"--lines promises one line for each input, but {overrides['n']} results are asked for. Add --json."
            )
        return overrides

    def _rows(self, documents: Sequence[Document], chooser: AdapterChooser) -> list[_Row]:
        rows = [self._row(document, chooser) for document in documents]
        # What needs no model must not have one loaded for it.
        known = next((choice for _, choice in rows if choice is not None), ModelChoice(chooser.usual(self.task)))
        return [(example, choice or replace(known, note="")) for example, choice in rows]

    def _row(
        self, document: Document, chooser: AdapterChooser
    ) -> tuple[Prepared[Any] | NlpkitError | None, ModelChoice | None]:
        """Return a prepared row and what it runs on; None for a blank line; its error under ``--keep-going``."""
        if document.error is not None:
            return document.error, None
        if document.blank:
            return None, None
        try:
            prepared = prepare_row(self.task, self._merge(document), where=document.name, columns=document.values)
            return prepared, chooser.choose(self.task, prepared.example)
        except NlpkitError as error:
            if self.source.keep_going:
                return error, None
            if document.values is None or str(error).startswith(document.name):
                raise
            raise type(error)(f"{document.name}: {error}") from error

    def _merge(self, document: Document) -> dict[str, Any]:
        fixed = {name: value for name, value in self.fixed.items() if value is not None}
        if document.values is None:
            return {**self.defaults, **self.given, **fixed, self.task.text_field: document.text}
        row = {**document.values, **self.given}
        for name, value in fixed.items():
            if not self._agree(row, name, value):
                raise ConfigError(
                    f"{document.name}: the row's {name!r} is {row[name]!r}, but "
                    f"{self.flags.get(name, name)} is {value!r}. Leave one of the two out."
                )
        return {**self.defaults, **row, **fixed}

    def _agree(self, row: Mapping[str, Any], name: str, value: Any) -> bool:
        """Tell whether a row's value and an option's mean the same, as ``de`` and ``German`` do."""
        if row.get(name, value) == value:
            return True
        try:
            theirs, ours = (value_of(self.task.prepare({**row, name: one}), name) for one in (row[name], value))
            return bool(theirs == ours)
        except (NlpkitError, KeyError):
            return False

    def _stream(
        self,
        pool: ModelPool,
        row: _Row,
        document: Document,
        overrides: Mapping[str, Any],
        writer: Writer,
        tally: Tally,
    ) -> None:
        example, choice = row
        if example is None or isinstance(example, NlpkitError):
            self._batch(pool, [row], [document], overrides, writer, tally)
            return
        in_line = False
        written = False
        try:
            for piece in pool.stream(
                self.task, example, choice, overrides=overrides, on_overflow=self.decode.on_overflow
            ):
                if isinstance(piece, TaskResult):
                    if in_line or not written:
                        in_line = False
                        writer.write_raw("\n")
                    tally.add(piece, document, quiet=self.sink.quiet, many=False)
                elif piece:
                    writer.write_raw(piece)
                    written, in_line = True, not piece.endswith("\n")
        finally:
            # After Ctrl-C: the shell's prompt must not stand at the end of half a sentence.
            if in_line:
                writer.write_raw("\n")

    def _batch(
        self,
        pool: ModelPool,
        rows: Sequence[_Row],
        documents: Sequence[Document],
        overrides: Mapping[str, Any],
        writer: Writer,
        tally: Tally,
        table: RowWriter | None = None,
    ) -> None:
        many = len(documents) > 1
        with ProgressBar(self.task.name, enabled=not self.sink.quiet) as bar:
            results = pool.run(
                self.task,
                [(example, choice) for example, choice in rows if example is not None],
                overrides=overrides,
                on_overflow=self.decode.on_overflow,
                batch_tokens=self.decode.batch_tokens,
                keep_going=self.source.keep_going,
                progress=bar,
            )
            for index, (document, (example, choice)) in enumerate(zip(documents, rows, strict=True)):
                lm = pool.get(choice.adapter)
                result = _blank_result(lm) if example is None else next(results)
                # Taking the bar away costs a thread each time: only where it shares the terminal.
                shared = writer.to_terminal or result.error is not None
                with bar.paused() if shared else contextlib.nullcontext():
                    tally.add(result, document, quiet=self.sink.quiet, many=many)
                    if table is None:
                        last = index == len(documents) - 1
                        self._write(writer, result, document, index, self._logprobs(lm, result, overrides), last)
                    else:
                        writer.write_raw(self._table_row(table, result, document))

    @staticmethod
    def _logprobs(lm: LanguageModel, result: TaskResult, overrides: Mapping[str, Any]) -> dict[str, Any]:
        if overrides.get("logprobs") is None:
            return {}

        def spelled(token_id: int) -> str:
            return lm.tokenizer.token_bytes(token_id).decode("utf-8", "backslashreplace")

        return {
            "logprobs": [
                {
                    "token_ids": list(completion.token_ids),
                    "tokens": [spelled(token_id) for token_id in completion.token_ids],
                    "token_logprobs": [_finite(value) for value in completion.logprobs],
                    "top_logprobs": [
                        [
                            {"token_id": other, "token": spelled(other), "logprob": _finite(value)}
                            for other, value in step
                        ]
                        for step in completion.top_logprobs
                    ],
                }
                for completion in result.completions
            ]
        }

    def _write(
        self, writer: Writer, result: TaskResult, document: Document, index: int, more: Mapping[str, Any], last: bool
    ) -> None:
        if self.sink.as_json:
            row_id = (document.values or {}).get("id")
            place = {"input": document.name, "index": index, **({} if row_id is None else {"id": row_id})}
            record = {**result.to_dict(), **more, **place}
            if document.values is None:
                record = _placed(record, document)
                if isinstance(record.get("sentences"), list):
                    record["sentences"] = [_placed(one, document) for one in record["sentences"]]
            writer.write(record)
        elif result.error is not None and not writer.line_per_record:
            return
        else:
            texts = [other.text for other in result.alternatives] or [result.text]
            for number, text in enumerate(texts, start=1):
                # A file ends as the one that it was made of.
                end = document.ended or not (writer.to_file and last and number == len(texts))
                writer.write(text, newline=document.newline, end=end)

    def _table_row(self, table: RowWriter, result: TaskResult, document: Document) -> str:
        values = document.values
        return table.row(
            {self.task.text_field: document.text} if values is None else values,
            [other.text for other in result.alternatives] or [result.text],
            cells=document.cells,
            table=document.table,
            error=result.error,
        )


def _placed(record: Mapping[str, Any], document: Document) -> dict[str, Any]:
    """Return a record whose offsets, if it has any, count in the file, with the line or the place of the first."""
    placed = dict(record)
    for key in ("start", "end"):
        if isinstance(record.get(key), int):
            if key == "start" and document.source is not None:
                placed.update(_place_in_file(document, record[key]))
            placed[key] = document.place(record[key])
    return placed


def _place_in_file(document: Document, offset: int) -> dict[str, Any]:
    """Return the line of a character of a document, or where it stands in words."""
    place = None if document.source is None else document.source.find(offset)
    if place is None:
        return {}
    return {"line": place.line} if place.line else {"place": place.place} if place.place else {}


def _blank_result(lm: LanguageModel) -> TaskResult:
    return TaskResult(prediction=Prediction(""), model=lm.name, adapter=lm.adapter, adapter_sha256=lm.adapter_sha256)


def _finite(value: float) -> float | None:
    """Return a number that JSON has: None for minus infinity."""
    return value if math.isfinite(value) else None


MAX_NOTES = 10
"""Most different notes after a run over many inputs."""


@dataclass
class Tally:
    """Counts what happened, for ``--stats`` and the exit code.

    Attributes:
        load_seconds: Time to load the model.
    """

    load_seconds: float = 0.0
    began: float = field(default_factory=time.perf_counter)
    inputs: int = 0
    failed: int = 0
    doubtful: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    truncated: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    warned: dict[str, list[str]] = field(default_factory=dict)

    def add(self, result: TaskResult, document: Document, *, quiet: bool, many: bool) -> None:
        """Count one result and say what a user should know about it.

        Args:
            result: The result.
            document: Its input.
            quiet: Whether to say nothing.
            many: Whether there are several inputs, whose notes then wait for `report`.
        """
        self.inputs += 1
        self.input_tokens += result.used_tokens
        self.output_tokens += result.output_tokens
        self.truncated += result.truncated
        self.doubtful += bool(result.fields.get("flagged"))
        if result.chunks or result.error is not None:
            self.reasons[result.finish_reason] += 1
        notes = list(result.warnings)
        if result.error is not None:
            self.failed += 1
            # A failed input is no chatter: it is said even when notes are not wanted.
            note(f"{document.name}: {result.error.removeprefix(document.name + ': ')}")
        for text in notes:
            if many:
                self.warned.setdefault(text, []).append(document.name)
            else:
                note(text, quiet=quiet)

    def report(self, model: str, *, stats: bool, quiet: bool) -> None:
        """Say at the end how many inputs failed and, if asked, how fast it went.

        Args:
            model: Name of the model.
            stats: Whether numbers were asked for.
            quiet: Whether to leave out notes.
        """
        seconds = time.perf_counter() - self.began
        # Together and at the end: a note between any two lines of output would bury both.
        for text, names in list(self.warned.items())[:MAX_NOTES]:
            where = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
            note(f"{text} ({where})", quiet=quiet)
        if len(self.warned) > MAX_NOTES:
            note(f"{len(self.warned) - MAX_NOTES} more notes; --json has them all", quiet=quiet)
        if self.failed:
            note(f"{self.failed} of {self.inputs} inputs failed")
        if stats:
            speed = self.output_tokens / seconds if seconds > 0 else 0.0
            reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(self.reasons.items())) or "none"
            note(
                f"inputs: {self.inputs}; tokens read: {self.input_tokens}; written: {self.output_tokens} in "
                f"{seconds:.2f} s ({speed:.1f} tokens/s); finish reasons: {reasons}; truncated: "
                f"{self.truncated}; {model} loaded in {self.load_seconds:.2f} s"
            )
        elif self.truncated and self.inputs > 1:
            note(f"{self.truncated} of {self.inputs} inputs were truncated", quiet=quiet)
