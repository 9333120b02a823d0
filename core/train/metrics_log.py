"""The record of a training: ``metrics.jsonl``, TensorBoard where it is installed, and curves to look at."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlpkit.core.errors import OutputError


class MetricsLog:
    """Appends one JSON object a line, and shows the same numbers to TensorBoard.

    Attributes:
        path: The file.
    """

    def __init__(
        self, folder: Path, *, from_step: int = 0, evaluated: int | None = None, tensorboard: bool = False
    ) -> None:
        """Open the log.

        Args:
            folder: Where it lies.
            from_step: Training goes on from here: later lines, of steps that will be done again, are cut off.
            evaluated: Step of the last evaluation that was due; one that was made at the end alone is cut off as well.
                None keeps all.
            tensorboard: Whether to write event files too, if the library is there.

        Raises:
            OutputError: The file cannot be written.
        """
        self.path = folder / "metrics.jsonl"
        try:
            kept = [row for row in read_metrics(self.path) if _stays(row, from_step, evaluated)]
            self.path.write_text("".join(json.dumps(row) + "\n" for row in kept), "utf-8")
            self._stream = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror or error}.") from error
        self._board: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return
            new_writer: Any = SummaryWriter
            self._board = new_writer(str(folder / "tensorboard"), purge_step=from_step + 1)

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append one line.

        Args:
            kind: ``train``, ``eval``, ``sample``, or ``average`` for the evaluation of averaged weights.
            step: Steps done.
            values: JSON-ready values.

        Raises:
            OutputError: The disk is full.
        """
        # JSON has no NaN; a reader should not choke on the very line that says what went wrong.
        safe = {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        try:
            self._stream.write(json.dumps({"kind": kind, "step": step, **safe}, ensure_ascii=False) + "\n")
            self._stream.flush()
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror or error}.") from error
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Close the files."""
        self._stream.close()
        if self._board is not None:
            self._board.close()


def _stays(row: Mapping[str, Any], from_step: int, evaluated: int | None) -> bool:
    """Tell whether a line belongs to the steps before the one that is next."""
    step = row.get("step", 0)
    if not from_step or not isinstance(step, int) or step > from_step:
        return False
    if row.get("kind") == "train" or step < from_step or evaluated is None:
        return True
    return step == evaluated and row.get("kind") != "average"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a log; a last line that was cut off by a crash is left out."""
    rows = []
    if path.exists():
        for line in path.read_text("utf-8", errors="replace").splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                rows.append(value)
    return rows


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
    body = "".join(_svg(name, lines) for name, lines in charts.items())
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


def _svg(name: str, lines: Mapping[str, list[tuple[float, float]]]) -> str:
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
