"""N-gram overlap between training and test texts.

A test text that shares a long run of words with the training data may have been learnt by heart. The usual lengths are
13 (Brown et al. 2020, appendix C) and 8 words. Words are those of `unicode_tokens`: lower case, no punctuation, and
single characters in scripts written without spaces.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from nlpkit.core.errors import ConfigError, InputError
from nlpkit.eval.metrics.text import unicode_tokens

DEFAULT_ORDERS = (13, 8)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_NEVER = np.iinfo(np.int64).max

HashArray = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Hit:
    """One n-gram of a test text that the training data has too.

    Attributes:
        position: Where it starts in the test text, in tokens.
        ngram: Its tokens, joined by spaces.
        train_index: Number of the first training text that has it, from 0.
    """

    position: int
    ngram: str
    train_index: int


@dataclass(frozen=True)
class RowOverlap:
    """A test text that shares at least one n-gram with the training data.

    Attributes:
        index: Its number among the test texts, from 0.
        n_tokens: Its length.
        coverage: Share of its tokens that lie in a shared n-gram, 0-1.
        hits: The shared n-grams in order.
    """

    index: int
    n_tokens: int
    coverage: float
    hits: tuple[Hit, ...]


@dataclass(frozen=True)
class OverlapReport:
    """The overlap at one n-gram length.

    Attributes:
        n: Length of the n-grams, in tokens.
        n_test: Number of test texts.
        n_train: Number of training texts.
        n_too_short: Test texts with fewer than `n` tokens, about which nothing can be said.
        rows: The test texts that overlap, in order.
    """

    n: int
    n_test: int
    n_train: int
    n_too_short: int
    rows: tuple[RowOverlap, ...]

    @property
    def share(self) -> float:
        """Overlapping test texts over all of them, 0-1."""
        return len(self.rows) / self.n_test

    @property
    def indices(self) -> frozenset[int]:
        """Numbers of the overlapping test texts, to leave them out of a score."""
        return frozenset(row.index for row in self.rows)


def find_overlap(
    train: Iterable[str], test: Sequence[str], *, orders: Sequence[int] = DEFAULT_ORDERS
) -> tuple[OverlapReport, ...]:
    """Find the n-grams of the test texts that the training texts have too.

    The training texts are read once and not kept; memory grows with the test texts alone, by 24 bytes a token and order
    besides the texts. N-grams are compared by 64-bit hashes: with ten million of them on the test side, a billion
    training tokens give a false hit with a chance of about one in two thousand.

    Args:
        train: The training texts; may be a stream.
        test: The test texts.
        orders: Lengths of the n-grams.

    Returns:
        One report for each order.

    Raises:
        ConfigError: An order is below 1, or there is none.
        InputError: There are no test texts.
    """
    if not orders or min(orders) < 1:
        raise ConfigError(
            f"N-grams have at least one token; got the lengths {list(orders)}. The usual ones are 13 and 8."
        )
    if not test:
        raise InputError("There are no test texts to look for.")
    tokens = [unicode_tokens(text) for text in test]
    indexes = [_NgramIndex(tokens, n) for n in orders]
    n_train = 0
    for text in train:
        hashes = _token_hashes(unicode_tokens(text))
        for index in indexes:
            index.mark(hashes, n_train)
        n_train += 1
    return tuple(index.report(tokens, n_train) for index in indexes)


class _NgramIndex:
    """The n-grams of the test texts at one length, and the first training text seen with each."""

    def __init__(self, tokens: Sequence[Sequence[str]], n: int) -> None:
        self._n = n
        per_row = [_ngram_hashes(_token_hashes(row), n) for row in tokens]
        self._keys = np.unique(np.concatenate(per_row))
        self._places = [np.searchsorted(self._keys, row) for row in per_row]
        self._first = np.full(len(self._keys), _NEVER, dtype=np.int64)

    def mark(self, token_hashes: HashArray, train_index: int) -> None:
        """Note which of the n-grams one training text has."""
        if not len(self._keys):
            return
        wanted = _ngram_hashes(token_hashes, self._n)
        places = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        found = places[self._keys[places] == wanted]
        self._first[found] = np.minimum(self._first[found], train_index)

    def report(self, tokens: Sequence[Sequence[str]], n_train: int) -> OverlapReport:
        """Return what was marked, text by text."""
        rows = []
        for index, (row, places) in enumerate(zip(tokens, self._places, strict=True)):
            first = self._first[places]
            starts = np.flatnonzero(first != _NEVER)
            if not len(starts):
                continue
            covered = np.zeros(len(row), dtype=bool)
            hits = []
            for start in starts.tolist():
                covered[start : start + self._n] = True
                hits.append(Hit(start, " ".join(row[start : start + self._n]), int(first[start])))
            rows.append(RowOverlap(index, len(row), float(covered.mean()), tuple(hits)))
        n_too_short = sum(len(row) < self._n for row in tokens)
        return OverlapReport(self._n, len(tokens), n_train, n_too_short, tuple(rows))


@lru_cache(maxsize=1 << 18)
def _token_hash(token: str) -> int:
    return int.from_bytes(hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _token_hashes(tokens: Sequence[str]) -> HashArray:
    return np.fromiter(map(_token_hash, tokens), dtype=np.uint64, count=len(tokens))


def _ngram_hashes(token_hashes: HashArray, n: int) -> HashArray:
    """Return a polynomial hash of each run of `n` tokens, modulo 2^64: ``[max(0, n_tokens - n + 1)]``."""
    count = max(0, len(token_hashes) - n + 1)
    hashes = np.zeros(count, dtype=np.uint64)
    for offset in range(n):
        hashes = hashes * _MULTIPLIER + token_hashes[offset : offset + count]
    return hashes
