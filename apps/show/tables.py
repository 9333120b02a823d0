"""Tables for terminals and Markdown, and numbers as scores are usually printed."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any


def render_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[int] = (0,)) -> str:
    """Lay out a table with aligned columns.

    Args:
        headers: One a column.
        rows: Cells.
        left: Columns that are aligned to the left; numbers read better to the right.

    Returns:
        Lines without a line end at the last.
    """
    cells = [list(headers), *(list(row) for row in rows)]
    widths = [max(_width(row[i]) for row in cells) for i in range(len(headers))]
    lines = []
    for row in cells:
        parts = [_pad(cell, widths[i], left_aligned=i in left) for i, cell in enumerate(row)]
        lines.append("  ".join(parts).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def render_markdown(headers: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[int] = (0,)) -> str:
    """Lay out a Markdown table; bars in cells are escaped."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    rule = ["---" if i in left else "---:" for i in range(len(headers))]
    return "\n".join([line(headers), line(rule), *(line(row) for row in rows)])


def _width(text: str) -> int:
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def _pad(text: str, width: int, *, left_aligned: bool) -> str:
    gap = " " * (width - _width(text))
    return text + gap if left_aligned else gap + text


def show_number(value: Any, *, digits: int | None = None) -> str:
    """Return a score for a table: two decimals, more for small ratios, a dash where it is undefined."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return "-"
    if digits is None:
        digits = 2 if abs(value) >= 1 or value == 0 else 3
    return f"{value:.{digits}f}"


def show_score(result: Mapping[str, Any]) -> str:
    """Return ``value [low, high]`` of a result's dictionary, or ``failed``."""
    if "error" in result:
        return "failed"
    value = result.get("value")
    digits = 2 if isinstance(value, (int, float)) and abs(value) >= 1 else 3
    low, high = (show_number(result.get(key), digits=digits) for key in ("low", "high"))
    return f"{show_number(value, digits=digits)} [{low}, {high}]"


def show_p(value: float) -> str:
    """Return a p-value as papers print it."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"
