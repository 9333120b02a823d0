"""The commands of the tasks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nlpkit.apps.cli.constraint_options import ConstraintOptions
from nlpkit.apps.cli.options import DecodeOptions, InputOptions, ModelOptions, OutputOptions
from nlpkit.apps.cli.translators.tool_options import ToolOptions
from nlpkit.core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from nlpkit.apps.tasks.task import Task

Text = Annotated[str | None, typer.Argument(help="The text; or give -f PATH, or a pipe.", show_default=False)]


def translate(
    model: ModelOptions,
    decode: DecodeOptions,
    source: InputOptions,
    sink: OutputOptions,
    tools: ToolOptions,
    text: Text = None,
    to: Annotated[
        str | None, typer.Option("--to", "-t", metavar="LANG", help="Language to translate to: de or German.")
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="LANG", help="Language of the text; auto detects it.")
    ] = None,
    glossary: Annotated[
        str | None, typer.Option(metavar="PATH", help="TSV, CSV or TBX: terms and their translations.")
    ] = None,
    n_best: Annotated[int | None, typer.Option(min=1, help="Give the N best translations.")] = None,
    suffix: Annotated[
        str | None, typer.Option(metavar=".de", help="Put this into the names of translated documents.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="NAME", help="Translate this column of a table in place. Repeatable."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Of documents, ask about all sentences again.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 if a sentence is not to be trusted.")] = False,
) -> int:
    """Translate text and documents."""
    if text is None and ((tools.given and source.file) or _has_documents(source, sink, suffix, column)):
        return _translate_documents(
            *(model, decode, source, sink, tools, to, from_, glossary, n_best),
            suffix=suffix,
            columns=tuple(column or ()),
            fresh=fresh,
            strict=strict,
        )
    if suffix is not None or column or fresh or tools.given:
        given = ["--suffix"] * (suffix is not None) + ["--column"] * bool(column) + ["--fresh"] * fresh + tools.given
        raise ConfigError(f"{given[0]} is for documents. Name one with -f PATH.")
    if to is None and source.format in ("auto", "text", "lines") and not _has_rows(source):
        raise ConfigError("The language to translate to is missing. Name it with --to, such as --to de.")
    return _run_task(
        "translation",
        text,
        model=model,
        decode=decode,
        source=source,
        sink=sink,
        fixed={
            "target_lang": to,
            "source_lang": from_,
            "glossary": None if glossary is None else _read_glossary(glossary, from_, to),
        },
        flags={"target_lang": "--to", "source_lang": "--from", "glossary": "--glossary", "n": "--n-best"},
        defaults={"source_lang": "auto"},
        overrides={"n": n_best},
        strict=strict,
    )


def summarize(
    model: ModelOptions,
    decode: DecodeOptions,
    source: InputOptions,
    sink: OutputOptions,
    text: Text = None,
    length: Annotated[
        Literal["short", "medium", "long"] | None, typer.Option(help="How long the summary should be.")
    ] = None,
    max_words: Annotated[int | None, typer.Option(min=1, help="Most words of the summary.")] = None,
    sentences: Annotated[int | None, typer.Option(min=1, help="Most sentences of the summary.")] = None,
    mode: Annotated[
        Literal["auto", "abstractive", "extractive"] | None,
        typer.Option(
            help="Of the text's own sentences, or in the model's words; auto has a tuned model write single sentences."
        ),
    ] = None,
    bullets: Annotated[bool, typer.Option("--bullets", help="Sentences of the text, one a line.")] = False,
    cite: Annotated[bool, typer.Option("--cite", help="Sentences of the text, each with its line there.")] = False,
) -> int:
    """Summarize text."""
    layout = ["bullets"] * bullets + ["cited"] * cite
    if layout and mode == "abstractive":
        raise ConfigError("--bullets and --cite lay out sentences of the text: leave --mode abstractive out.")
    if length is not None and sentences is not None:
        raise ConfigError(f"--length {length} and --sentences {sentences} both set the length: give one of the two.")
    if sentences is not None and mode == "abstractive":
        raise ConfigError("--sentences is kept by extracts: leave --mode abstractive out, or give --length.")
    if length is not None and max_words is not None:
        raise ConfigError(f"--length {length} and --max-words {max_words} both set the length: give one of the two.")
    return _run_task(
        "summarization",
        text,
        model=model,
        decode=decode,
        source=source,
        sink=sink,
        documents=True,
        fixed={
            "length": length,
            "max_words": max_words,
            "sentences": sentences,
            "mode": mode,
            "layout": layout or None,
        },
        flags={
            "layout": "--bullets" if bullets else "--cite",
            "length": "--length",
            "max_words": "--max-words",
            "sentences": "--sentences",
            "mode": "--mode",
        },
        defaults={"mode": "auto"},
    )


def qa(
    model: ModelOptions,
    decode: DecodeOptions,
    source: InputOptions,
    sink: OutputOptions,
    question: Annotated[str | None, typer.Argument(help="The question.", show_default=False)] = None,
    context: Annotated[
        list[str] | None,
        typer.Option(
            "--context", "-c", metavar="PATH", help="Text or folder that holds the answer; - is a pipe. Repeatable."
        ),
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="Answers to show, from all the files together; a folder's is one.")
    ] = None,
    passages: Annotated[int | None, typer.Option(min=1, help="Passages to ask in many files; 8 by default.")] = None,
    interactive: Annotated[bool, typer.Option("--interactive", help="Ask one question after the other.")] = False,
) -> int:
    """Answer a question about a text, or about all texts of a folder."""
    import dataclasses

    from nlpkit.apps.translating.trees import is_many

    if question is not None and not question.strip():
        raise ConfigError('The question is empty. Ask it in quotes: nlpkit qa "Who ...?" --context PATH.')
    paths = [*(context or []), *(source.file or [])]
    if interactive or top is not None or passages is not None or any(map(is_many, paths)):
        from nlpkit.apps.cli.documents.questions import FilesQuestion

        if not paths:
            raise ConfigError("There is nothing to ask about. Name a file or a folder with --context PATH.")
        if question is None and not interactive:
            raise ConfigError('The question is missing. Ask it in quotes: nlpkit qa "Who ...?" --context PATH.')
        if source.columns or source.values:
            raise ConfigError("--map and --set are for rows; a question to files takes them as texts.")
        return FilesQuestion(
            question=question,
            paths=paths,
            top=top or 1,
            passages=passages,
            interactive=interactive,
            model=model,
            decode=decode,
            source=source,
            sink=sink,
        ).run()
    if context:
        source = dataclasses.replace(source, file=paths)
    if question is None and source.format in ("auto", "text", "lines") and not _has_rows(source):
        raise ConfigError('The question is missing. Ask it in quotes: nlpkit qa "Who ...?" --context PATH.')
    return _run_task(
        "qa",
        None,
        model=model,
        decode=decode,
        source=source,
        sink=sink,
        documents=True,
        fixed={"question": question},
        flags={"question": "the question"},
        what="context",
        ways="as a file with --context PATH, or through a pipe",
    )


def write(
    model: ModelOptions,
    decode: DecodeOptions,
    source: InputOptions,
    sink: OutputOptions,
    prompt: Annotated[str | None, typer.Argument(help="What to write about.", show_default=False)] = None,
    form: Annotated[
        str | None,
        typer.Option(help="free, story, poem, haiku, limerick, quatrain, couplets, sonnet, acrostic or dialogue."),
    ] = None,
    keywords: Annotated[
        list[str] | None, typer.Option("--keyword", metavar="WORD", help="Use this word. Repeatable.")
    ] = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="Write N versions.")] = None,
) -> int:
    """Write a story, a poem and the like."""
    return _run_task(
        "writing",
        prompt,
        model=model,
        decode=decode,
        source=source,
        sink=sink,
        fixed={"form": form, "keywords": keywords or None},
        flags={"form": "--form", "keywords": "--keyword"},
        overrides={"n": n},
        what="prompt",
        optional=bool(keywords),
    )


def classify(
    model: ModelOptions,
    decode: DecodeOptions,
    source: InputOptions,
    sink: OutputOptions,
    text: Text = None,
    labels: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="Labels to choose from; those that were learned by default.")
    ] = None,
) -> int:
    """Tell which of some labels fits a text."""
    return _run_task(
        "classification",
        text,
        model=model,
        decode=decode,
        source=source,
        sink=sink,
        fixed={"labels": None if labels is None else [label.strip() for label in labels.split(",")]},
        flags={"labels": "--labels"},
    )


def sentiment(
    model: ModelOptions,
    decode: DecodeOptions,
    source: InputOptions,
    sink: OutputOptions,
    text: Text = None,
) -> int:
    """Tell whether a text speaks well or badly of its matter."""
    return _run_task("sentiment", text, model=model, decode=decode, source=source, sink=sink)


def generate(
    model: ModelOptions,
    decode: DecodeOptions,
    source: InputOptions,
    sink: OutputOptions,
    form: ConstraintOptions,
    prompt: Annotated[str | None, typer.Argument(help="The text to continue.", show_default=False)] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Put the prompt to an instruct model as a message.")] = False,
    n: Annotated[int | None, typer.Option("--n", min=1, help="Write N completions.")] = None,
    logprobs: Annotated[
        int | None, typer.Option(min=0, help="With --json: this many alternatives for each token.")
    ] = None,
) -> int:
    """Continue a prompt: the raw model, with every decoding option."""
    if logprobs is not None and not sink.as_json:
        raise ConfigError("--logprobs shows only in JSON: add --json.")
    return _run_task(
        "chat" if chat else "generation",
        prompt,
        model=model,
        decode=decode,
        source=source,
        sink=sink,
        overrides={"n": n, "logprobs": logprobs, "constraint": form.constraint()},
        what="prompt",
    )


def run(
    model: ModelOptions,
    decode: DecodeOptions,
    source: InputOptions,
    sink: OutputOptions,
    path: Annotated[str, typer.Argument(metavar="FILE", help="Python file with the task.", show_default=False)],
    text: Text = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="Give N results.")] = None,
) -> int:
    """Run a task of your own, from a Python file."""
    from nlpkit.apps.cli.task_command import TaskCommand
    from nlpkit.apps.tasks.table import run_task_file

    task = run_task_file(path)
    fixed = _read_fields(task, source.values or ())
    return TaskCommand(
        task=task,
        # Where the text is among the fields, no other is waited for.
        text=fixed.pop(task.text_field, None) if text is None else text,
        model=model,
        decode=decode,
        source=source,
        sink=sink,
        fixed=fixed,
        flags={name: f"--set {name}" for name in fixed},
        overrides={"n": n},
        what=task.text_field,
    ).run()


def _read_fields(task: Task[Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Read ``name=value``: of a list an entry each time, or a JSON list; of a mapping a JSON object.

    Args:
        task: The task whose fields they are.
        assignments: The options' values.

    Returns:
        Values by field.

    Raises:
        ConfigError: There is no such field, or its value is not of its kind.
    """
    kinds = {column.name: column.kind for column in task.fields}
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment} has no value: write NAME=VALUE.")
        if name not in kinds:
            raise ConfigError(f"The task {task.name} has no field {name!r}. {did_you_mean(name, kinds)}")
        if kinds[name] is list and not text.lstrip().startswith("["):
            values.setdefault(name, []).append(text)
            continue
        if name in values:
            raise ConfigError(f"--set {name} is given twice. Give it once.")
        values[name] = _json(text, name) if kinds[name] in (list, dict) else text
    return values


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--set {name}={text} is not JSON: {error}.") from error


