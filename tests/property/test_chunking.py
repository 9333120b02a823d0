"""Chunking loses nothing and keeps to its budget, whatever the text."""

from __future__ import annotations

import re
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.apps.text.chunking import (
    cut_long,
    cut_to_fit,
    pack,
    split_lines,
    split_paragraphs,
    split_sentences,
    split_to_fit,
)

pytestmark = pytest.mark.property

WORDS = [
    "Dr.",
    "the",
    "3.5",
    "a@b.de",
    "Ende.",
    "„Ja!“",
    "好。",
    "吗？",
    "\n",
    "\n\n",
    "\r\n",
    " ",
    "z. B.",
    "U.S.",
    "»",
    "«",
    "...",
    "x" * 40,
]
texts = st.one_of(
    st.text(max_size=300),
    st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join),
    st.lists(st.sampled_from(WORDS), max_size=60).map("".join),
)


def by_characters(text: str) -> int:
    return len(text)


def by_words(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


def not_additive(text: str) -> int:
    """Like a tokenizer that puts something in front of each text, and whose parts cost more than the whole."""
    return 1 + (len(text.encode()) + 2) // 3


counters = st.sampled_from([by_characters, by_words, not_additive])


@given(texts)
@settings(deadline=None)
def test_splitting_is_lossless(text: str) -> None:
    for split in (split_sentences, split_lines, split_paragraphs):
        pieces = split(text)
        assert "".join(pieces) == text
        assert all(pieces)


@given(texts)
@settings(deadline=None)
def test_lines_are_those_of_the_standard_library(text: str) -> None:
    assert split_lines(text) == text.splitlines(keepends=True)


@given(texts, st.integers(2, 60), counters)
@settings(deadline=None)
def test_chunks_are_lossless_and_within_the_budget(text: str, budget: int, count) -> None:
    for chunks in (
        split_to_fit(text, budget, count),
        pack(split_sentences(text), budget, count),
        cut_long(text, budget, count),
    ):
        assert "".join(chunks) == text
        assert all(chunks)
        assert all(count(chunk) <= budget or len(chunk) == 1 for chunk in chunks)


@given(texts, st.integers(1, 60), counters)
@settings(deadline=None)
def test_cut_to_fit_is_a_prefix_within_the_budget(text: str, budget: int, count) -> None:
    head = cut_to_fit(text, budget, count)
    assert text.startswith(head)
    assert count(head) <= budget or not head


@given(st.lists(st.integers(1, 30), min_size=1, max_size=30), st.integers(30, 90))
def test_packing_is_greedy(sizes: list[int], budget: int) -> None:
    """The next piece would never have fitted the chunk before it."""
    chunks = pack(["x" * size for size in sizes], budget, len)
    starts = dict(zip(accumulate([0, *sizes]), sizes, strict=False))
    end = 0
    for chunk in chunks[:-1]:
        end += len(chunk)
        assert len(chunk) + starts[end] > budget
