"""The command ``tune``: trains with many sets of hyperparameters and keeps the best."""

from __future__ import annotations

import dataclasses
import html
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlpkit.apps.output import Writer, note
from nlpkit.apps.recipe import Recipe, build_recipe, load_toml, render_toml
from nlpkit.core.errors import ConfigError, OutputError, did_you_mean
from nlpkit.core.train.config import LOWER_IS_BETTER
from nlpkit.core.train.tune import (
    Choice,
    Pruned,
    Search,
    Trial,
    Value,
    best_trial,
    parse_space,
    run_search,
)

if TYPE_CHECKING:
    from nlpkit.apps.dev_set import Scorer

_TUNE = ("space", "method", "trials", "seed", "prune", "folds", "workers")
_SECTIONS = ("train", "lora", "model", "tokenizer")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A search over trainings.

    Attributes:
        recipe: The training without the hyperparameters that are searched.
        search: What to search.
        folds: Folds of the cross-validation; 0 measures on the recipe's own dev data.
        workers: Processes that run trials at once.
    """

    recipe: Recipe
    search: Search
    folds: int
    workers: int

    @property
    def metric(self) -> str:
        """What is compared."""
        return str(self.recipe.train.get("metric", "loss"))


def load_plan(path: str, *, output: str | None, trials: int | None, workers: int | None) -> Plan:
    """Read a configuration with a table ``[tune]``.

    Args:
        path: The TOML file.
        output: Overrules its ``output``.
        trials: Overrules its number of trials.
        workers: Overrules its number of workers.

    Returns:
        The plan.

    Raises:
        ConfigError: It cannot be used.
    """
    values = dict(load_toml(path))
    table = values.pop("tune", None)
    if not isinstance(table, Mapping):
        raise ConfigError(f"{path} has no table [tune], which says what to search.")
    for key in table:
        if key not in _TUNE:
            raise ConfigError(f"[tune] has no option {key!r}. {did_you_mean(key, _TUNE)}")
    space = parse_space(table.get("space", {}))
    for name in space:
        section, dot, _ = name.partition(".")
        if not dot or section not in _SECTIONS:
            raise ConfigError(
                f"[tune.space] has {name!r}; names are those of the configuration, such as 'train.lr' or 'lora.rank'."
            )
    recipe = build_recipe(values, {"output": output})
    folds = table.get("folds", 0)
    count = workers if workers is not None else table.get("workers", 1)
    if not isinstance(folds, int) or folds == 1 or folds < 0:
        raise ConfigError(f"[tune] folds is {folds!r}; it must be 0 (no cross-validation) or at least 2.")
    if not isinstance(count, int) or count < 1:
        raise ConfigError(f"[tune] workers is {count!r}; it must be a whole number from 1.")
    if folds and recipe.eval_data:
        raise ConfigError("Cross-validation takes its dev data from the training data: leave eval_data out.")
    if not folds and not recipe.eval_data:
        raise ConfigError("There is nothing to compare trials on: give eval_data, or folds under [tune].")
    metric = str(recipe.train.get("metric", "loss"))
    search = Search(
        space=space,
        method=table.get("method", "tpe"),
        trials=trials if trials is not None else table.get("trials", 20),
        minimize=metric in LOWER_IS_BETTER,
        seed=table.get("seed", 0),
        prune=table.get("prune", True),
    )
    plan = Plan(recipe=recipe, search=search, folds=folds, workers=count)
    # The first point is built now: a wrong name or value should not wait for its trial.
    with_params(recipe, {name: _example(choice) for name, choice in space.items()}, output=recipe.output)
    return plan


def _example(choice: Choice) -> Value:
    return choice.options[0] if choice.options else choice.low


def with_params(recipe: Recipe, params: Mapping[str, Value], *, output: str) -> Recipe:
    """Return the recipe with some hyperparameters set."""
    tables = {section: dict(getattr(recipe, section)) for section in _SECTIONS}
    for name, value in params.items():
        section, _, key = name.partition(".")
        tables[section][key] = value
    values = {**recipe.to_dict(), **{section: table for section, table in tables.items() if table}, "output": output}
    return build_recipe(values, {})


def fold_recipe(recipe: Recipe, fold: int, folds: int) -> Recipe:
    """Return the recipe that trains on all folds but one and measures on that one."""
    data = tuple(dataclasses.replace(spec, folds=folds, fold=fold) for spec in recipe.data)
    held_out = tuple(dataclasses.replace(spec, held_out=True, weight=None) for spec in data)
    return dataclasses.replace(recipe, data=data, eval_data=held_out)


class _Reporter:
    """Hears of a trial's evaluations, and tells when to give up."""

    def __init__(self, metric: str, intermediate: Callable[[int, float], bool] | None) -> None:
        self.metric, self._intermediate = metric, intermediate
        self.pruned = False

    def on_step(self, info: Any, total: int) -> None:
        pass

    def on_evaluation(self, step: int, values: Mapping[str, float], *, improved: bool) -> None:
        value = values[self.metric]
        if self._intermediate is not None and math.isfinite(value):
            self.pruned = self.pruned or self._intermediate(step, value)

    def on_samples(self, step: int, samples: Sequence[Mapping[str, str]]) -> None:
        pass

    def on_note(self, text: str) -> None:
        pass


