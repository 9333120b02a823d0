"""How far the confidence of translations is to be trusted: ``python tests/benchmarks/reliability.py ROWS.jsonl ...``.

Rows are those of the task: source, target, source_lang, target_lang. A table of two columns may stand for them, read in
both directions: ``dev.en-de.tsv.xz:en:de``. Every row is translated as the command does it, and called right if its
chrF is at least 30. What is printed: for each bin of the confidence how many rows it holds, what it says on average and
which share was right; of the flagged rows, and of the others, which share was wrong. ``--fit`` finds the coefficients of
`nlpkit.apps.text.translation.confidence` that suit these rows best (logistic regression, ridge 0.01), and what the table would be with
them, measured on the other half of the rows.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sacrebleu.metrics.chrf import CHRF

import nlpkit
from nlpkit.apps.text.translation.confidence import COEFFICIENTS, LOW, Signals, confidence, features

RIGHT = 30.0
BINS = 10
FITTED = ("constant", "logprob", "min_logprob", "ratio")
FEW = 15
"""Reasons that hold for fewer rows keep their weights."""


@dataclass(frozen=True)
class Row:
    """One translated row: what it says of itself, and how good it is."""

    signals: tuple[Signals, ...]
    confidence: float
    flagged: bool
    chrf: float

    @property
    def right(self) -> bool:
        return self.chrf >= RIGHT

    def under(self, coefficients: dict[str, float]) -> float:
        return min((confidence(one, coefficients) for one in self.signals), default=1.0)


def opened(path: Path) -> Any:
    opener = {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)
    return opener(path, "rt", encoding="utf-8")


def rows_of(spec: str) -> Iterator[dict[str, str]]:
    name, *languages = spec.rsplit(":", 2) if spec.count(":") >= 2 else [spec]
    with opened(Path(name)) as file:
        for line in file:
            if not languages:
                yield json.loads(line)
                continue
            one, two, *_ = line.rstrip("\n").split("\t")
            (a, b) = languages
            yield {"source": one, "target": two, "source_lang": a, "target_lang": b}
            yield {"source": two, "target": one, "source_lang": b, "target_lang": a}


def translated(rows: Sequence[dict[str, str]], args: argparse.Namespace) -> list[Row]:
    toolkit = nlpkit.load(args.model, threads=args.threads)
    metric = CHRF()
    results = toolkit.run("translation", [{**row, "source_lang": row.get("source_lang") or "auto"} for row in rows])
    done = []
    for row, result in zip(rows, results, strict=True):
        signals = tuple(
            Signals(
                logprob=one["logprob"],
                min_logprob=one["min_logprob"],
                ratio=one["ratio"],
                reasons=tuple(one["reasons"]),
                pivot=result.fields["via"] is not None,
            )
            for one in result.fields["sentences"]
            if "logprob" in one
        )
        score = metric.sentence_score(result.text, [row["target"]]).score
        done.append(Row(signals, result.fields["confidence"], bool(result.fields["flagged"]), score))
    return done


def fit(rows: Sequence[Row], ridge: float = 0.01) -> dict[str, float]:
    """Logistic regression by Newton's method; rows of one sentence only, whose signals are their own."""
    single = [row for row in rows if len(row.signals) == 1]
    held = {name: sum(name in row.signals[0].reasons for row in single) for name in COEFFICIENTS}
    names = [*FITTED, *(name for name, count in held.items() if count >= FEW)]
    x = np.array([[features(row.signals[0]).get(name, 0.0) for name in names] for row in single])
    rest = {name: weight for name, weight in COEFFICIENTS.items() if name not in names}
    known = np.array([sum(features(r.signals[0]).get(n, 0.0) * w for n, w in rest.items()) for r in single])
    y = np.array([row.right for row in single], float)
    start = np.array([COEFFICIENTS[name] for name in names])
    weights = start.copy()
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ weights + known, -30, 30)))
        gradient = x.T @ (y - p) - ridge * len(single) * (weights - start) / 100
        hessian = (x * (p * (1 - p))[:, None]).T @ x + ridge * len(single) / 100 * np.eye(len(names))
        step = np.linalg.solve(hessian, gradient)
        weights += step
        if np.abs(step).max() < 1e-6:
            break
    return {**COEFFICIENTS, **dict(zip(names, map(float, weights), strict=True))}


def show(title: str, rows: Sequence[Row], said: Sequence[float], flagged: Sequence[bool]) -> None:
    right = np.array([row.right for row in rows])
    values, low = np.array(said), np.array(flagged)
    print(f"\n{title}: {len(rows)} rows, {right.mean():.1%} right (chrF of at least {RIGHT:.0f})")
    print("| confidence | rows | says | right |\n| --- | --- | --- | --- |")
    for number in range(BINS):
        inside = (values >= number / BINS) & ((values < (number + 1) / BINS) | (number == BINS - 1))
        if inside.any():
            share, mean = right[inside].mean(), values[inside].mean()
            print(f"| {number / BINS:.1f} to {(number + 1) / BINS:.1f} | {inside.sum()} | {mean:.2f} | {share:.2f} |")
    print(f"expected calibration error {calibration_error(values, right):.3f}")
    for name, chosen in (("flagged", low), ("not flagged", ~low)):
        if chosen.any():
            print(f"{name}: {chosen.sum()} rows, {(~right[chosen]).mean():.1%} of them wrong")


def calibration_error(values: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> float:
    places = np.minimum((values * BINS).astype(int), BINS - 1)
    parts = [abs(values[places == n].mean() - right[places == n].mean()) * (places == n).mean() for n in set(places)]
    return float(sum(parts))


def show_thresholds(rows: Sequence[Row], said: Sequence[float]) -> None:
    right, values = np.array([row.right for row in rows]), np.array(said)
    print("\n| threshold | flagged | of them wrong | of the others wrong |\n| --- | --- | --- | --- |")
    for threshold in np.arange(0.1, 0.95, 0.05):
        low = values < threshold
        if low.any() and (~low).any():
            print(f"| {threshold:.2f} | {low.mean():.1%} | {(~right[low]).mean():.1%} | {(~right[~low]).mean():.1%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="+")
    parser.add_argument("--model", default="default")
    parser.add_argument("--limit", type=int, default=500, help="most rows of each file, chosen at random")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--fit", action="store_true")
    args = parser.parse_args()
    chosen: list[dict[str, str]] = []
    for spec in args.rows:
        found = list(rows_of(spec))
        chosen += random.Random(1).sample(found, min(args.limit, len(found)))
    rows = translated(chosen, args)
    random.Random(2).shuffle(rows)
    show("as it is", rows, [row.confidence for row in rows], [row.flagged for row in rows])
    show_thresholds(rows, [row.confidence for row in rows])
    if args.fit:
        half = len(rows) // 2
        coefficients = fit(rows[:half])
        print("\ncoefficients:", json.dumps({name: round(value, 3) for name, value in coefficients.items()}, indent=2))
        said = [row.under(coefficients) for row in rows[half:]]
        show("fitted on one half, measured on the other", rows[half:], said, [value < LOW for value in said])
        show_thresholds(rows[half:], said)
        whole = fit(rows)
        print("\nof all rows:", json.dumps({name: round(value, 3) for name, value in whole.items()}, indent=2))


if __name__ == "__main__":
    main()
