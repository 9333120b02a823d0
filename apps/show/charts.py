"""Charts as inline SVG: scores with intervals, score against length. No script, no outside resource.

Colours come from CSS variables ``--series-0`` and so on, so that a page can turn dark.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from nlpkit.apps.show.tables import show_number

N_COLOURS = 8


@dataclass(frozen=True)
class Estimate:
    """A score to draw.

    Attributes:
        name: Its label.
        value: The score.
        low: Lower end of its interval.
        high: Upper end of its interval.
        series: Number of its colour.
    """

    name: str
    value: float
    low: float
    high: float
    series: int


def interval_chart(estimates: Sequence[Estimate], *, unit: str, width: int = 720) -> str:
    """Draw each score as a dot on its interval, one below the other.

    Args:
        estimates: The scores.
        unit: What the axis shows.
        width: Width in pixels; it scales with the page.

    Returns:
        An ``<svg>`` element.
    """
    drawn = [one for one in estimates if math.isfinite(one.value)]
    if not drawn:
        return ""
    left, right, row, top = (190, 84, 34, 8) if width > 600 else (140, 64, 30, 6)
    height = top + row * len(drawn) + 24
    ticks = nice_ticks(min(one.low for one in drawn), max(one.high for one in drawn))
    low, high = ticks[0], ticks[-1]

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (width - left - right)

    parts = [_open(width, height, f"{unit}: " + ", ".join(f"{o.name} {show_number(o.value)}" for o in drawn))]
    base = top + row * len(drawn)
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{top}" y2="{base}"/>')
        parts.append(f'<text class="tick" x="{x(tick):.1f}" y="{base + 16}" text-anchor="middle">{_tick(tick)}</text>')
    for number, one in enumerate(drawn):
        y = top + row * number + row / 2
        colour = _colour(one.series)
        label = escape(_short(one.name, left // 8))
        tip = f"{one.name}: {show_number(one.value)} [{show_number(one.low)}, {show_number(one.high)}]"
        parts.append(
            f"<g><title>{escape(tip)}</title>"
            f'<text class="label" x="{left - 12}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
            f'<line x1="{x(one.low):.1f}" x2="{x(one.high):.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}" '
            f'stroke-width="6" stroke-linecap="round" opacity="0.35"/>'
            f'<circle cx="{x(one.value):.1f}" cy="{y:.1f}" r="6" fill="{colour}"/>'
            f'<text class="value" x="{width - right + 14}" y="{y + 4:.1f}">{show_number(one.value)}</text></g>'
        )
    parts.append("</svg>")
    return "".join(parts)


@dataclass(frozen=True)
class Series:
    """Points of one system.

    Attributes:
        name: The system.
        points: Length and segment score of each row.
        means: Middle of each length bin, mean score in it, number of rows, and standard error of the mean.
        number: Number of its colour.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    means: tuple[tuple[float, float, int, float], ...]
    number: int


def length_chart(series: Sequence[Series], *, x_label: str, y_label: str, width: int = 720, height: int = 320) -> str:
    """Draw segment scores against length: a dot a row, and the mean of each bin with its standard error.

    Args:
        series: One for each system.
        x_label: What the horizontal axis shows.
        y_label: What the vertical axis shows.
        width: Width in pixels; it scales with the page.
        height: Height in pixels.

    Returns:
        An ``<svg>`` element; empty if there is nothing to draw.
    """
    points = [point for one in series for point in one.points]
    if len({x for x, _ in points}) < 2:
        return ""
    left, right, top, bottom = 58, 16, 12, 46
    # A few very long inputs would squeeze all the others into a corner of a linear scale.
    x_low, x_high = max(1.0, min(x for x, _ in points)), max(x for x, _ in points)
    logarithmic = x_high / x_low > 12
    y_ticks = nice_ticks(min(y for _, y in points), max(y for _, y in points))

    def scale(value: float) -> float:
        return math.log(max(value, x_low)) if logarithmic else value

    def x(value: float) -> float:
        return left + (scale(value) - scale(x_low)) / (scale(x_high) - scale(x_low)) * (width - left - right)

    def y(value: float) -> float:
        return height - bottom - (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (height - top - bottom)

    parts = [_open(width, height, f"{y_label} against {x_label}")]
    for tick in y_ticks:
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{_tick(tick)}</text>')
    parts += [
        f'<text class="tick" x="{x(tick):.1f}" y="{height - bottom + 18}" text-anchor="middle">{_tick(tick)}</text>'
        for tick in (_log_ticks(x_low, x_high) if logarithmic else nice_ticks(x_low, x_high, count=8))
        if x_low <= tick <= x_high
    ]
    for one in series:
        colour = _colour(one.number)
        parts.append(f'<g fill="{colour}" opacity="0.22">')
        parts += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="2.4"/>' for a, b in one.points]
        parts.append("</g>")
    for one in series:
        colour = _colour(one.number)
        line = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b, _, _ in one.means)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        for a, b, count, error in one.means:
            tip = f"{one.name}: mean {show_number(b)} around length {a:.0f} ({count} rows)"
            parts.append(
                f'<g><title>{escape(tip)}</title><line x1="{x(a):.1f}" x2="{x(a):.1f}" y1="{y(b - error):.1f}" '
                f'y2="{y(b + error):.1f}" stroke="{colour}" stroke-width="2"/>'
                f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="5" fill="{colour}" class="ring"/></g>'
            )
    middle = (height - bottom + top) / 2
    parts.append(
        f'<text class="axis" x="{(left + width - right) / 2:.1f}" y="{height - 6}" text-anchor="middle">'
        f"{escape(x_label)}{', logarithmic' if logarithmic else ''}</text>"
        f'<text class="axis" transform="translate(14 {middle:.1f}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text></svg>"
    )
    return "".join(parts)