def _has_rows(source: InputOptions) -> bool:
    from nlpkit.apps.data.rows import row_format
    from nlpkit.apps.documents.inputs import is_json

    return any(row_format(path) or is_json(path) for path in source.file or ()) and source.format == "auto"


def _has_documents(
    source: InputOptions, sink: OutputOptions, suffix: str | None, columns: Sequence[str] | None
) -> bool:
    """Tell whether files are documents, which come out in their own format, rather than plain text or data rows."""
    from nlpkit.apps.cli.documents.command import document_format
    from nlpkit.apps.data.columns import parse_pairs
    from nlpkit.apps.data.rows import row_format
    from nlpkit.apps.documents.files import read_head
    from nlpkit.apps.documents.inputs import INPUT_FORMATS, holds_rows, row_names
    from nlpkit.apps.documents.registry import find_format, refuse_unknown, sniff
    from nlpkit.apps.tasks.table import load_task
    from nlpkit.apps.translating.trees import is_many

    if source.format not in INPUT_FORMATS:
        return find_format("", name=source.format) is not None
    if source.format not in ("auto", "text"):
        return False
    if not source.file:
        # What comes through a pipe has no name that tells.
        return source.format == "auto" and sniff(read_head("-")) is not None
    if (
        columns
        or suffix is not None
        or (sink.output is not None and is_folder(sink.output))
        or any(map(is_many, source.file))
    ):
        return True
    if source.format == "text":
        return False
    names = row_names(load_task("translation").fields, parse_pairs(source.columns or (), "--map"))
    kinds = {
        path: "rows"
        if row_format(path) or holds_rows(path, names=names, encoding=source.encoding, max_bytes=source.max_bytes)
        else getattr(document_format(path), "name", "text")
        for path in source.file
    }
    for path, kind in kinds.items():
        if kind == "text":
            refuse_unknown(path, read_head(path))
    documents = [path for path, kind in kinds.items() if kind not in ("rows", "text")]
    if documents and (rows := [path for path, kind in kinds.items() if kind == "rows"]):
        raise ConfigError(f"{documents[0]} is a document, but {rows[0]} holds data rows. Translate them one by one.")
    return bool(documents)


