"""What the evaluation commands print: tables with intervals, and the signatures that belong to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nlpkit.apps.show.tables import render_table, show_number, show_p, show_score

if TYPE_CHECKING:
    from nlpkit.eval.data.overlap import DataOverlap
    from nlpkit.eval.runs.compare import Comparison
    from nlpkit.eval.runs.suite import SuiteResult


def run_table(records: Sequence[Mapping[str, Any]]) -> str:
    """Lay out runs, one a line, with their signatures below."""
    metrics = list(dict.fromkeys(name for record in records for name in record["metrics"]))
    rows = [
        [
            str(record["name"]),
            *([show_score(record["metrics"][name]) if name in record["metrics"] else "-" for name in metrics]),
            _n(record, metrics),
            show_number(record.get("tokens_per_second"), digits=1),
        ]
        for record in records
    ]
    table = render_table(["system", *metrics, "n", "tokens/s"], rows)
    return "\n".join([table, "", *_signatures(record["metrics"] for record in records)])


def _n(record: Mapping[str, Any], metrics: Sequence[str]) -> str:
    found = {record["metrics"][name].get("n") for name in metrics if name in record["metrics"]} - {None}
    return str(found.pop()) if len(found) == 1 else str(record["counts"]["done"])


def _signatures(metrics: Any) -> list[str]:
    lines = []
    for results in metrics:
        for name, result in results.items():
            if "signature" in result:
                lines.append(f"{name}: {result['signature']}")
    return list(dict.fromkeys(lines))


def score_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay out scores, one a line, with signatures."""
    rows = []
    for name, result in results.items():
        value = result["value"]
        digits = 2 if abs(value) >= 1 else 3
        low, high = (show_number(result[key], digits=digits) for key in ("low", "high"))
        rows.append(
            [name, show_number(value, digits=digits), f"[{low}, {high}]", str(result["n"]), result["signature"]]
        )
    headers = ["metric", "value", "95% interval", "n", "signature"]
    return render_table(headers, rows, left=(0, 4))


def comparison_text(comparison: Comparison) -> str:
    """Lay out a comparison: a table for each metric, then the rows that changed most."""
    parts = []
    for metric in comparison.metrics:
        headers = ["system", "score [95%]", "difference [95%]"]
        headers += [f"p ({method})" for method in comparison.methods] + ["wins", "losses", "ties"]
        rows = []
        for system in metric.systems:
            row = [system.name, show_score(system.to_dict())]
            if system.paired:
                digits = 2 if abs(system.value) >= 1 else 3
                low, high = (show_number(v, digits=digits) for v in (system.low_difference, system.high_difference))
                row.append(f"{system.difference:+.{digits}f} [{low}, {high}]")
                row += [show_p(system.p_values[method]) for method in comparison.methods]
                row += [str(system.wins), str(system.losses), str(system.ties)]
            else:
                row += ["(baseline)", *([""] * (len(comparison.methods) + 3))]
            rows.append(row)
        arrow = "higher is better" if metric.higher_is_better else "lower is better"
        parts.append(f"{metric.name} on {metric.n} rows, {arrow}\n" + render_table(headers, rows))
        parts.append(f"signature: {metric.signature}")
    for example in comparison.examples:
        lines = [f"row {example.id}: {example.metric} {show_number(example.before)} -> {show_number(example.after)}"]
        lines.append(f"  reference: {_clip(example.reference)}")
        lines += [f"  {name}: {_clip(text)}" for name, text in example.predictions.items()]
        parts.append("\n".join(lines))
    if comparison.different:
        parts.append("what differs between the runs:\n" + "\n".join(f"  {line}" for line in comparison.different))
    return "\n\n".join(parts)


def _clip(text: str, width: int = 160) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def overlap_text(overlap: DataOverlap, *, details: bool) -> str:
    """Lay out how many test rows overlap with the training data."""
    rows = []
    for line in overlap.summary():
        columns = ", ".join(f"{name or 'text'} {count}" for name, count in line["by_column"].items()) or "-"
        rows.append(
            [
                f"{line['n']}-gram",
                str(line["overlapping"]),
                f"{100 * line['share']:.2f}%",
                str(line["too_short"]),
                str(line["rows"]),
                columns,
            ]
        )
    table = render_table(["shared", "rows", "share", "too short to tell", "of", "by column"], rows)
    if not details:
        return table
    lines = [
        f"{one['n']}-gram  row {one['id']}  {one['column'] or 'text'}  {100 * one['coverage']:.0f}% covered: "
        f"{one['example']}"
        for one in overlap.details()
    ]
    return "\n".join([table, "", *lines]) if lines else table


def suite_table(results: Sequence[SuiteResult]) -> str:
    """Lay out a suite: a line for each evaluation, system and metric."""
    rows: list[list[str]] = []
    signatures: list[str] = []
    for result in results:
        for outcome in result.outcomes:
            for name, metric in outcome.record["metrics"].items():
                failed = outcome.record["counts"]["failed"]
                rows.append(
                    [
                        result.name,
                        str(outcome.record["name"]),
                        name,
                        show_score(metric),
                        str(metric.get("n", "-")),
                        str(failed),
                    ]
                )
        signatures += _signatures(outcome.record["metrics"] for outcome in result.outcomes)
    table = render_table(["evaluation", "system", "metric", "score [95%]", "n", "failed"], rows, left=range(3))
    return "\n".join([table, "", *dict.fromkeys(signatures)])
