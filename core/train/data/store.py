"""Tokenized data on disk, memory-mapped: of any size, with random access, so that any order can be resumed exactly."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from nlpkit.core.errors import InputError, TokenizerError
from nlpkit.core.files.write import unwritable, whole_folder
from nlpkit.core.train.config import LongPolicy

_INDEX = np.dtype([("start", "<u8"), ("length", "<u4"), ("prompt", "<u4")])
_VERSION = 1


@dataclass(frozen=True)
class TokenRow:
    """One row to learn from.

    Attributes:
        token_ids: All its tokens, the end-of-sequence token included.
        prompt_length: How many of the first tokens carry no loss; 0 for plain text.
        where: Where it came from, for errors.
    """

    token_ids: list[int]
    prompt_length: int = 0
    where: str = ""


@dataclass(kw_only=True)
class DataStats:
    """What became of the rows of one source.

    Attributes:
        rows: Rows read.
        kept: Rows to learn from, pieces of split ones included.
        dropped: Rows left out because they do not fit.
        truncated: Rows whose prompt was cut.
        split: Rows cut into pieces.
        tokens: Tokens kept.
        targets: Tokens that carry loss.
        longest: Most tokens of a row as read.
    """

    rows: int = 0
    kept: int = 0
    dropped: int = 0
    truncated: int = 0
    split: int = 0
    tokens: int = 0
    targets: int = 0
    longest: int = 0
    examples: dict[str, str] = field(default_factory=dict)

    def describe(self, seq_len: int) -> str:
        """Say in a sentence or two what a user should know."""
        text = f"{self.rows:,} rows, {self.tokens:,} tokens, {self.targets:,} of them targets"
        notes = [
            f"{count:,} rows ({100 * count / max(1, self.rows):.1f}%) did not fit {seq_len} tokens and were {verb}"
            f" (the first: {self.examples[kind]})"
            for kind, verb, count in (
                ("dropped", "dropped", self.dropped),
                ("truncated", "cut at the start of the prompt", self.truncated),
                ("split", "split into pieces", self.split),
            )
            if count
        ]
        return "; ".join([text, *notes])


NO_LABEL = -1
"""Label of a slot without loss."""


@dataclass(frozen=True)
class Layout:
    """What goes into a model for one row, or for several that share their beginning.

    Attributes:
        inputs: Tokens, shape ``(slots,)``.
        labels: The token after each, or `NO_LABEL`; same shape.
        positions: Position of each in its row; same shape.
        branches: 0 for what all rows share, else the row's number from 1: branches do not see each other; same shape.
    """

    inputs: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    branches: npt.NDArray[np.int32]


def single_layout(tokens: npt.NDArray[np.int64], prompt: int) -> Layout:
    """Lay out one row.

    Args:
        tokens: All its tokens, shape ``(n,)``.
        prompt: How many of the first carry no loss.

    Returns:
        ``n - 1`` slots: the last token is only a label.
    """
    size = len(tokens) - 1
    labels = np.full(size, NO_LABEL, np.int64)
    first = max(0, prompt - 1)
    labels[first:] = tokens[first + 1 :]
    return Layout(tokens[:-1], labels, np.arange(size), np.zeros(size, np.int32))


class RowSource(Protocol):
    """Rows with random access."""

    @property
    def n_rows(self) -> int:
        """Rows of one epoch."""
        ...

    @property
    def layout_key(self) -> str:
        """A name for what the rows are: training goes on exactly only over rows of the same name."""
        ...

    def slots(self, index: int) -> int:
        """Return the slots that a row takes: one less than its tokens, since the last is only a label."""
        ...

    def targets(self, index: int) -> int:
        """Return the number of labels that carry loss."""
        ...

    def layout(self, index: int, epoch: int) -> Layout:
        """Return what goes into the model for a row."""
        ...


class TokenStore:
    """A folder of tokenized rows, memory-mapped.

    Attributes:
        path: The folder.
        stats: What became of the rows.
        key: What the folder was made from.
    """

    def __init__(self, path: Path) -> None:
        """Open a store that `build_store` made.

        Raises:
            InputError: It is damaged.
        """
        self.path = path
        try:
            manifest = json.loads((path / "manifest.json").read_text("utf-8"))
            self.key: str = manifest["key"]
            self.stats = DataStats(**manifest["stats"])
            dtype = np.dtype(manifest["dtype"])
            count = manifest["stored"]
            self._index = np.memmap(path / "index.bin", _INDEX, "r") if count else np.zeros(0, _INDEX)
            self._tokens = np.memmap(path / "tokens.bin", dtype, "r") if count else np.zeros(0, dtype)
            ends = int(self._index["start"][-1]) + int(self._index["length"][-1]) if count else 0
            if len(self._index) != count or len(self._tokens) != ends:
                raise ValueError("its sizes do not agree")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"The tokenized data in {path} are damaged ({error}). Delete the folder.") from error

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self._index)

    @property
    def layout_key(self) -> str:
        """Name the rows: one by one, as they were stored."""
        return f"rows {self.n_rows}"

    def facts(self, index: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], ...]:
        """Return where rows start among all tokens, their lengths and their prompts' lengths, ``(rows,)`` each."""
        found = self._index[index]
        return tuple(found[name].astype(np.int64) for name in ("start", "length", "prompt"))

    def slots(self, index: int) -> int:
        """Return the slots that a row takes."""
        return int(self._index["length"][index]) - 1

    def targets(self, index: int) -> int:
        """Return the number of labels that carry loss."""
        return int(self._index["length"][index]) - max(1, int(self._index["prompt"][index]))

    def row(self, index: int, epoch: int) -> tuple[npt.NDArray[np.int64], int]:
        """Return a row's tokens and the length of its prompt."""
        start, length, prompt = (int(value) for value in self._index[index])
        return self._tokens[start : start + length].astype(np.int64), prompt

    def layout(self, index: int, epoch: int) -> Layout:
        """Lay out a row."""
        return single_layout(*self.row(index, epoch))

    @property
    def all_tokens(self) -> npt.NDArray[Any]:
        """All tokens as one stream, shape ``(n,)``, memory-mapped."""
        return self._tokens