def measure(recipe: Recipe, intermediate: Callable[[int, float], bool] | None, scorer: Scorer | None) -> float:
    """Train once and return the best value of the metric on the dev data; infinity where training diverged.

    Args:
        recipe: What to train; its output folder keeps the log alone.
        intermediate: Told of each evaluation; returns whether to give up.
        scorer: Scores predictions.

    Raises:
        Pruned: It gave up.
    """
    from nlpkit.apps.dev_set import DevSet
    from nlpkit.apps.training import set_up
    from nlpkit.core.train.distributed import SINGLE
    from nlpkit.core.train.session import Session

    folder = Path(recipe.output)
    shutil.rmtree(folder, ignore_errors=True)
    training = set_up(recipe, process=SINGLE)
    reporter = _Reporter(training.start.config.metric, intermediate)
    dev = DevSet(recipe, training.start, scorer=scorer)
    session = Session(
        training.trainer,
        folder,
        identity=training.identity,
        dev=training.dev,
        evaluate=dev.evaluate(),
        watcher=reporter,
        stop=lambda: reporter.pruned,
    )
    outcome = session.run()
    for heavy in ("checkpoints", "data"):
        shutil.rmtree(folder / heavy, ignore_errors=True)
    if reporter.pruned:
        raise Pruned
    return math.inf if outcome.best is None or outcome.reason == "diverged" else outcome.best[0]


