"""What a ``tokenizer.json`` may hold, looked at before the `tokenizers` library opens it.

The library is native code: no signal and no exception stops it while it allocates or computes without end, and it
encodes while it opens a file (added tokens go through the normalizer). So what makes much out of little is bounded
here. Sections are found by their names, wherever they stand and however they are spelled, so that a second one of the
same name is seen as well; the vocabulary, which is most of the file, is not read.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

MAX_VALUES = 6_000_000
"""Most values; Gemma's file, the largest of all, has 2.1 million."""
MAX_SPELLING = 256
"""Longest added token, prefix or suffix, in characters."""
MAX_SPELLINGS = 4_000_000
"""Most characters of all added tokens."""
MAX_GROWTH = 64
"""How many times longer than its input the output of all steps together may be; the most of known models is 12."""
_MAX_SECTIONS, _MAX_STEPS, _MAX_DEPTH = 64, 64, 8
_MAX_MAPPED = 64
_MAX_WORD = 10_000
_LISTS = ("normalizers", "pretokenizers", "processors", "decoders")


def check_tokenizer_json(text: str) -> None:
    """Refuse a ``tokenizer.json`` that would run away.

    Args:
        text: The file.

    Raises:
        ValueError: What runs away, in words.
    """
    n_values = text.count(",") + text.count("[") + text.count("{")
    if n_values > MAX_VALUES:
        raise ValueError(f"it holds some {n_values:,} values; at most {MAX_VALUES:,} may be")
    decode = json.JSONDecoder().raw_decode
    for number, match in enumerate(_SECTION.finditer(text)):
        if number >= _MAX_SECTIONS:
            raise ValueError("it has the same sections again and again")
        name = json.loads(match[1])
        try:
            value, _ = decode(text, match.end())
        except RecursionError:
            raise ValueError(f"its {name} is nested too deep") from None
        _CHECKS[name](name, value)


def _check_steps(name: str, section: object) -> None:
    growth = math.prod(_growth(step, name) for step in _steps(section, name, 0))
    if growth > MAX_GROWTH:
        raise ValueError(f"its {name} makes a text up to {growth:.3g} times longer; at most {MAX_GROWTH} may be")


def _steps(section: object, name: str, depth: int) -> list[Mapping[str, Any]]:
    if not isinstance(section, Mapping):
        return []
    if depth > _MAX_DEPTH:
        raise ValueError(f"its {name} is nested too deep")
    found = [section]
    for key in _LISTS:
        inner = section.get(key)
        for step in inner if isinstance(inner, list) else ():
            found += _steps(step, name, depth + 1)
            if len(found) > _MAX_STEPS:
                raise ValueError(f"its {name} has more than {_MAX_STEPS} steps")
    return found


def _growth(step: Mapping[str, Any], name: str) -> float:
    """Return how many times longer one step may make a text."""
    kind = step.get("type")
    if kind == "Replace":
        pattern, content = step.get("pattern"), step.get("content")
        plain = pattern.get("String") if isinstance(pattern, Mapping) else None
        length = len(content) if isinstance(content, str) else 0
        # A regular expression, or an empty text, matches between any two characters.
        return max(1.0, length / len(plain)) if isinstance(plain, str) and plain else 1.0 + length
    if kind == "ByteLevel" and name != "decoder":
        return 2.0
    if kind == "BertNormalizer":
        return 3.0
    if kind == "Prepend" and len(str(step.get("prepend"))) > MAX_SPELLING:
        raise ValueError(f"its {name} prepends more than {MAX_SPELLING} characters")
    if kind == "Precompiled":
        _check_charsmap(step.get("precompiled_charsmap"), name)
        return 2.0
    if kind == "TemplateProcessing":
        return max(1.0, *(_template_length(step, key) for key in ("single", "pair")))
    return 1.0


def _check_charsmap(charsmap: object, name: str) -> None:
    """Bound what one character becomes: texts that end in NUL follow a trie whose length stands in front."""
    if not isinstance(charsmap, str):
        return
    try:
        data = base64.b64decode(charsmap)
    except (binascii.Error, ValueError):
        return  # the library refuses it
    texts = data[4 + int.from_bytes(data[:4], "little") :]
    longest = max(map(len, texts.split(b"\0")), default=0)
    if longest > _MAX_MAPPED:
        raise ValueError(f"its {name} makes {longest:,} bytes of one character; at most {_MAX_MAPPED} may be")


def _template_length(step: Mapping[str, Any], key: str) -> float:
    pieces, special = step.get(key), step.get("special_tokens")
    if not isinstance(pieces, list) or len(pieces) > _MAX_STEPS:
        return math.inf if isinstance(pieces, list) else 1.0
    for token in special.values() if isinstance(special, Mapping) else ():
        ids = token.get("ids") if isinstance(token, Mapping) else None
        if isinstance(ids, list) and len(ids) > _MAX_STEPS:
            return math.inf
    return float(sum(isinstance(piece, Mapping) and "Sequence" in piece for piece in pieces))


def _check_added(name: str, tokens: object) -> None:
    spellings = [
        token["content"]
        for token in (tokens if isinstance(tokens, list) else ())
        if isinstance(token, Mapping) and isinstance(token.get("content"), str)
    ]
    for spelling in spellings:
        check_spelling(spelling)
    if sum(map(len, spellings)) > MAX_SPELLINGS:
        raise ValueError(f"its added tokens have more than {MAX_SPELLINGS:,} characters")


def check_spelling(spelling: str) -> None:
    """Refuse an added token that is longer than any token is.

    Raises:
        ValueError: It is.
    """
    if len(spelling) > MAX_SPELLING:
        raise ValueError(
            f"the added token {spelling[:20]!r}... has {len(spelling):,} characters; at most {MAX_SPELLING} may be"
        )


def _check_affix(name: str, value: object) -> None:
    if isinstance(value, str) and len(value) > MAX_SPELLING:
        raise ValueError(f"its {name} has {len(value):,} characters; at most {MAX_SPELLING} may be")


def _check_word(name: str, value: object) -> None:
    if isinstance(value, (int, float)) and value > _MAX_WORD:
        raise ValueError(f"its {name} is {value:.3g}; at most {_MAX_WORD:,} may be")


_CHECKS: Mapping[str, Callable[[str, object], None]] = {
    "normalizer": _check_steps,
    "pre_tokenizer": _check_steps,
    "post_processor": _check_steps,
    "decoder": _check_steps,
    "added_tokens": _check_added,
    "continuing_subword_prefix": _check_affix,
    "end_of_word_suffix": _check_affix,
    "max_input_chars_per_word": _check_word,
}


def _spelled(name: str) -> str:
    """Match a name in JSON, with any of its letters escaped."""
    hexed = ((char, f"{ord(char):02x}") for char in name)
    return "".join(rf"(?:{char}|\\u00{code[0]}[{code[1]}{code[1].upper()}])" for char, code in hexed)


_TAKEN = "|".join(map(_spelled, _CHECKS))
# A vocabulary gives tokens of these names plain numbers, of few digits.
_SECTION = re.compile(rf'("(?:{_TAKEN})")\s*:\s*(?=[\[{{"]|-?\d{{5}}|-?\d+[.eE])')
