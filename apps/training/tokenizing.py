"""Rows of a large file tokenized by several processes, in the order of the file."""

from __future__ import annotations

import heapq
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import numpy as np

from nlpkit.core.errors import NlpkitError
from nlpkit.core.train.data.store import TokenRow

if TYPE_CHECKING:
    from multiprocessing.context import ForkProcess

BLOCK_LINES = 2048
"""Lines that one process takes at a time."""

WORTH_FORKING = 8 * 2**20
"""Bytes of a file from which on several processes are worth their start."""

Part = tuple[int, int]
"""Which of how many processes."""

Rows = Callable[[Part], Iterable[tuple[int, TokenRow]]]
"""Yields the rows of one process's blocks, each with its line, counted from 1."""


def in_part(line: int, part: Part) -> bool:
    """Tell whether a line, counted from 1, lies in a block of this process."""
    return (line - 1) // BLOCK_LINES % part[1] == part[0]


def can_fork() -> bool:
    """Tell whether processes that share what is loaded can be started here."""
    return sys.platform == "linux" and not multiprocessing.current_process().daemon


def tokenize_in_parallel(rows: Rows, n_processes: int) -> Iterator[TokenRow]:
    """Yield all rows, tokenized by several processes, in the order of their lines.

    Args:
        rows: What each process does; runs in a fork of this one.
        n_processes: How many.

    Yields:
        The rows.

    Raises:
        NlpkitError: What a process raised, for the earliest line.
    """
    context = multiprocessing.get_context("fork")
    started: list[tuple[ForkProcess, Connection]] = []
    try:
        for index in range(n_processes):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(rows, (index, n_processes), sender), daemon=True)
            process.start()
            # Only the worker may hold this end: else its death would go unnoticed.
            sender.close()
            started.append((process, receiver))
        streams = (_received(receiver) for _, receiver in started)
        for _, block in heapq.merge(*streams, key=lambda item: item[0]):
            if isinstance(block, NlpkitError):
                raise block
            yield from block
    finally:
        for process, receiver in started:
            receiver.close()
            process.terminate()
            process.join()


_Packed = tuple[bytes, list[int], list[int], list[str]]


def _work(rows: Rows, part: Part, sender: Connection) -> None:
    line = 0
    try:
        for number, block in groupby(rows(part), key=lambda item: (item[0] - 1) // BLOCK_LINES):
            line = number
            sender.send((number, _pack([row for _, row in block])))
        sender.send(None)
    except NlpkitError as error:
        sender.send((line, error))
        sender.send(None)
    except BrokenPipeError:
        return


def _pack(rows: list[TokenRow]) -> _Packed:
    ids = np.concatenate([np.asarray(row.token_ids, np.int32) for row in rows])
    return (
        ids.tobytes(),
        [len(row.token_ids) for row in rows],
        [row.prompt_length for row in rows],
        [row.where for row in rows],
    )


def _received(receiver: Connection) -> Iterator[tuple[int, list[TokenRow] | NlpkitError]]:
    while True:
        try:
            message = receiver.recv()
        except EOFError as error:
            raise RuntimeError("a process that tokenizes rows died") from error
        if message is None:
            return
        number, block = message
        if isinstance(block, NlpkitError):
            yield number, block
            continue
        data, lengths, prompts, wheres = block
        ids = np.frombuffer(data, np.int32)
        ends = np.cumsum(lengths)
        rows = zip(ends - lengths, ends, prompts, wheres, strict=True)
        yield number, [TokenRow(ids[start:end].tolist(), prompt, where) for start, end, prompt, where in rows]