def nice_ticks(low: float, high: float, *, count: int = 5) -> list[float]:
    """Return round numbers that enclose a range, evenly spaced; at least two.

    Args:
        low: Lower end.
        high: Upper end, not below it.
        count: About how many.
    """
    span = high - low
    if not math.isfinite(span) or span <= 1e-6 * max(1e-3, abs(low), abs(high)):
        span = abs(high) * 0.2 if abs(high) > 1e-3 else 1.0
        low, high = low - span / 2, high + span / 2
    raw = span / max(1, count - 1)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    digits = max(0, 2 - math.floor(math.log10(step)))
    return [round(number * step, digits) for number in range(first, max(last, first + 1) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    ticks = [
        factor * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for factor in (1, 2, 5)
    ]
    return [tick for tick in ticks if low <= tick <= high]


def _tick(value: float) -> str:
    return f"{value:,.10g}"


def _short(name: str, limit: int) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"


def _colour(number: int) -> str:
    return f"var(--series-{number % N_COLOURS})"


def _open(width: int, height: int, label: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(label, quote=True)}">'
    )


def svg_curves(name: str, lines: Mapping[str, list[tuple[float, float]]]) -> str:
    """Draw the curves of one quantity, a line for each kind, as SVG; steps go to the right."""
    points = [point for line in lines.values() for point in line]
    (x0, x1), (y0, y1) = ((min(values), max(values)) for values in zip(*points, strict=True))
    width, height, left, top = 800, 260, 70, 20

    def place(x: float, y: float) -> str:
        across = (x - x0) / ((x1 - x0) or 1)
        up = (y - y0) / ((y1 - y0) or 1)
        return f"{left + across * (width - left - 20):.1f},{top + (1 - up) * (height - 2 * top - 20):.1f}"

    parts = []
    for kind, line in lines.items():
        shown = line[:: max(1, len(line) // 800)]
        path = " ".join(place(x, y) for x, y in shown)
        parts.append(f'<polyline class="{html.escape(kind)}" fill="none" stroke-width="1.5" points="{path}"/>')
        parts += [f'<circle class="{html.escape(kind)}" r="2" cx="{p.split(",")[0]}" cy="{p.split(",")[1]}"/>'
                  for p in (place(x, y) for x, y in shown[-1:])]  # fmt: skip
    bottom = height - top - 20
    labels = (
        f'<text x="2" y="{top + 8}">{y1:.4g}</text><text x="2" y="{bottom}">{y0:.4g}</text>'
        f'<text x="{left}" y="{height - 6}">step {x0:.0f}</text>'
        f'<text x="{width - 100}" y="{height - 6}">step {x1:.0f}</text>'
    )
    last = ", ".join(f"{kind} {line[-1][1]:.4g}" for kind, line in lines.items())
    chart = f'<svg viewBox="0 0 {width} {height}">{labels}{"".join(parts)}</svg>'
    return f"<h2>{html.escape(name)} <small>({last})</small></h2>{chart}"


def svg_scatter(axis: str, points: Sequence[tuple[float, float]]) -> str:
    """Draw points of a value over a hyperparameter named `axis`, as SVG; nothing where there are none."""
    if not points:
        return ""
    (x0, x1), (y0, y1) = ((min(values), max(values)) for values in zip(*points, strict=True))
    across, up = (x1 - x0) or 1, (y1 - y0) or 1
    places = [(60 + 320 * (x - x0) / across, 200 - 170 * (y - y0) / up) for x, y in points]
    dots = "".join(f'<circle r="4" cx="{x:.1f}" cy="{y:.1f}"/>' for x, y in places)
    return (
        f'<svg viewBox="0 0 400 240"><text x="2" y="34">{y1:.4g}</text><text x="2" y="204">{y0:.4g}</text>'
        f'<text x="60" y="222">{x0:.3g}</text><text x="350" y="222">{x1:.3g}</text>'
        f'<text x="120" y="236">{html.escape(axis)}</text>{dots}</svg>'
    )
