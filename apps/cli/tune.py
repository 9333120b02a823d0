"""The command that searches for hyperparameters."""

from __future__ import annotations

import dataclasses
import html
import math
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nlpkit.apps.cli.output import Writer, note
from nlpkit.apps.show.charts import svg_scatter
from nlpkit.apps.show.tables import render_table
from nlpkit.apps.training.recipe import render_toml
from nlpkit.apps.training.search import Trial, best_trial
from nlpkit.apps.training.tuning import SearchPlan, load_plan, run_plan, show_value, with_params
from nlpkit.core.errors import OutputError

if TYPE_CHECKING:
    from nlpkit.apps.training.dev_set import Scorer


def run_tune(
    config: str,
    *,
    output: str | None,
    trials: int | None,
    workers: int | None,
    worker: int,
    as_json: bool,
    quiet: bool,
    scorer: Scorer | None,
) -> int:
    """Search, and print a table; write the best configuration, all trials and a plot.

    Args:
        config: The TOML file.
        output: Overrules its folder.
        trials: Overrules its number of trials.
        workers: Overrules its number of workers.
        worker: Number of this process; the first one, 0, starts the others and reports.
        as_json: Whether to print JSON.
        quiet: Whether to say nothing on stderr.
        scorer: Scores predictions by the name of a metric.

    Returns:
        The exit code: 0, or 3 if no trial was completed.

    Raises:
        NlpkitError: Something cannot be used.
    """
    plan = load_plan(config, output=output, trials=trials, workers=workers)
    report = partial(note, quiet=quiet)
    if worker:
        run_plan(plan, scorer=scorer, report=report, worker=worker)
        return 0
    if plan.workers > 1:
        # Made before the others start: they must not all create the database at once.
        from nlpkit.apps.training.search import open_study

        open_study(Path(plan.recipe.output), plan.search, worker=0)
    others = [_start_worker(config, plan, number, quiet=quiet) for number in range(1, plan.workers)]
    try:
        found = run_plan(plan, scorer=scorer, report=report)
        failed = [process for process in others if process.wait() != 0]
    finally:
        for process in others:
            if process.poll() is None:
                process.terminate()
    if failed:
        note(f"{len(failed)} of {plan.workers} workers failed; what they say stands above")
    if others:
        found = run_plan(plan, scorer=scorer, report=report)
    best = best_trial(found, minimize=plan.search.minimize)
    folder = Path(plan.recipe.output)
    try:
        if best is not None:
            tuned = with_params(plan.recipe, best.params, output=str(folder / "best"))
            if plan.folds:
                # There are no dev data any more: all rows are trained on, for as long as in the trials.
                kept = {k: v for k, v in tuned.train.items() if k not in ("eval_every", "patience", "metric")}
                tuned = dataclasses.replace(tuned, train=kept)
            (folder / "best.toml").write_text(render_toml(tuned.to_dict()), "utf-8")
        (folder / "trials.html").write_text(render_page(found, plan), "utf-8")
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}.") from error
    with Writer(None, as_json=as_json) as writer:
        if as_json:
            for trial in found:
                writer.write(dataclasses.asdict(trial) | {"best": best is not None and trial.number == best.number})
        else:
            writer.write(trials_table(found, plan))
    if best is None:
        note("no trial was completed: see the states above")
        return 3
    note(f"the best configuration is {folder / 'best.toml'}: nlpkit train --config {folder / 'best.toml'}", quiet=quiet)
    return 0


def _start_worker(config: str, plan: SearchPlan, number: int, *, quiet: bool) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "nlpkit.cli", "tune", "--config", config, "--output", plan.recipe.output]
    command += ["--trials", str(plan.search.trials), "--worker", str(number), *(["--quiet"] if quiet else [])]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _ordered(trials: Sequence[Trial], plan: SearchPlan) -> list[Trial]:
    sign = 1 if plan.search.minimize else -1
    return sorted(trials, key=lambda trial: (trial.value is None, sign * (trial.value or 0.0), trial.number))


def trials_table(trials: Sequence[Trial], plan: SearchPlan) -> str:
    """Return the trials as a table, the best first."""
    names = list(plan.search.space)
    rows = []
    for trial in _ordered(trials, plan):
        value = "" if trial.value is None else f"{trial.value:.5g}"
        seconds = "" if trial.seconds is None else f"{trial.seconds:.1f}"
        params = [show_value(trial.params[name]) if name in trial.params else "" for name in names]
        rows.append([str(trial.number), value, trial.state, seconds, *params])
    return render_table(["trial", plan.metric, "state", "seconds", *names], rows, left=range(4 + len(names)))


def render_page(trials: Sequence[Trial], plan: SearchPlan) -> str:
    """Return a page with the trials' values over each hyperparameter."""
    done = [trial for trial in trials if trial.value is not None]
    charts = [svg_scatter("trial", [(float(trial.number), trial.value or 0.0) for trial in done])]
    for name, choice in plan.search.space.items():
        points = []
        for trial in done:
            value = trial.params[name]
            if choice.options:
                points.append((float(choice.options.index(value)), trial.value or 0.0))
            elif isinstance(value, (int, float)):
                points.append((math.log10(value) if choice.log else float(value), trial.value or 0.0))
        axis = f"{name} ({', '.join(map(show_value, choice.options))})" if choice.options else name
        charts.append(svg_scatter(f"log10 {axis}" if choice.log else axis, points))
    table = html.escape(trials_table(trials, plan))
    return (
        "<!doctype html><meta charset=utf-8><title>Trials</title><style>body{font:14px system-ui;margin:2em;"
        "max-width:60em}svg{width:48%;height:auto}circle{fill:#3b6ea5;fill-opacity:.7}text{font-size:12px;fill:#444}"
        f"</style><h1>{html.escape(plan.metric)} of {len(done)} trials</h1>{''.join(charts)}<pre>{table}</pre>"
    )
