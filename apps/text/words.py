"""Counts words."""

from __future__ import annotations


def count_words(text: str) -> int:
    """Count words; in scripts without spaces, every character of them is one."""
    unspaced = sum("\u3040" <= char <= "\u30ff" or "\u3400" <= char <= "\u9fff" for char in text)
    spaced = "".join(" " if "\u3040" <= char <= "\u30ff" or "\u3400" <= char <= "\u9fff" else char for char in text)
    return unspaced + sum(any(char.isalnum() for char in word) for word in spaced.split())
