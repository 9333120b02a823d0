"""Word-level differences between a prediction and its reference."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from nlpkit.eval.metrics.text import is_unsegmented

MAX_TOKENS = 600
"""Longer texts are cut: the comparison takes time with the square of their length."""

_TOKEN = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True)
class DiffPiece:
    """A run of text.

    Attributes:
        kind: ``same``, ``extra`` (only in this text), or ``cut`` for the mark that stands for a cut-off rest.
        text: The text.
    """

    kind: Literal["same", "extra", "cut"]
    text: str


def word_diff(prediction: str, reference: str) -> tuple[tuple[DiffPiece, ...], tuple[DiffPiece, ...]]:
    """Mark in both texts what the other one lacks.

    Words are compared in lower case; in scripts without spaces between words, character by character.

    Args:
        prediction: One text.
        reference: The other.

    Returns:
        The pieces of the prediction and of the reference; joined, they are the texts (up to a cut).
    """
    left, right = _tokens(prediction), _tokens(reference)
    cut_left, cut_right = left[:MAX_TOKENS], right[:MAX_TOKENS]
    matcher = SequenceMatcher(None, [_key(token) for token in cut_left], [_key(t) for t in cut_right], autojunk=False)
    ours: list[DiffPiece] = []
    theirs: list[DiffPiece] = []
    for kind, i, j, k, m in matcher.get_opcodes():
        same = kind == "equal"
        _add(ours, cut_left[i:j], same)
        _add(theirs, cut_right[k:m], same)
    if len(left) > MAX_TOKENS:
        ours.append(DiffPiece("cut", " …"))
    if len(right) > MAX_TOKENS:
        theirs.append(DiffPiece("cut", " …"))
    return tuple(ours), tuple(theirs)


def _add(pieces: list[DiffPiece], tokens: list[str], same: bool) -> None:
    if tokens:
        pieces.append(DiffPiece("same" if same else "extra", "".join(tokens)))


def _key(token: str) -> str:
    return " " if token.isspace() else token.lower()


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    for token in _TOKEN.findall(text.strip()):
        if any(map(is_unsegmented, token)):
            tokens.extend(token)
        else:
            tokens.append(token)
    return tokens
