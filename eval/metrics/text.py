"""Tokenizing text of any script for metrics, and telling when text looks as if a tokenizer had been there already."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

from nlpkit.eval.metrics.base import Sample

UNICODE_TOKENIZER = "nlpkit-unicode-1"
"""Signature name of `unicode_tokens`. The number changes whenever its output does."""

_UNSEGMENTED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x19E0, 0x19FF),  # Khmer symbols
    (0x2E80, 0x2FDF),  # CJK radicals
    (0x3005, 0x3007),  # ideographic iteration mark, closing mark, zero
    (0x3021, 0x3029),  # Hangzhou numerals
    (0x3040, 0x312F),  # kana, bopomofo
    (0x31A0, 0x31BF),  # bopomofo, extended
    (0x31F0, 0x31FF),  # katakana, phonetic extensions
    (0x3400, 0x4DBF),  # CJK extension A
    (0x4E00, 0x9FFF),  # CJK
    (0xA9E0, 0xA9FF),  # Burmese, extended
    (0xAA60, 0xAA7F),  # Burmese, extended
    (0xF900, 0xFAFF),  # CJK compatibility
    (0xFF66, 0xFF9F),  # halfwidth katakana
    (0x1AFF0, 0x1B16F),  # kana, extended
    (0x20000, 0x323AF),  # CJK extensions B and later
)
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’»)\]]*\s+(?=\S)|(?<=[。！？])(?=[^」』”’）])")
_ENGLISH = frozenset({"en", "eng", "english"})
_CHINESE = frozenset({"zh", "zho", "chi", "cmn", "yue", "wuu", "chinese"})
_JAPANESE = frozenset({"ja", "jpn", "japanese"})
_KOREAN = frozenset({"ko", "kor", "korean"})


def primary_language(lang: str | None) -> str | None:
    """Reduce a language tag to what the metrics tell apart.

    Args:
        lang: A tag such as ``zh-CN``, ``zho_Hans`` or ``German``, or None.

    Returns:
        ``en``, ``zh``, ``ja`` or ``ko`` for those, else the lower-case primary subtag; None for None or empty.
    """
    if not lang or not lang.strip():
        return None
    primary = re.split(r"[-_]", lang.strip().lower())[0]
    for code, names in (("en", _ENGLISH), ("zh", _CHINESE), ("ja", _JAPANESE), ("ko", _KOREAN)):
        if primary in names:
            return code
    return primary


@lru_cache(maxsize=1 << 16)
def _kind(char: str) -> str:
    """Class one character: ``c`` stands alone, ``w`` part of a word, ``m`` mark, ``f`` invisible, space for others."""
    category = unicodedata.category(char)
    if category[0] == "M":
        return "m"
    if category == "Cf":
        return "f"
    if category[0] not in "LN":
        return " "
    point = ord(char)
    return "c" if any(low <= point <= high for low, high in _UNSEGMENTED) else "w"


def is_unsegmented(char: str) -> bool:
    """Whether a character belongs to a script written without spaces between words."""
    return _kind(char) == "c"


def unicode_tokens(text: str, *, lowercase: bool = True) -> list[str]:
    """Cut a text of any script into tokens for comparison.

    The text is brought to NFC. Letters, digits and the marks on them make words; in Chinese, Japanese, Thai, Lao, Khmer
    and Burmese, which put no spaces between words, each letter with its marks is a token of its own. Everything else
    separates; invisible format characters (joiners, direction marks) are dropped. On ASCII text this is what
    `rouge_score` does.

    Args:
        text: Any text.
        lowercase: Whether to lower-case it first.

    Returns:
        The tokens, none of them empty.
    """
    if lowercase:
        text = text.lower()
    if text.isascii() and lowercase:
        return _ASCII_WORD.findall(text)
    tokens: list[str] = []
    current = ""
    for char in unicodedata.normalize("NFC", text):
        kind = _kind(char)
        if kind == "c":
            if current:
                tokens.append(current)
            current = char
        elif kind == "w":
            if current and is_unsegmented(current[0]):
                tokens.append(current)
                current = ""
            current += char
        elif kind == "m":
            current += char if current else ""
        elif kind == " " and current:
            tokens.append(current)
            current = ""
    if current:
        tokens.append(current)
    return tokens


def split_sentences(text: str) -> list[str]:
    """Cut a text into sentences: at line ends, after ``. ! ? …`` before a space, and after ``。！？``.

    Needs no data and no language, so it also cuts after abbreviations; a metric that uses it says so in its signature.

    Args:
        text: Any text.

    Returns:
        The sentences, stripped, none of them empty.
    """
    pieces: list[str] = []
    for line in text.splitlines():
        start = 0
        for match in _SENTENCE_END.finditer(line):
            pieces.append(line[start : match.end()])
            start = match.end()
        pieces.append(line[start:])
    return [piece.strip() for piece in pieces if piece.strip()]


def letters_lost(texts: Iterable[str]) -> float:
    """Return the share of letters in the texts that an ``a-z`` tokenizer does not know."""
    letters = lost = 0
    for text in texts:
        if text.isascii():
            letters += sum(map(str.isalpha, text))
            continue
        for char in text.lower():
            if char.isalpha():
                letters += 1
                lost += not char.isascii()
    return lost / letters if letters else 0.0


def has_unsegmented(texts: Iterable[str]) -> bool:
    """Whether more than a tenth of the letters belong to scripts written without spaces."""
    letters = unsegmented = 0
    for text in texts:
        letters += sum(map(str.isalpha, text))
        if not text.isascii():
            unsegmented += sum(map(is_unsegmented, text))
    return unsegmented > 0.1 * letters


def tokenized_notes(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Say so when predictions look as if they had been left in tokenized form.

    Looks for a space before a final full stop (as sacrebleu does), for BPE joiners ``@@ `` and for the SentencePiece
    space ``▁``. A tenth of the segments, or a hundred, are enough; for the last two any segment is.

    Args:
        samples: The segments.

    Returns:
        One sentence per sign found.
    """
    n = len(samples)
    stops = sum(sample.prediction.rstrip().endswith(" .") for sample in samples)
    joiners = sum("@@ " in sample.prediction or sample.prediction.endswith("@@") for sample in samples)
    spaces = sum("▁" in sample.prediction for sample in samples)
    found = []
    if stops and (stops >= 100 or stops >= 0.1 * n):
        found.append(f"{stops} of {n} predictions end in ' .'")
    if joiners:
        found.append(f"{joiners} of {n} predictions contain the BPE joiner '@@ '")
    if spaces:
        found.append(f"{spaces} of {n} predictions contain the SentencePiece space '▁'")
    return tuple(f"{sign}: they look tokenized. Detokenize them before scoring." for sign in found)
