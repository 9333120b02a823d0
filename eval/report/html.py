"""Reports as one HTML page that needs nothing else: no script, no network."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from nlpkit.apps.show.charts import N_COLOURS, Estimate, interval_chart, length_chart
from nlpkit.apps.show.tables import show_number, show_p
from nlpkit.eval.report.content import Group, Report, input_texts
from nlpkit.eval.runs.run_folder import finite

TEMPLATE = "page.html.jinja"


def render_html(report: Report) -> str:
    """Render a report as a self-contained page. Everything that comes from data or models is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=show_number, p=show_p)
    source = files("nlpkit.eval.report").joinpath(TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(source).render(
        title=report.title, groups=[_group(group) for group in report.groups], n_colours=N_COLOURS
    )


def _group(group: Group) -> dict[str, Any]:
    return {
        "group": group,
        "systems": [_system(group, number) for number in range(len(group.runs))],
        "intervals": [
            {"metric": metric, "chart": Markup(_intervals(group, metric)), "note": _direction(group, metric)}  # noqa: S704
            for metric in group.metrics
        ],
        # Drawn by us from numbers and escaped names.
        "lengths": Markup(  # noqa: S704
            length_chart(group.lengths, x_label=_length_label(group), y_label=f"{group.main} of a row")
        ),
        "examples": [
            {"name": name, "number": number, "best": best, "worst": worst}
            for number, (name, best, worst) in enumerate(zip(group.names, group.best, group.worst, strict=True))
        ],
        "signatures": _signatures(group),
    }


def _system(group: Group, number: int) -> dict[str, Any]:
    run = group.runs[number]
    counts = run.record["counts"]
    reasons = ", ".join(f"{name} {count}" for name, count in counts["finish_reasons"].items())
    return {
        "name": group.names[number],
        "number": number,
        "record": run.record,
        "counts": counts,
        "reasons": reasons,
        "metrics": run.metrics,
        "words": group.words[number],
        "speed": run.record.get("tokens_per_second"),
        "json": json.dumps(
            finite({key: value for key, value in run.record.items() if key not in ("metrics", "notes")}),
            ensure_ascii=False,
            indent=1,
        ),
    }


def _intervals(group: Group, metric: str) -> str:
    estimates = []
    for number, (name, run) in enumerate(zip(group.names, group.runs, strict=True)):
        result = run.metrics.get(metric, {})
        if all(isinstance(result.get(key), (int, float)) for key in ("value", "low", "high")):
            estimates.append(Estimate(name, result["value"], result["low"], result["high"], number))
    return interval_chart(estimates, unit=metric, width=480 if len(group.metrics) > 1 else 720)


def _direction(group: Group, metric: str) -> str:
    found = next((run.metrics[metric] for run in group.runs if metric in run.metrics), {})
    return "higher is better" if found.get("higher_is_better", True) else "lower is better"


def _length_label(group: Group) -> str:
    known = any(input_texts(sample) for run in group.runs for sample in run.samples)
    return "length of the input in words" if known else "length of the reference in words"


def _signatures(group: Group) -> list[tuple[str, str]]:
    found = [
        (name, str(result["signature"]))
        for run in group.runs
        for name, result in run.metrics.items()
        if "signature" in result
    ]
    return list(dict.fromkeys(found))
