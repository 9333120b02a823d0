"""Questions to folders and files: one answer for all of them, with the place where it stands."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nlpkit.apps.cli.loading import load_shown
from nlpkit.apps.cli.options import DecodeOptions, InputOptions, ModelOptions, OutputOptions
from nlpkit.apps.cli.output import Writer, note
from nlpkit.apps.cli.progress import ProgressBar
from nlpkit.core.errors import ConfigError

if TYPE_CHECKING:
    from nlpkit.apps.asking.answers import Found, FoundAnswer
    from nlpkit.apps.pipeline.result import TaskResult

SHOWN = 240
"""Characters of a passage that is shown."""
SKIPPED_NAMED = 3
"""Files that could not be read of which the reason is told."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilesQuestion:
    """What to ask, of what.

    Attributes:
        question: The question; None where they are asked one after the other.
        paths: Files, folders and patterns.
        top: Most answers to show.
        passages: Passages to ask; None is the usual number.
        interactive: Whether more questions are read from the terminal.
        model: The model.
        decode: How it decodes.
        source: How files are read.
        sink: Where answers go.
    """

    question: str | None
    paths: Sequence[str]
    top: int
    passages: int | None
    interactive: bool
    model: ModelOptions
    decode: DecodeOptions
    source: InputOptions
    sink: OutputOptions

    def run(self) -> int:
        """Answer.

        Returns:
            The exit code.

        Raises:
            NlpkitError: Something cannot be used.
        """
        from nlpkit.apps.asking.answers import PASSAGES_ASKED, ask_collection
        from nlpkit.apps.asking.collection import Collection
        from nlpkit.apps.models.adapters import AdapterChooser
        from nlpkit.apps.pipeline.pool import ModelPool
        from nlpkit.apps.tasks.table import load_task

        overrides = self.decode.overrides()
        if overrides.get("n", 1) != 1:
            raise ConfigError("--n asks one passage for several completions. Use --top for several answers.")
        if self.sink.stats:
            raise ConfigError("--stats counts inputs, which questions to files have none of. Leave it out.")
        spec = self.model.spec()
        chooser = AdapterChooser(spec.name, spec.adapter)
        with ProgressBar("reading", enabled=not self.sink.quiet) as bar:
            collection = Collection.read(
                self.paths,
                encoding=self.source.encoding,
                input_format=self.source.format,
                max_bytes=self.source.max_bytes,
                keep_going=self.source.keep_going,
                progress=bar,
            )
        self._tell_skipped(collection.skipped)
        quiet = self.sink.quiet
        pool = ModelPool(lambda adapter, loaded: load_shown(spec, adapter, quiet=quiet, share_with=loaded, lean=True))
        task = load_task("qa")

        def ask(rows: Sequence[dict[str, Any]]) -> list[TaskResult]:
            chosen = [(row, chooser.choose(task, row)) for row in rows]
            return list(
                pool.run(
                    task,
                    chosen,
                    overrides=overrides,
                    on_overflow=self.decode.on_overflow,
                    batch_tokens=self.decode.batch_tokens,
                )
            )

        with Writer(self.sink.output, as_json=self.sink.as_json) as writer:
            for question in self._questions():
                found = ask_collection(ask, question, collection, passages=self.passages or PASSAGES_ASKED)
                self._write(writer, question, found)
        return 3 if collection.skipped and self.source.keep_going else 0

    def _questions(self) -> Iterator[str]:
        if self.question is not None:
            yield self.question
        while self.interactive:
            try:
                text = _read_line()
            except (EOFError, KeyboardInterrupt):
                if sys.stdin is not None and sys.stdin.isatty():
                    sys.stderr.write("\n")
                return
            if text.strip():
                yield text.strip()

    def _tell_skipped(self, skipped: Sequence[str]) -> None:
        for why in skipped[:SKIPPED_NAMED]:
            note(f"left out: {why}", quiet=self.sink.quiet)
        if len(skipped) > SKIPPED_NAMED:
            note(f"left out: {len(skipped) - SKIPPED_NAMED} more files", quiet=self.sink.quiet)

    def _write(self, writer: Writer, question: str, found: Found) -> None:
        answers = found.answers[: self.top]
        if self.sink.as_json:
            for rank, answer in enumerate(answers, start=1):
                writer.write({"question": question, "rank": rank, **_record(answer)})
            if not answers:
                passages = [{"input": name, "place": place, "text": one.text} for one, name, place in found.passages]
                writer.write({"question": question, "prediction": "", "answerable": False, "passages": passages})
            return
        if not answers:
            writer.write("")
            note("no answer in the passages that are about it", quiet=self.sink.quiet)
            for passage, name, place in found.passages[:1]:
                text = " ".join(passage.text.split())
                text = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
                note(f"the nearest passage, {_at(name, place)}: {text}", quiet=self.sink.quiet)
            return
        if self.top == 1:
            writer.write(answers[0].text)
            note(f"{_at(answers[0].name, _place(answers[0]))}: {answers[0].evidence}", quiet=self.sink.quiet)
            return
        writer.write("\n".join(f"{one.text} ({_at(one.name, _place(one))})" for one in answers))


def _read_line() -> str:
    """Read a question; where a person types it, behind a sign that is no part of what is written.

    Raises:
        EOFError: There are no more.
    """
    if sys.stdin is None:
        raise EOFError
    if sys.stdin.isatty() and sys.stdout.isatty():
        return input("? ")
    if sys.stdin.isatty():
        sys.stderr.write("? ")
        sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def _place(answer: FoundAnswer) -> str:
    return f"line {answer.line}" if answer.line else answer.place


def _at(name: str, place: str) -> str:
    return f"{name}, {place}" if place else name


def _record(answer: FoundAnswer) -> dict[str, Any]:
    """Return an answer as one JSON object."""
    result = answer.result
    return {
        "prediction": answer.text,
        "answerable": True,
        "input": answer.name,
        "start": answer.start,
        "end": answer.end,
        **({"line": answer.line} if answer.line else {"place": answer.place} if answer.place else {}),
        "evidence": answer.evidence,
        "score": answer.score,
        "passage": answer.passage,
        "model": result.model,
        "adapter": result.adapter,
        "warnings": list(result.warnings),
    }
