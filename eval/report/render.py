"""Writes a report as a page."""

from __future__ import annotations

import json

from nlpkit.eval.report.content import Kind, Report, report_dict
from nlpkit.eval.report.html import render_html
from nlpkit.eval.report.markdown import render_markdown_report
from nlpkit.eval.runs.run_folder import finite


def render_report(report: Report, kind: Kind) -> str:
    """Render a report.

    Args:
        report: The report.
        kind: ``html``, ``md`` or ``json``.
    """
    if kind == "json":
        return json.dumps(finite(report_dict(report)), ensure_ascii=False, indent=1) + "\n"
    if kind == "md":
        return render_markdown_report(report)

    return render_html(report)