class TextWindows:
    """One long text as rows of equal length, cut anew in every epoch at another offset."""

    def __init__(self, tokens: npt.NDArray[Any], seq_len: int, *, seed: int, shift: bool = True) -> None:
        """Cut a text.

        Args:
            tokens: The text, shape ``(n,)``.
            seq_len: Slots of a row.
            seed: Decides the offsets.
            shift: Whether to move the cuts from epoch to epoch.

        Raises:
            InputError: The text has fewer than two tokens.
        """
        if len(tokens) < 2:
            raise InputError(f"The text has {len(tokens)} tokens; there is nothing to predict in fewer than 2.")
        self._tokens = tokens
        self._width = min(seq_len, len(tokens) - 1)
        self._seed = seed
        self._shift = shift
        room = len(tokens) - 1 - (self._width - 1 if shift else 0)
        self.n_rows = max(1, room // self._width)
        self._offsets = len(tokens) - 1 - self.n_rows * self._width + 1

    @property
    def layout_key(self) -> str:
        """Name the windows."""
        return f"windows {self.n_rows} of {self._width}"

    def slots(self, index: int) -> int:
        """Return the slots of any row."""
        return self._width

    def targets(self, index: int) -> int:
        """Return the labels of any row."""
        return self._width

    def row(self, index: int, epoch: int) -> tuple[npt.NDArray[np.int64], int]:
        """Return a row's tokens; it has no prompt."""
        offset = 0
        if self._shift and self._offsets > 1:
            offset = int(np.random.default_rng((self._seed, 7, epoch)).integers(self._offsets))
        start = offset + index * self._width
        return self._tokens[start : start + self._width + 1].astype(np.int64), 0

    def layout(self, index: int, epoch: int) -> Layout:
        """Lay out a row."""
        return single_layout(*self.row(index, epoch))


def fit_row(row: TokenRow, seq_len: int | None, policy: LongPolicy, stats: DataStats) -> Iterator[TokenRow]:
    """Apply the policy for long rows to one row.

    Args:
        row: The row.
        seq_len: Slots that a row may take; None for a piece of a longer text, which is taken as it is.
        policy: What to do if it takes more.
        stats: Counts what was done.

    Yields:
        What is left to learn from.

    Raises:
        InputError: The policy is ``error``, or the row has nothing to learn.
    """
    ids, prompt = row.token_ids, row.prompt_length
    stats.rows += 1
    stats.longest = max(stats.longest, len(ids))
    if seq_len is None:
        yield row
        return
    if len(ids) < 2 or prompt >= len(ids):
        raise InputError(f"{row.where}: the row has no token to learn: {len(ids)} tokens, {prompt} of them prompt.")
    if len(ids) - 1 <= seq_len:
        yield row
        return
    if policy == "error":
        raise InputError(
            f"{row.where}: the row has {len(ids)} tokens, of which {seq_len + 1} fit. Raise the sequence length, or "
            "choose another policy for long rows: drop, truncate or split."
        )
    if policy in ("auto", "split") and prompt == 0:
        stats.split += 1
        stats.examples.setdefault("split", row.where)
        # Pieces share one token: the last label of one is the first input of the next.
        for start in range(0, len(ids) - 1, seq_len):
            yield TokenRow(ids[start : start + seq_len + 1], 0, row.where)
        return
    cut = len(ids) - 1 - seq_len
    if policy == "truncate" and prompt > cut:
        stats.truncated += 1
        stats.examples.setdefault("truncated", row.where)
        yield TokenRow(ids[cut:], prompt - cut, row.where)
        return
    stats.dropped += 1
    stats.examples.setdefault("dropped", row.where)


def build_store(
    path: Path,
    rows: Iterable[TokenRow],
    *,
    key: str,
    vocab_size: int,
    seq_len: int | None,
    policy: LongPolicy = "auto",
    report: Callable[[int], None] | None = None,
) -> TokenStore:
    """Write rows to a folder, one at a time, or open the folder if it is there already.

    Args:
        path: The folder; written aside and renamed.
        rows: The rows; only read where the folder has to be made.
        key: Names what the rows are made from; a folder with another key is made anew.
        vocab_size: Ids of the model.
        seq_len: Slots that a row may take; None sets no bound (for text that is read in windows).
        policy: What to do with longer rows.
        report: Called with the number of rows read so far.

    Returns:
        The opened store.

    Raises:
        InputError: A row is unusable under the policy, or none is left.
        TokenizerError: A row has an id that the model does not know.
        OutputError: The folder cannot be written.
    """
    if (path / "manifest.json").exists():
        store = TokenStore(path)
        if store.key == key:
            return store
    with unwritable(f"The tokenized data cannot be written to {path}"), whole_folder(path) as aside:
        manifest = _write(aside, rows, vocab_size=vocab_size, seq_len=seq_len, policy=policy, report=report)
        (aside / "manifest.json").write_text(json.dumps({"key": key, **manifest}), "utf-8")
    return TokenStore(path)


def _write(
    folder: Path,
    rows: Iterable[TokenRow],
    *,
    vocab_size: int,
    seq_len: int | None,
    policy: LongPolicy,
    report: Callable[[int], None] | None,
) -> Mapping[str, Any]:
    dtype = np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
    stats = DataStats()
    stored = start = 0
    with (folder / "tokens.bin").open("wb") as tokens, (folder / "index.bin").open("wb") as index:
        for row in rows:
            for piece in fit_row(row, seq_len, policy, stats):
                _put(piece, tokens, index, start, dtype, vocab_size)
                start += len(piece.token_ids)
                stored += 1
                stats.targets += len(piece.token_ids) - max(int(seq_len is not None), piece.prompt_length)
            if report is not None:
                report(stats.rows)
    stats.kept, stats.tokens = stored, start
    if not stored:
        reason = "there are no rows" if not stats.rows else f"none of the {stats.rows:,} rows fits {seq_len} tokens"
        raise InputError(f"There is nothing to learn from: {reason}.")
    return {"version": _VERSION, "dtype": dtype.str, "stored": stored, "stats": asdict(stats)}


def _put(row: TokenRow, tokens: IO[bytes], index: IO[bytes], start: int, dtype: np.dtype[Any], vocab_size: int) -> None:
    ids = np.asarray(row.token_ids, np.int64)
    if int(ids.max()) >= vocab_size or int(ids.min()) < 0:
        raise TokenizerError(
            f"{row.where}: the tokenizer gives id {int(ids.max())}, the model's embedding has {vocab_size} rows: they "
            "do not belong together."
        )
    tokens.write(ids.astype(dtype).tobytes())
    index.write(np.array([(start, len(ids), row.prompt_length)], _INDEX).tobytes())
