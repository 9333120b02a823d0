"""Reports as Markdown, for merge requests and notebooks."""

from __future__ import annotations

import re

from nlpkit.apps.show.tables import render_markdown, show_number, show_p, show_score
from nlpkit.eval.report.content import Group, Report, ReportExample
from nlpkit.eval.report.word_diff import DiffPiece

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$])")


def render_markdown_report(report: Report) -> str:
    """Render a report as Markdown; all texts from data and models are escaped."""
    parts = [f"# {_escape(report.title)}"]
    for group in report.groups:
        parts += _group(group)
    return "\n\n".join(parts) + "\n"


def _group(group: Group) -> list[str]:
    rows = len(group.runs[0].samples)
    parts = [
        f"## {_escape(group.task)} on {_escape(group.data)}",
        f"{rows} rows. Intervals are 95% bootstrap intervals.",
    ]
    headers = ["system", *group.metrics, "failed", "truncated", "words", "tokens/s"]
    lines = []
    for name, run, words in zip(group.names, group.runs, group.words, strict=True):
        counts = run.record["counts"]
        lines.append(
            [
                _escape(name),
                *(show_score(run.metrics[m]) if m in run.metrics else "-" for m in group.metrics),
                str(counts["failed"]),
                str(counts["truncated"]),
                show_number(words[0], digits=1),
                show_number(run.record.get("tokens_per_second"), digits=1),
            ]
        )
    parts.append(render_markdown(headers, lines))
    if group.comparison is not None:
        for metric in group.comparison.metrics:
            baseline, *others = metric.systems
            table = [
                [
                    _escape(system.name),
                    f"{system.difference:+.2f} [{show_number(system.low_difference)}, "
                    f"{show_number(system.high_difference)}]",
                    *(show_p(system.p_values[method]) for method in group.comparison.methods),
                    f"{system.wins}/{system.losses}/{system.ties}",
                ]
                for system in others
            ]
            headers = ["system", "difference", *(f"p ({m})" for m in group.comparison.methods), "wins/losses/ties"]
            parts += [f"### {metric.name} against {_escape(baseline.name)}", render_markdown(headers, table)]
    elif group.not_compared:
        parts.append(f"Not compared: {_escape(group.not_compared)}")
    for what, columns in (("Worst", group.worst), ("Best", group.best)):
        for examples in columns:
            if examples:
                parts.append(f"### {what} rows of {_escape(examples[0].system)} by {group.main}")
                parts += [_example(example) for example in examples]
    if group.failures:
        parts.append("### Rows that failed")
        parts.append(
            "\n".join(
                f"- {_escape(one.system)}, row {_escape(one.id)}: {_escape(one.error or '')}" for one in group.failures
            )
        )
    parts.append("### Signatures")
    signatures = dict.fromkeys(
        f"- {name}: `{result['signature']}`"
        for run in group.runs
        for name, result in run.metrics.items()
        if "signature" in result
    )
    parts.append("\n".join(signatures))
    return parts


def _example(example: ReportExample) -> str:
    lines = [f"- **{_escape(example.id)}** ({show_number(example.score)})"]
    if example.source:
        lines.append(f"  - input: {_escape(_clip(example.source))}")
    if example.reference:
        lines.append(f"  - reference: {_pieces(example.reference)}")
    lines.append(f"  - prediction: {_pieces(example.prediction) or '(empty)'}")
    return "\n".join(lines)


def _pieces(pieces: tuple[DiffPiece, ...]) -> str:
    shown = []
    for piece in pieces:
        text = _escape(" ".join(piece.text.split(" ")))
        core = text.strip()
        if piece.kind == "extra" and core:
            lead, trail = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
            text = f"{lead}**{core}**{trail}"
        shown.append(text)
    return "".join(shown).strip()


def _clip(text: str, width: int = 300) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.splitlines()))