def run_plan(plan: Plan, *, scorer: Scorer | None, worker: int = 0, quiet: bool = False) -> list[Trial]:
    """Run a plan's trials in this process, until enough are done.

    Args:
        plan: The plan.
        scorer: Scores predictions by the name of a metric.
        worker: Number of this process.
        quiet: Whether to say nothing.

    Returns:
        All trials so far.
    """
    folder = Path(plan.recipe.output)

    def objective(params: Mapping[str, Value], intermediate: Callable[[int, float], bool], number: int) -> float:
        output = folder / "trials" / str(number)
        if not plan.folds:
            return measure(with_params(plan.recipe, params, output=str(output)), intermediate, scorer)
        values: list[float] = []
        for fold in range(plan.folds):
            recipe = with_params(plan.recipe, params, output=str(output / f"fold-{fold}"))
            values.append(measure(fold_recipe(recipe, fold, plan.folds), None, scorer))
            mean = sum(values) / len(values)
            if fold + 1 < plan.folds and math.isfinite(mean) and intermediate(fold, mean):
                raise Pruned
        return sum(values) / len(values)

    def report(trial: Trial) -> None:
        shown = trial.state if trial.value is None else f"{plan.metric} {trial.value:.4g}"
        note(f"trial {trial.number}: {shown} with {_params(trial.params)}", quiet=quiet)

    return run_search(folder, plan.search, objective, worker=worker, report=report)


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
    if worker:
        run_plan(plan, scorer=scorer, worker=worker, quiet=quiet)
        return 0
    if plan.workers > 1:
        # Made before the others start: they must not all create the database at once.
        from nlpkit.core.train.tune import open_study

        open_study(Path(plan.recipe.output), plan.search, worker=0)
    others = [_start_worker(config, plan, number, quiet=quiet) for number in range(1, plan.workers)]
    try:
        found = run_plan(plan, scorer=scorer, quiet=quiet)
        failed = [process for process in others if process.wait() != 0]
    finally:
        for process in others:
            if process.poll() is None:
                process.terminate()
    if failed:
        note(f"{len(failed)} of {plan.workers} workers failed; what they say stands above")
    if others:
        found = run_plan(plan, scorer=scorer, quiet=quiet)
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
            writer.write(render_table(found, plan))
    if best is None:
        note("no trial was completed: see the states above")
        return 3
    note(f"the best configuration is {folder / 'best.toml'}: nlpkit train --config {folder / 'best.toml'}", quiet=quiet)
    return 0


def _start_worker(config: str, plan: Plan, number: int, *, quiet: bool) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "nlpkit.cli", "tune", "--config", config, "--output", plan.recipe.output]
    command += ["--trials", str(plan.search.trials), "--worker", str(number), *(["--quiet"] if quiet else [])]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _params(params: Mapping[str, Value]) -> str:
    return ", ".join(f"{name} {_shown(value)}" for name, value in params.items())


def _shown(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _ordered(trials: Sequence[Trial], plan: Plan) -> list[Trial]:
    sign = 1 if plan.search.minimize else -1
    return sorted(trials, key=lambda trial: (trial.value is None, sign * (trial.value or 0.0), trial.number))


def render_table(trials: Sequence[Trial], plan: Plan) -> str:
    """Return the trials as a table, the best first."""
    names = list(plan.search.space)
    rows = [["trial", plan.metric, "state", "seconds", *names]]
    for trial in _ordered(trials, plan):
        value = "" if trial.value is None else f"{trial.value:.5g}"
        seconds = "" if trial.seconds is None else f"{trial.seconds:.1f}"
        params = [_shown(trial.params[name]) if name in trial.params else "" for name in names]
        rows.append([str(trial.number), value, trial.state, seconds, *params])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def render_page(trials: Sequence[Trial], plan: Plan) -> str:
    """Return a page with the trials' values over each hyperparameter."""
    done = [trial for trial in trials if trial.value is not None]
    charts = [_scatter("trial", [(float(trial.number), trial.value or 0.0) for trial in done])]
    for name, choice in plan.search.space.items():
        points = []
        for trial in done:
            value = trial.params[name]
            if choice.options:
                points.append((float(choice.options.index(value)), trial.value or 0.0))
            elif isinstance(value, (int, float)):
                points.append((math.log10(value) if choice.log else float(value), trial.value or 0.0))
        axis = f"{name} ({', '.join(map(_shown, choice.options))})" if choice.options else name
        charts.append(_scatter(f"log10 {axis}" if choice.log else axis, points))
    table = html.escape(render_table(trials, plan))
    return (
        "<!doctype html><meta charset=utf-8><title>Trials</title><style>body{font:14px system-ui;margin:2em;"
        "max-width:60em}svg{width:48%;height:auto}circle{fill:#3b6ea5;fill-opacity:.7}text{font-size:12px;fill:#444}"
        f"</style><h1>{html.escape(plan.metric)} of {len(done)} trials</h1>{''.join(charts)}<pre>{table}</pre>"
    )


def _scatter(axis: str, points: Sequence[tuple[float, float]]) -> str:
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
