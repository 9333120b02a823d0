"""From task rows and plain text to what the core trains on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nlpkit.apps.data.columns import check_columns, mapped
from nlpkit.apps.data.rows import LocatedRow, read_rows, row_format
from nlpkit.apps.documents.files import check_text, decode_text, display_name, open_input
from nlpkit.apps.tasks.encoder import EVERY, PromptEncoder, prepare_at, short_name
from nlpkit.apps.tasks.rows import check_row
from nlpkit.apps.tasks.table import file_sha256, load_task
from nlpkit.apps.tasks.task import Field, Task
from nlpkit.apps.tasks.task import Row as TaskRow
from nlpkit.apps.training.recipe import TEXT, DataSpec
from nlpkit.apps.training.tokenizing import WORTH_FORKING, Part, can_fork, in_part, tokenize_in_parallel
from nlpkit.core.errors import ConfigError, InputError
from nlpkit.core.files.hashing import hash_value
from nlpkit.core.train.config import LongPolicy
from nlpkit.core.train.data.prompt_trees import SharedPrefixRows
from nlpkit.core.train.data.store import RowSource, TextWindows, TokenRow, TokenStore, build_store

_BLOCK = 1 << 20
"""Bytes of plain text that are tokenized at once."""

WORTH_SHARING = 0.1
"""Share of the slots that must be saved for rows with a common beginning to be learned together."""

_TEXT_FIELDS = (Field("text", help="text to learn"),)


def read_examples(spec: DataSpec, task: Task[Any] | None) -> Iterator[tuple[str, TaskRow]]:
    """Read and check the rows of one source.

    Args:
        spec: The source.
        task: Its task; None for language modelling.

    Yields:
        Where each row came from, and the row.

    Raises:
        InputError: A row cannot be used; file and line are named.
        ConfigError: The task has no such column as the source takes from others, or gives a value.
    """
    for names, flag in ((spec.columns, "--map"), (spec.values, "--set")):
        check_columns(names, _columns(task), spec.task, flag)
    for count, row in enumerate(read_rows(spec.path, fields=_columns(task))):
        if spec.limit is not None and count >= spec.limit:
            return
        if spec.takes(count):
            yield row.where, _checked_row(spec, task, row)


def _columns(task: Task[Any] | None) -> Sequence[Field]:
    return _TEXT_FIELDS if task is None else task.fields


def _checked_row(spec: DataSpec, task: Task[Any] | None, row: LocatedRow) -> TaskRow:
    own = row.values
    if spec.columns:
        own = mapped(own, row.where, fields=_columns(task), columns=spec.columns)
    values = {**spec.fields, **own, **spec.values}
    if task is None:
        text = values.get("text")
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{row.where}: a row to learn plain text from needs a 'text' that is not empty.")
    else:
        check_row(task, values, where=row.where)
    return values


def _workers(spec: DataSpec) -> int:
    """Return how many processes tokenize a source: as many as torch has threads, where the file is large."""
    whole = spec.limit is None and spec.folds is None and spec.path != "-"
    if not whole or not can_fork() or Path(spec.path).stat().st_size < WORTH_FORKING:
        return 1
    return torch.get_num_threads()


def read_blocks(path: str) -> Iterator[str]:
    """Read a plain text file in blocks that end at line ends, whatever its size."""
    name = display_name(path)
    with open_input(path) as stream:
        kept = b""
        while data := stream.read(_BLOCK):
            cut = data.rfind(b"\n") + 1
            block, kept = kept + data[:cut], data[cut:] if cut else kept + data
            if cut:
                yield check_text(decode_text(block, where=name), where=name)
        if kept:
            yield check_text(decode_text(kept, where=name), where=name)


def find_task(name: str) -> Task[Any] | None:
    """Return a task by name, or None for plain text."""
    return None if name == TEXT else load_task(name)


def what_is_taught(spec: DataSpec) -> tuple[set[str], list[dict[str, str]]]:
    """Return what the rows of a source teach with short prompts.

    Returns:
        The names of the short prompts, and the values of options that were learned, a mapping each.
    """
    task = find_task(spec.task)
    names: set[str] = set()
    options: set[tuple[tuple[str, str], ...]] = set()
    if task is None or spec.path == "-":
        return names, []
    for where, row in read_examples(spec, task):
        example = prepare_at(task, row, where)
        prompt = task.prompt(example)
        if prompt.short is not None:
            names.add(short_name(task, prompt))
        options.add(tuple(sorted(task.teaches(example).items())))
    return names, [dict(one) for one in sorted(options) if one]


def has_short_prompts(spec: DataSpec, task: Task[Any]) -> bool:
    """Tell whether any row of a source has a short prompt."""
    if not Path(spec.path).is_file():
        # What is wrong with the path is said where the data are read.
        return True
    rows = read_examples(spec, task)
    return any(task.prompt(prepare_at(task, row, where)).short is not None for where, row in rows)


def training_texts(specs: tuple[DataSpec, ...], *, short: bool = False) -> Iterator[str]:
    """Yield all text that a tokenizer should learn from, prompts and targets.

    Args:
        specs: The data.
        short: Whether the model is asked with short prompts.
    """
    for spec in specs:
        task = find_task(spec.task)
        if task is None and row_format(spec.path) is None:
            yield from read_blocks(spec.path)
            continue
        for where, example in read_examples(spec, task):
            if task is None:
                yield str(example["text"])
                continue
            prepared = prepare_at(task, example, where)
            prompt, target = task.prompt(prepared), task.target(prepared)
            answer = "" if target is None else target.text
            if short and prompt.short is not None:
                yield from (prompt.short, f" {answer}")
                continue
            yield from (message.content for message in prompt.messages)
            yield answer


@dataclass(frozen=True)
class ExampleSource:
    """One source, tokenized.

    Attributes:
        spec: Where it came from.
        rows: Its rows.
        packed: What is packed: the rows, those with a common beginning together.
        store: The store behind them.
        name: What it is called in notes.
    """

    spec: DataSpec
    rows: TokenStore | TextWindows
    packed: RowSource
    store: TokenStore
    name: str

    @property
    def key(self) -> str:
        """What it was made from."""
        return self.store.key

    def describe(self, seq_len: int) -> str:
        """Say in a sentence or two what a user should know about it."""
        if isinstance(self.rows, TextWindows):
            return f"{self.store.stats.tokens:,} tokens of plain text, in {self.rows.n_rows:,} windows"
        text = self.store.stats.describe(seq_len)
        if self.saved:
            text += f"; rows that begin alike are learned together, which saves {self.saved:.0%} of the slots"
        return text

    @property
    def saved(self) -> float:
        """Share of the slots that are saved by learning rows with a common beginning together."""
        return self.packed.saved if isinstance(self.packed, SharedPrefixRows) else 0.0


def _lesson(encoder: PromptEncoder, task: Task[Any] | None, row: TaskRow, where: str) -> TokenRow:
    if task is None:
        return TokenRow([*encoder.text(str(row["text"])), encoder.end_id(chat=False)], 0, where)
    ids, prompt_length = encoder.lesson(task, row, where)
    return TokenRow(ids, prompt_length, where)


def source_key(spec: DataSpec, encoder: PromptEncoder, *, seq_len: int, policy: LongPolicy, sha256: str) -> str:
    """Return a hash of everything that decides the tokens of a source."""
    task = find_task(spec.task)
    facts: dict[str, Any] = {
        "sha256": sha256,
        "task": spec.task,
        "version": None if task is None else task.version,
        **({} if task is None or file_sha256(task) is None else {"task_file": file_sha256(task)}),
        "limit": spec.limit,
        "fields": dict(spec.fields),
        **({"values": dict(spec.values)} if spec.values else {}),
        **({"columns": dict(spec.columns)} if spec.columns else {}),
        "folds": [spec.folds, spec.fold, spec.held_out],
        "tokenizer": encoder.tokenizer.fingerprint,
        "brief": encoder.learned is EVERY,
        **({"learned": sorted(encoder.learned)} if isinstance(encoder.learned, frozenset) and encoder.learned else {}),
        "chat": None if encoder.chat is None else encoder.chat.fingerprint,
        "seq_len": seq_len,
        "policy": policy,
    }
    if task is None and row_format(spec.path) is None:
        facts["end"] = [encoder.end_id(chat=False)] if encoder.tokenizer.eos_ids else []
    if encoder.tokenizer.encode("a") != encoder.tokenizer.encode("a", at_start=False):
        facts["targets"] = "continue prompts"
    return hash_value(facts)


def open_source(
    spec: DataSpec,
    encoder: PromptEncoder,
    *,
    folder: Path,
    seq_len: int,
    policy: LongPolicy,
    vocab_size: int,
    seed: int,
    sha256: str,
    shift: bool = True,
    join: bool = True,
    report: Callable[[int], None] | None = None,
) -> ExampleSource:
    """Tokenize one source into a folder, or take it from there if it is the same.

    Args:
        spec: The source.
        encoder: Makes the tokens.
        folder: Where tokenized data go.
        seq_len: Slots that a row may take.
        policy: What to do with longer rows.
        vocab_size: Ids of the model.
        seed: Decides where plain text is cut.
        sha256: Hash of the file.
        shift: Whether plain text is cut anew in each epoch.
        join: Whether rows with a common beginning may be learned together.
        report: Called with the number of rows read so far.

    Returns:
        The tokenized source.

    Raises:
        NlpkitError: A row is unusable; file and line are named.
    """
    task = find_task(spec.task)
    plain = task is None and row_format(spec.path) is None
    if plain and spec.limit is not None:
        raise ConfigError(f"{spec.path} is plain text, which has no rows to limit. Leave the limit out.")
    if plain and spec.folds is not None:
        raise ConfigError(f"{spec.path} is plain text, which has no rows to put into folds. Use rows with a text.")

    def rows() -> Iterator[TokenRow]:
        if plain:
            empty = True
            for count, block in enumerate(read_blocks(spec.path), 1):
                # Blocks end at line ends: all but the first go on where the one before ended.
                ids = encoder.tokenizer.encode(block) if count == 1 else encoder.tokenizer.encode(block, at_start=False)
                if ids:
                    empty = False
                    yield TokenRow(ids, 0, f"{display_name(spec.path)}: block {count}")
            if not empty and encoder.tokenizer.eos_ids:
                yield TokenRow([encoder.end_id(chat=False)], 0, f"{display_name(spec.path)}: its end")
            return
        if workers > 1:
            yield from tokenize_in_parallel(part, workers)
            return
        for where, example in read_examples(spec, task):
            yield _lesson(encoder, task, example, where)

    def part(which: Part) -> Iterator[tuple[int, TokenRow]]:
        for row in read_rows(spec.path, fields=_columns(task), takes=functools.partial(in_part, part=which)):
            yield row.line, _lesson(encoder, task, _checked_row(spec, task, row), row.where)

    workers = _workers(spec) if row_format(spec.path) == "jsonl" else 1
    key = source_key(spec, encoder, seq_len=seq_len, policy=policy, sha256=sha256)
    store = build_store(
        folder / f"{Path(spec.path).name.split('.')[0] or 'stdin'}-{key[:12]}",
        rows(),
        key=key,
        vocab_size=vocab_size,
        seq_len=None if plain else seq_len,
        policy=policy,
        report=report,
    )
    name = display_name(spec.path)
    if plain:
        windows = TextWindows(store.all_tokens, seq_len, seed=seed, shift=shift)
        return ExampleSource(spec, windows, windows, store, name)
    trees = SharedPrefixRows(store, seq_len)
    return ExampleSource(spec, store, trees if join and trees.saved >= WORTH_SHARING else store, store, name)
