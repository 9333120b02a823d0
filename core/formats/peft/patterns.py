"""Patterns of module names in adapters' settings: matched as PEFT does, within bounds, as the files are untrusted."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nlpkit.core.errors import ModelFileError

_MAX_PATTERN_STEPS = 50_000_000


def by_pattern(patterns: Any, module: str, default: Any) -> Any:
    """Look a module up in a ``rank_pattern`` or ``alpha_pattern`` as PEFT does: the first key that matches its end."""
    for pattern, value in (patterns or {}).items():
        compiled, tail = _compiled(pattern)
        if module.endswith(tail) and compiled.match(module):
            return value
    return default


def _ways(pattern: str) -> int:
    """Return an upper bound of the ways in which the alternatives of a pattern combine."""
    ways, depth = 1, [1]
    chars = iter(re.sub(r"\\.|\[[^]]*\]", "x", pattern))
    for char in chars:
        if char == "(":
            depth.append(1)
        elif char == ")" and len(depth) > 1:
            ways *= depth.pop()
        elif char == "|":
            depth[-1] += 1
        elif char == "?":
            ways *= 2
    return ways * math.prod(depth)


def _is_quick(pattern: str) -> bool:
    """Tell whether a pattern of an untrusted file matches in little time, whatever the name.

    Groups and alternatives may be, repeats of groups not; few repeats, and few combinations.
    """
    plain = pattern.replace("(?:", "(")
    if len(pattern) > 200 or re.fullmatch(r"[\w.\\|^$*+?()\[\]-]+", plain) is None:
        return False
    if re.search(r"\)[*+]|\(\?|[*+?]{2}|\\\d", plain):
        return False
    repeats = sum(plain.count(char) for char in "*+")
    return repeats <= 2 and _ways(plain) <= (8 if repeats == 2 else 64)


@functools.lru_cache(maxsize=8192)
def _compiled(pattern: str) -> tuple[re.Pattern[str], str]:
    """Return a pattern as PEFT matches it, and letters that a name must end in, which is cheaper to ask first."""
    tail = re.search(r"\w*$", pattern)
    plain = re.fullmatch(r"[\w.]+", pattern) is not None and tail is not None
    return re.compile(rf"(.*\.)?({pattern})$"), tail[0] if plain and tail is not None else ""


def check_pattern_work(where: Path, settings: Mapping[str, Any], modules: Iterable[str]) -> None:
    """Refuse patterns that would be matched for long: each repeat goes over a name once more."""
    lengths = [len(module) for module in modules]
    steps = 0
    for pattern in settings.get("alpha_pattern") or {}:
        if _compiled(pattern)[1]:
            steps += 20 * len(lengths)
        else:
            # With a prefix of any kind in front there is always one loop.
            loops = 2 + sum(pattern.count(char) for char in "*+")
            ways = _ways(pattern.replace("(?:", "("))
            steps += sum(ways * length**loops // math.factorial(loops) for length in lengths)
        if steps > _MAX_PATTERN_STEPS:
            raise ModelFileError(
                f"{where} has an alpha_pattern that takes too long to match with its {len(lengths):,} "
                "modules. Give the modules' own names instead."
            )


def check_patterns(where: Path, key: str, patterns: Any) -> None:
    """Refuse a table of patterns and numbers that is none, or that may take long to match.

    Args:
        where: The file that it stands in.
        key: Its name there.
        patterns: What the file has.

    Raises:
        ModelFileError: It cannot be used.
    """
    if patterns in (None, {}):
        return
    usable = isinstance(patterns, Mapping)
    for pattern, value in patterns.items() if usable else ():
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e6
        try:
            re.compile(pattern)
        except re.error:
            usable = False
        usable = usable and _is_quick(pattern) and number
    if not usable:
        raise ModelFileError(f"{where} has a {key} that nlpkit cannot use: {str(patterns)[:200]}.")
