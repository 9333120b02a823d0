"""Draws the curves of a training."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlpkit.apps.show.charts import svg_curves
from nlpkit.core.errors import OutputError
from nlpkit.core.train.metrics_log import LOG_NAME, read_metrics


def curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Collect the curves of a log.

    Args:
        rows: Its lines.

    Returns:
        Charts by title, each with named lines of ``(step, value)`` points.
    """
    charts: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        if row.get("kind") not in ("train", "eval"):
            continue
        for name, value in row.items():
            if name in ("step", "kind") or isinstance(value, (str, bool)) or not isinstance(value, (int, float)):
                continue
            if row["kind"] == "train" and name not in ("loss", "lr", "grad_norm"):
                continue
            charts.setdefault(name, {}).setdefault(str(row["kind"]), []).append((float(row["step"]), float(value)))
    return charts


def draw_curves(folder: Path) -> list[Path]:
    """Draw the curves of the log in a training's folder; see `write_curves`."""
    return write_curves(folder, read_metrics(folder / LOG_NAME), title=f"Training: {folder.name}")


def write_curves(folder: Path, rows: Sequence[Mapping[str, Any]], *, title: str) -> list[Path]:
    """Draw the curves: ``curves.html`` always, ``curves.png`` where matplotlib is installed.

    Args:
        folder: Where to write.
        rows: Lines of the log.
        title: Heading.

    Returns:
        The files written.

    Raises:
        OutputError: They cannot be written.
    """
    charts = curves(rows)
    page = folder / "curves.html"
    body = "".join(svg_curves(name, lines) for name, lines in charts.items())
    try:
        page.write_text(
            f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title>"
            "<style>body{font:14px system-ui;margin:2em;max-width:60em}svg{width:100%;height:auto}"
            ".train{stroke:#3b6ea5}.eval{stroke:#c0542b}text{font-size:12px;fill:#444}</style>"
            f"<h1>{html.escape(title)}</h1>{body or '<p>No steps yet.</p>'}",
            "utf-8",
        )
        picture = _png(folder / "curves.png", charts, title)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}.") from error
    return [page, *picture]


def _png(path: Path, charts: Mapping[str, Mapping[str, list[tuple[float, float]]]], title: str) -> list[Path]:
    if not charts:
        return []
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return []
    figure = Figure(figsize=(9, 2.6 * len(charts)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    for axes, (name, lines) in zip(figure.subplots(len(charts), squeeze=False)[:, 0], charts.items(), strict=True):
        for kind, line in lines.items():
            axes.plot(*zip(*line, strict=True), label=kind)
        axes.set_ylabel(name)
        axes.legend()
    figure.savefig(path)
    return [path]