def is_folder(path: str) -> bool:
    """Return whether a path names a folder: one that is there, or by the slash at its end."""
    import os

    return path.endswith(("/", os.sep)) or os.path.isdir(path)


def _translate_documents(
    model: ModelOptions,
    decode: DecodeOptions,
    source: InputOptions,
    sink: OutputOptions,
    tools: ToolOptions,
    to: str | None,
    from_: str | None,
    glossary: str | None,
    n_best: int | None,
    *,
    suffix: str | None,
    columns: tuple[str, ...],
    fresh: bool,
    strict: bool,
) -> int:
    import contextlib
    import dataclasses

    from nlpkit.apps.cli.documents.command import DocumentCommand
    from nlpkit.apps.cli.translators.tools import TranslatorTools
    from nlpkit.apps.tasks.table import load_task

    if to is None:
        raise ConfigError("The language to translate to is missing. Name it with --to, such as --to de.")
    if source.columns or source.values:
        flag = "--map" if source.columns else "--set"
        raise ConfigError(
            f"{flag} is for data rows, and {(source.file or ['the input'])[0]} is a document. Leave it out."
        )
    if n_best is not None and n_best > 1:
        raise ConfigError("--n-best gives several translations, but a document can hold one only. Leave it out.")
    if not source.file:
        source = dataclasses.replace(source, file=["-"])
    terms = {} if glossary is None else _read_glossary(glossary, from_, to)
    named = [("--glossary", glossary), ("--output", sink.output), *(("--file", path) for path in source.file or ())]
    others = [(name, path) for name, path in named if path is not None]
    with contextlib.closing(TranslatorTools.open(tools, terms, others=others)) as opened:
        return DocumentCommand(
            task=load_task("translation"),
            target=to,
            source_lang=from_ or "auto",
            glossary=terms,
            tools=opened,
            suffix=suffix,
            columns=columns,
            fresh=fresh,
            strict=strict,
            model=model,
            decode=decode,
            source=source,
            sink=sink,
        ).run()


def _read_glossary(path: str, from_: str | None, to: str | None) -> dict[str, str]:
    from nlpkit.apps.documents.glossary import read_glossary
    from nlpkit.apps.text.languages import parse_language

    source = None if from_ is None or from_.strip().lower() == "auto" else parse_language(from_)
    return read_glossary(path, source_lang=source, target_lang=None if to is None else parse_language(to))


def _run_task(task: str, text: str | None, **parts: Any) -> int:
    from nlpkit.apps.cli.task_command import TaskCommand
    from nlpkit.apps.tasks.table import load_task

    loaded = load_task(task)
    given = _read_fields(loaded, parts["source"].values or ())
    return TaskCommand(task=loaded, text=text, given=given, **parts).run()
